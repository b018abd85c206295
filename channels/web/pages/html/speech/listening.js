// Speech recognition by the browser that runs until it is stopped, and the collection of words until a silence.

const { Listening, Utterance } = (() => {
  /** Milliseconds before recognition restarts, the maximum after failures, and until a recogniser must have ended. */
  const AGAIN_MS = 250;
  const AGAIN_MOST_MS = 8000;
  const END_MS = 1000;
  /** Consecutive failed runs after which listening stops. */
  const FAILURES = 6;
  /** Errors that make further tries useless. */
  const FATAL = ["not-allowed", "service-not-allowed", "audio-capture", "language-not-supported"];
  /** Not on Android: its recogniser repeats earlier results as new ones in continuous mode. */
  const CONTINUOUS = !/Android/.test(navigator.userAgent);

  /** Runs the browser's recogniser again and again while listening is wanted and not on hold. */
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

    /** Stop; results of the words heard so far may still come. */
    stop() {
      this.wanted = false;
      this.#finish();
    }

    /** Restart, to apply another language or to discard interim words. */
    restart() {
      this.#drop();
      this.#again(AGAIN_MS);
    }

    /** Pause, and call `then` when the recogniser has ended, at the latest after END_MS. */
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

    /** End the run after its last results. */
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

    /** Report the results after the first `taken`, each final one once; return the number of final ones. */
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
      // Interim words that never became final count as final.
      if (this.interim) this.#final(this.interim);
      this.tell.interim("");
      const then = this.#ended;
      this.#ended = null;
      if (then) then();
      else this.#again(Math.min(AGAIN_MS * 2 ** this.#failures, AGAIN_MOST_MS));
    }

    /** Abort the run; its late events are ignored. */
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

  /** Collects spoken words, and hands them over after a silence. */
  class Utterance {
    #words = "";
    #last = "";
    #timer = 0;

    constructor(silence, handOver) {
      this.silence = silence;
      this.handOver = handOver;
    }

    add(words) {
      this.#words = joined(this.#words, words);
    }

    /** Return all words so far, with `interim` last, and restart the wait for silence. */
    heard(interim) {
      const words = joined(this.#words, interim);
      if (words === this.#last) return words;
      this.#last = words;
      clearTimeout(this.#timer);
      if (words && this.silence) this.#timer = setTimeout(() => this.handOver(words), this.silence);
      return words;
    }

    clear() {
      clearTimeout(this.#timer);
      this.#words = this.#last = "";
    }
  }

  /** Join words with a space, but without one between Chinese words. */
  function joined(before, after) {
    const space = /[\p{ASCII}]$/u.test(before) && /^[\p{ASCII}]/u.test(after);
    return before + (space ? " " : "") + after;
  }

  return { Listening, Utterance };
})();
