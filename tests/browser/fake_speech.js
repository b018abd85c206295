// Stand-ins for the browser's speech recognition and synthesis, which a test drives through `theatre`:
//   theatre.hear("今天", false)   the recogniser hears words, final or not; false when none is running
//   theatre.spoken                what the voice was asked to say, in order: {text, rate, voice, lang}
//   theatre.endOfPiece()          the voice has said what it is saying
//   theatre.overheard             pieces whose reading began while a recogniser was running: must stay empty
{
  const theatre = { running: null, runs: 0, lang: "", spoken: [], saying: null, overheard: [], cancelled: 0 };

  class Recogniser {
    results = [];

    start() {
      if (theatre.running || this.results.length) throw new DOMException("started already", "InvalidStateError");
      theatre.running = this;
      theatre.runs += 1;
      theatre.lang = this.lang;
    }

    /** Real recognisers still say what they made of the last words, and end a moment later. */
    stop() {
      if (theatre.running !== this) return;
      setTimeout(() => {
        const last = this.results.at(-1);
        if (last && !last.isFinal) this.put(last[0].transcript, true);
        this.end();
      }, 30);
    }

    abort() {
      setTimeout(() => this.end(), 10);
    }

    end() {
      if (theatre.running !== this) return;
      theatre.running = null;
      this.onend?.(new Event("end"));
    }

    put(transcript, isFinal) {
      if (this.results.length && !this.results.at(-1).isFinal) this.results.pop();
      this.results.push(Object.assign([{ transcript, confidence: 0.9 }], { isFinal }));
      this.onresult?.({ results: this.results, resultIndex: this.results.length - 1 });
    }

    fail(error) {
      this.onerror?.({ error });
      this.end();
    }
  }

  class Utterance {
    constructor(text) {
      this.text = text;
    }
  }

  const synthesis = {
    getVoices: () => [
      { voiceURI: "urn:test:anna", name: "Anna", lang: "en-US" },
      { voiceURI: "urn:test:xiaobao", name: "小宝", lang: "zh-CN" },
    ],
    speak(utterance) {
      if (theatre.running) theatre.overheard.push(utterance.text);
      const { text, rate, lang, voice } = utterance;
      theatre.spoken.push({ text, rate, lang, voice: voice?.name ?? "" });
      theatre.saying = utterance;
    },
    cancel() {
      const cut = theatre.saying;
      theatre.saying = null;
      theatre.cancelled += 1;
      if (cut) setTimeout(() => cut.onerror?.({ error: "canceled" }), 5);
    },
    addEventListener() {},
  };

  theatre.hear = (transcript, isFinal) => {
    theatre.running?.put(transcript, isFinal);
    return Boolean(theatre.running);
  };
  theatre.endOfPiece = () => {
    const done = theatre.saying;
    theatre.saying = null;
    done?.onend?.({});
  };
  const put = (name, value) => Object.defineProperty(window, name, { value, configurable: true, writable: true });
  put("SpeechRecognition", Recogniser);
  put("SpeechSynthesisUtterance", Utterance);
  put("speechSynthesis", synthesis);
  put("theatre", theatre);
}
