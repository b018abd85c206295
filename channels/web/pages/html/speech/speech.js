// Speech input and output by the browser. Recognition is paused while an answer is read aloud, so that the page does
// not hear itself. Requires listening.js, plain_text.js and reading.js.

const { createSpeech, speechControls } = (() => {
  /** Default callbacks of a page; all are optional. */
  const UNTOLD = Object.fromEntries(
    ["onInterim", "onFinal", "onWords", "onUtterance", "onState", "onError"].map((name) => [name, () => {}]),
  );

  /** Speech input and output of one page. */
  class Speech {
    #listening;
    #reading;
    #utterance;
    #reported = "off false";

    constructor(options) {
      this.on = { ...UNTOLD, ...options };
      const Recognition = globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition;
      this.#utterance = new Utterance(options.silence ?? 0, (words) => this.#handOver(words));
      this.#listening = new Listening(Recognition, options.language, {
        interim: (words) => this.#heard(words),
        final: (words) => this.#finished(words),
        gaveUp: (code) => this.#gaveUp(code),
      });
      this.#reading = new Reading({ begins: () => this.#holds(), ends: () => this.#goesOn() });
      this.#reading.language = options.language;
      globalThis.addEventListener("pagehide", () => this.hush());
    }

    get canListen() {
      return Boolean(this.#listening.Recognition);
    }

    get canSpeak() {
      return "speechSynthesis" in globalThis;
    }

    get listening() {
      return this.#listening.wanted;
    }

    get speaking() {
      return this.#reading.active;
    }

    get aloud() {
      return this.#reading.aloud;
    }

    set aloud(wanted) {
      this.#reading.aloud = wanted;
      if (!wanted) this.#reading.hush(false);
    }

    get rate() {
      return this.#reading.rate;
    }

    set rate(rate) {
      this.#reading.rate = Math.min(2, Math.max(0.5, Number(rate) || 1.25));
    }

    get voice() {
      return this.#reading.voice;
    }

    set voice(uri) {
      this.#reading.voice = uri;
    }

    /** Return the available voices, those of the current language first; browsers may load more later. */
    voices() {
      const ours = (voice) => Number(voice.lang.startsWith(this.#reading.language.slice(0, 2)));
      return this.canSpeak ? [...speechSynthesis.getVoices()].sort((a, b) => ours(b) - ours(a)) : [];
    }

    setLanguage(language) {
      this.#reading.language = language;
      if (this.#listening.language === language) return;
      this.#listening.language = language;
      this.#listening.restart();
    }

    start() {
      this.#utterance.clear();
      this.#listening.start();
      this.#tellState();
    }

    stop() {
      this.#utterance.clear();
      this.#listening.stop();
      this.#tellState();
    }

    read(id, text, ended = false) {
      this.#reading.read(id, text, ended);
    }

    /** Read a whole text now, in place of what is being read. */
    say(id, text) {
      this.#reading.say(id, text);
    }

    forget(id) {
      this.#reading.forget(id);
    }

    hush() {
      this.#reading.hush(true);
    }

    #finished(words) {
      this.#utterance.add(words);
      this.on.onFinal(words);
    }

    #heard(interim) {
      this.on.onInterim(interim);
      if (!this.#listening.wanted) return;
      const words = this.#utterance.heard(interim);
      if (words) this.on.onWords(words);
    }

    #handOver(words) {
      const unfinished = this.#listening.interim;
      this.#utterance.clear();
      if (unfinished) {
        // The interim words are handed over now; restart, so that the recogniser does not report them again.
        this.#listening.interim = "";
        this.#listening.restart();
        this.on.onInterim("");
      }
      this.on.onUtterance(words);
    }

    #gaveUp(code) {
      this.#utterance.clear();
      this.on.onError(code);
      this.#tellState();
    }

    #holds() {
      this.#tellState();
      this.#listening.hold(() => this.#reading.next());
    }

    #goesOn() {
      this.#listening.release();
      this.#tellState();
    }

    #tellState() {
      const state = this.speaking ? "speaking" : this.listening ? "listening" : "off";
      const current = `${state} ${this.listening}`;
      if (current === this.#reported) return;
      this.#reported = current;
      this.on.onState(state);
    }
  }

  const KEPT = "wechatlaibao.speech";

  /** Return the stored settings; a browser may refuse access to the storage. */
  function kept() {
    try {
      return JSON.parse(localStorage.getItem(KEPT)) ?? {};
    } catch {
      return {};
    }
  }

  function keep(choices) {
    try {
      localStorage.setItem(KEPT, JSON.stringify(choices));
    } catch {
      // Without storage the settings are kept until the page is closed.
    }
  }

  function option(value, text, lang = "") {
    const made = document.createElement("option");
    Object.assign(made, { value, textContent: text, lang });
    return made;
  }

  /** Fill a <select> with voices; the chosen one is kept even if the browser has not loaded it yet. */
  function fillVoices(speech, select) {
    const voices = speech.voices().map((voice) => option(voice.voiceURI, `${voice.name} (${voice.lang})`, voice.lang));
    select.replaceChildren(option("", select.dataset.automatic ?? ""), ...voices);
    select.value = voices.some((voice) => voice.value === speech.voice) ? speech.voice : "";
  }

  /** Connect a page's speech controls; return a function that fills them again after a change of language. */
  function controls(speech, { aloud, voice, rate, shown }) {
    const choices = { aloud: false, voice: "", rate: 1.25, ...kept() };
    const apply = () => {
      Object.assign(speech, choices);
      if (shown) shown.textContent = `${speech.rate.toFixed(2)}×`;
    };
    const wire = (control, name, read) => {
      control?.addEventListener("input", () => {
        choices[name] = read();
        apply();
        keep(choices);
      });
    };
    const relabel = () => voice && fillVoices(speech, voice);
    apply();
    if (aloud) aloud.checked = speech.aloud;
    if (rate) rate.value = String(speech.rate);
    wire(aloud, "aloud", () => aloud.checked);
    wire(voice, "voice", () => voice.value);
    wire(rate, "rate", () => rate.valueAsNumber);
    if (speech.canSpeak) speechSynthesis.addEventListener?.("voiceschanged", relabel);
    relabel();
    return relabel;
  }

  return {
    /** `language`: zh-CN or en-US; `silence`: milliseconds after which words become an utterance, 0 for never. */
    createSpeech: (options) => new Speech(options),
    speechControls: controls,
  };
})();
