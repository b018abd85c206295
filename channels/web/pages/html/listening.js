// Listening: recognition by the browser that goes on until it is told to stop, and what was said until a silence.

const { Listening, Utterance } = (() => {
  /** Milliseconds: before recognition begins again, at most after failures, until a recogniser must have ended. */
  const AGAIN_MS = 250;
  const AGAIN_MOST_MS = 8000;
  const END_MS = 1000;
  /** Runs that fail one after the other before listening is given up. */
  const FAILURES = 6;
  /** Errors after which another try fails as well. */
  const FATAL = ["not-allowed", "service-not-allowed", "audio-capture", "language-not-supported"];
  /** Where Android's recogniser is asked to go on by itself it repeats what it has said as new results. */
  const CONTINUOUS = !/Android/.test(navigator.userAgent);

  /** The microphone: one run of the browser's recogniser after another, while it is wanted and not on hold. */
  class Listening {
    wanted = false;
    interim = "";
    #held = false;
    #run = null;
    #failures = 0;
    #timer = 0;
    #limit = 0;
    #ended = null;

    constructor(Recognition, language, tell) {
      this.Recognition = Recognition;
      this.language = language;
      this.tell = tell;
    }

    start() {
      if (this.wanted || !this.Recognition) return;
      this.wanted = true;
      this.#failures = 0;
      this.#begin();
    }

    /** Stop; what the recogniser has heard so far may still come. */
    stop() {
      this.wanted = false;
      this.#finish();
    }

    /** Begin anew with another language, or without what was not yet final. */
    restart() {
      this.#drop();
      this.#again(AGAIN_MS);
    }

    /** Rest, and call `then` once nothing is heard any more; within a second also when the browser does not say so. */
    hold(then) {
      this.#held = true;
      if (!this.#run) return then();
      this.#ended = then;
      this.#finish();
    }

    release() {
      this.#held = false;
      this.#ended = null;
      this.#again(AGAIN_MS);
    }

    /** Have the run say what it has heard so far, and end. */
    #finish() {
      const run = this.#run;
      clearTimeout(this.#timer);
      clearTimeout(this.#limit);
      if (!run) return;
      run.stop();
      this.#limit = setTimeout(() => this.#end(run), END_MS);
    }

    #begin() {
      if (!this.wanted || this.#held || this.#run) return;
      const run = new this.Recognition();
      Object.assign(run, { lang: this.language, continuous: CONTINUOUS, interimResults: true });
      let taken = 0;
      run.onresult = (event) => {
        if (run === this.#run) taken = this.#take(event.results, taken);
      };
      run.onerror = (event) => run === this.#run && this.#failed(event.error);
      run.onend = () => this.#end(run);
      this.#run = run;
      this.#attempt(run);
    }

    #attempt(run) {
      try {
        run.start();
      } catch {
        this.#failures += 1;
        this.#end(run);
      }
    }

    /** Tell of the results after the `taken` first ones, each final once; return how many are final now. */
    #take(results, taken) {
      this.#failures = 0;
      let finals = taken;
      let interim = "";
      for (let place = taken; place < results.length; place += 1) {
        const words = results[place][0].transcript;
        if (results[place].isFinal && place === finals) {
          finals += 1;
          this.#final(words);
        } else interim += words;
      }
      this.interim = interim.trim();
      this.tell.interim(this.interim);
      return finals;
    }

    #final(words) {
      this.interim = "";
      if (words.trim()) this.tell.final(words.trim());
    }

    #failed(code) {
      if (code === "no-speech" || code === "aborted") return;
      this.#failures += 1;
      if (!FATAL.includes(code) && this.#failures < FAILURES) return;
      this.wanted = false;
      this.tell.gaveUp(code);
    }

    #end(run) {
      if (!run || run !== this.#run) return;
      this.#drop();
      // Words that the recogniser never called final are better than none.
      if (this.interim) this.#final(this.interim);
      this.tell.interim("");
      const then = this.#ended;
      this.#ended = null;
      if (then) then();
      else this.#again(Math.min(AGAIN_MS * 2 ** this.#failures, AGAIN_MOST_MS));
    }

    /** Forget the run, so that nothing late of it counts. */
    #drop() {
      const run = this.#run;
      this.#run = null;
      clearTimeout(this.#timer);
      clearTimeout(this.#limit);
      run?.abort();
    }

    #again(delay) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#begin(), delay);
    }
  }

  /** What was said and not yet handed over, and the silence after it. */
  class Utterance {
    #said = "";
    #last = "";
    #timer = 0;

    constructor(silence, handOver) {
      this.silence = silence;
      this.handOver = handOver;
    }

    add(words) {
      this.#said = joined(this.#said, words);
    }

    /** Return everything so far, `interim` words last, and wait anew for silence. */
    heard(interim) {
      const words = joined(this.#said, interim);
      if (words === this.#last) return words;
      this.#last = words;
      clearTimeout(this.#timer);
      if (words && this.silence) this.#timer = setTimeout(() => this.handOver(words), this.silence);
      return words;
    }

    clear() {
      clearTimeout(this.#timer);
      this.#said = this.#last = "";
    }
  }

  /** Put words after words: with a space, but not between Chinese ones. */
  function joined(before, after) {
    const space = /[\p{ASCII}]$/u.test(before) && /^[\p{ASCII}]/u.test(after);
    return before + (space ? " " : "") + after;
  }

  return { Listening, Utterance };
})();
