// Speech on the chat page: spoken words are asked after a silence, answers are read aloud.

const REFUSED = ["not-allowed", "service-not-allowed"];
/** Milliseconds of silence after which the spoken words are sent. */
const SILENCE_MS = 3000;

const mic = byId("mic");
const speechLanguage = () => (locale === "zh" ? "zh-CN" : "en-US");

function showSpeech() {
  const speaking = speech.speaking;
  const words = word(speaking && speech.listening ? "micHeld" : speech.listening ? "micOff" : "micOn");
  mic.dataset.state = speaking ? "speaking" : "";
  mic.setAttribute("aria-pressed", String(speech.listening));
  mic.setAttribute("aria-label", words);
  mic.title = words;
  byId("hush").disabled = !speaking;
  showHeard(speech.listening ? word(speaking ? "micHeld" : "listening") : "");
}

function showHeard(words) {
  byId("heard").textContent = words;
  byId("heard").hidden = !words;
}

const speech = createSpeech({
  language: speechLanguage(),
  silence: SILENCE_MS,
  onWords: showHeard,
  onUtterance(words) {
    showHeard(word("listening"));
    ask(words);
  },
  onState: showSpeech,
  onError: (code) => note(word(REFUSED.includes(code) ? "micRefused" : "micFailed")),
});
const relabelVoices = speechControls(speech, {
  aloud: byId("aloud"),
  voice: byId("voice"),
  rate: byId("rate"),
  shown: byId("rate-shown"),
});
mic.hidden = !speech.canListen;
byId("voices").hidden = !speech.canSpeak;
mic.addEventListener("click", () => (speech.listening ? speech.stop() : speech.start()));
byId("hush").addEventListener("click", () => speech.hush());
