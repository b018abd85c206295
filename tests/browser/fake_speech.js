// Fakes of the browser's speech recognition and synthesis. A test controls them through `fakeSpeech`:
//   fakeSpeech.hear("今天", false)   give words to the recogniser, final or not; false if none is running
//   fakeSpeech.spoken                all utterances passed to synthesis, in order: {text, rate, voice, lang}
//   fakeSpeech.endOfPiece()          end the utterance that is being spoken
//   fakeSpeech.overlaps              utterances that began while a recogniser was running: must stay empty
{
  const fakeSpeech = { running: null, runs: 0, lang: "", spoken: [], saying: null, overlaps: [], cancelled: 0 };

  class Recogniser {
    results = [];

    start() {
      if (fakeSpeech.running || this.results.length) throw new DOMException("started already", "InvalidStateError");
      fakeSpeech.running = this;
      fakeSpeech.runs += 1;
      fakeSpeech.lang = this.lang;
    }

    /** Like a real recogniser, return a final result for the last words, and end a moment later. */
    stop() {
      if (fakeSpeech.running !== this) return;
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
      if (fakeSpeech.running !== this) return;
      fakeSpeech.running = null;
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
      if (fakeSpeech.running) fakeSpeech.overlaps.push(utterance.text);
      const { text, rate, lang, voice } = utterance;
      fakeSpeech.spoken.push({ text, rate, lang, voice: voice?.name ?? "" });
      fakeSpeech.saying = utterance;
    },
    cancel() {
      const cut = fakeSpeech.saying;
      fakeSpeech.saying = null;
      fakeSpeech.cancelled += 1;
      if (cut) setTimeout(() => cut.onerror?.({ error: "canceled" }), 5);
    },
    addEventListener() {},
  };

  fakeSpeech.hear = (transcript, isFinal) => {
    fakeSpeech.running?.put(transcript, isFinal);
    return Boolean(fakeSpeech.running);
  };
  fakeSpeech.endOfPiece = () => {
    const done = fakeSpeech.saying;
    fakeSpeech.saying = null;
    done?.onend?.({});
  };
  const put = (name, value) => Object.defineProperty(window, name, { value, configurable: true, writable: true });
  put("SpeechRecognition", Recogniser);
  put("SpeechSynthesisUtterance", Utterance);
  put("speechSynthesis", synthesis);
  put("fakeSpeech", fakeSpeech);
}
