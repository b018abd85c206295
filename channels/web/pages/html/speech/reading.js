// Reads growing answers aloud, one piece after the other.

const { Reading } = (() => {
  /** Maximum characters of a piece; some voices stop in the middle of longer ones. */
  const PIECE = 180;
  /** Timeout of a piece in milliseconds: a constant part, and a part for each character at rate 1. */
  const START_MS = 8000;
  const CHARACTER_MS = 600;

  /** The queue of pieces to read aloud. */
  class Reading {
    aloud = false;
    rate = 1.25;
    voice = "";
    language = "zh-CN";
    active = false;
    #queue = [];
    #answers = new Map();
    #current = null;
    #timer = 0;

    constructor(tell) {
      this.tell = tell;
    }

    read(id, text, ended) {
      if (!this.#answers.has(id)) this.#answers.set(id, { at: 0, plain: new PlainText(), muted: false });
      const answer = this.#answers.get(id);
      const until = ended ? text.length : text.lastIndexOf("\n") + 1;
      if (until <= answer.at) return;
      const lines = answer.plain.lines(text.slice(answer.at, until));
      answer.at = until;
      if (!this.aloud || answer.muted || !globalThis.speechSynthesis) return;
      this.#queue.push(...lines.flatMap(pieces).map((words) => ({ id, words })));
      this.#wake();
    }

    /** Read a whole text now, also when answers are not read by themselves. */
    say(id, text) {
      this.hush(true);
      this.#queue = new PlainText().lines(text).flatMap(pieces).map((words) => ({ id, words }));
      this.#wake();
    }

    forget(id) {
      this.#answers.delete(id);
      this.#queue = this.#queue.filter((piece) => piece.id !== id);
      if (this.#current?.id === id) this.#cut();
    }

    /** Stop at once; with `muted`, the rest of these answers is not read either. */
    hush(muted) {
      for (const answer of this.#answers.values()) answer.muted ||= muted;
      this.#queue = [];
      this.#cut();
    }

    /** Read the next piece; called while the recogniser is paused. */
    next() {
      clearTimeout(this.#timer);
      this.#current = this.#queue.shift() ?? null;
      if (!this.#current) return this.#rest();
      this.#speak(this.#current);
    }

    #wake() {
      if (this.active || !this.#queue.length) return;
      this.active = true;
      this.tell.begins();
    }

    #rest() {
      this.active = false;
      this.tell.ends();
    }

    #speak(piece) {
      const spoken = new SpeechSynthesisUtterance(piece.words);
      const language = this.#languageOf(piece.words);
      const voice = this.#voiceFor(language);
      if (voice) spoken.voice = voice;
      spoken.lang = voice?.lang ?? language;
      spoken.rate = this.rate;
      spoken.onend = spoken.onerror = () => piece === this.#current && this.next();
      // Referenced by the piece, because an unreferenced utterance may be garbage-collected before it ends.
      piece.spoken = spoken;
      speechSynthesis.speak(spoken);
      // Some voices never fire `end`.
      this.#timer = setTimeout(() => this.#cut(), START_MS + (piece.words.length * CHARACTER_MS) / this.rate);
    }

    /** Cancel the current piece and go on with the next one. */
    #cut() {
      if (!this.#current) return;
      this.#current = null;
      speechSynthesis.cancel();
      this.next();
    }

    #languageOf(words) {
      if (this.voice) return this.language;
      return /\p{Script=Han}/u.test(words) ? "zh-CN" : "en-US";
    }

    #voiceFor(language) {
      const all = speechSynthesis.getVoices();
      const fits = (voice) => voice.lang.replace("_", "-").startsWith(language);
      const near = (voice) => voice.lang.startsWith(language.slice(0, 2));
      return all.find((voice) => voice.voiceURI === this.voice) ?? all.find(fits) ?? all.find(near);
    }
  }

  /** Split a line at sentence ends into pieces of at most PIECE characters. */
  function pieces(line) {
    const sentences = line.match(/(?:[^。！？!?；.]|\.(?!\s|$))+[。！？!?；.]*\s*/g) ?? [line];
    const whole = [];
    for (const sentence of sentences.flatMap((one) => one.match(new RegExp(`[^]{1,${PIECE}}`, "gu")))) {
      const last = whole.at(-1);
      if (last !== undefined && last.length + sentence.length <= PIECE) whole[whole.length - 1] = last + sentence;
      else whole.push(sentence);
    }
    return whole;
  }

  return { Reading };
})();
