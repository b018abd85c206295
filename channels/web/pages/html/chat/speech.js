// Speech on the chat page: spoken words are asked after a silence, answers are read aloud.

const REFUSED = ["not-allowed", "service-not-allowed"];
/** Milliseconds of silence after which the spoken words are sent. */
const SILENCE_MS = 3000;

const mic = byId("mic");
const speechLanguage = () => (preferences.locale === "zh" ? "zh-CN" : "en-US");

/** The answer that is read because its button was pressed. */
let turnBeingRead = null;

function showSpeech() {
  const speaking = speech.speaking;
  const words = word(speaking && speech.listening ? "micHeld" : speech.listening ? "micOff" : "micOn");
  mic.dataset.state = speaking ? "speaking" : "";
  mic.setAttribute("aria-pressed", String(speech.listening));
  mic.setAttribute("aria-label", words);
  mic.title = words;
  byId("hush").disabled = !speaking;
  if (!speaking) turnBeingRead = null;
  for (const turn of answers.turns) turn.actions.read.ariaPressed = String(turn === turnBeingRead);
  showHeard(speech.listening ? word(speaking ? "micHeld" : "listening") : "");
}

/** Read an answer aloud, or stop reading it. */
function readTurn(turn) {
  const stops = turn === turnBeingRead;
  speech.hush();
  if (stops) return;
  turnBeingRead = turn;
  speech.say(turn.kept.id, turn.kept.text);
  showSpeech();
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
  onError: (code) => note(() => word(REFUSED.includes(code) ? "micRefused" : "micFailed")),
});
const relabelVoices = speechControls(speech, {
  aloud: byId("aloud"),
  voice: byId("voice"),
  rate: byId("rate"),
  shown: byId("rate-shown"),
});
mic.hidden = !speech.canListen;
byId("settings").hidden = !speech.canSpeak;
mic.addEventListener("click", () => (speech.listening ? speech.stop() : speech.start()));
byId("hush").addEventListener("click", () => speech.hush());
