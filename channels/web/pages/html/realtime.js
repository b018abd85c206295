// The realtime page: sends speech to the server as transcripts, and shows the streamed answers.

let session = "";
let paused = false;

const turns = new Turns((id) => transcript.begun(id));

const connection = createConnection({
  path: root.dataset.socket,
  keepalive: () => addressed({ type: "keepalive" }),
  onState: showConnection,
  onFrame: take,
});

const addressed = (frame) => (session ? { ...frame, session_id: session } : frame);
const send = (frame) => connection.send(addressed(frame));
const transcript = new Transcript(send);

const TAKE = {
  ack(frame) {
    if (frame.message === "connected") greet(frame);
    else if (frame.is_final) transcript.taken(frame);
  },
  queued(frame) {
    transcript.queued(frame.stream_id);
    turns.asked(frame.stream_id, frame.question);
  },
  status(frame) {
    showStage(frame);
    if (frame.stage === "waiting_for_question") transcript.settled();
    if (frame.stage === "interrupting") forgetWaiting();
    if (frame.stream_id) turns.begin(frame.stream_id, frame.question);
  },
  answer(frame) {
    const turn = turns.take(frame);
    if (frame.final || frame.content.includes("\n")) speech.read(turn.id, turn.text, frame.final);
  },
  reset(frame) {
    turns.reset(frame);
    speech.forget(frame.stream_id);
  },
  error(frame) {
    const sentence = inWords(frame);
    if (!frame.stream_id) transcript.settled();
    if (!frame.stream_id || !turns.complain(frame.stream_id, sentence)) note(sentence, "failure");
  },
};

function forgetWaiting() {
  turns.forgetAsked();
  transcript.forgetQueued();
}

function take(frame) {
  if (Object.hasOwn(TAKE, frame.type)) TAKE[frame.type](frame);
}

/** Return the text of an error: the server's message if it is in the page's language, else the page's own. */
function inWords(frame) {
  const own = word("errors")[frame.code];
  const sentence = language === root.dataset.locale ? frame.message || own : own || frame.message;
  return sentence ? `${sentence} (${frame.detail ?? frame.code})` : frame.code;
}

/** After a (re)connect: continue the session, resume unfinished answers, and send the sentences spoken meanwhile. */
function greet(frame) {
  const again = Boolean(session);
  if (again) send({ type: "keepalive" });
  else showSession(frame.session_id);
  if (paused) send({ type: "control", action: "pause" });
  for (const one of turns.unfinished()) send({ type: "resume", ...one });
  transcript.flush();
}

function showSession(id) {
  session = id;
  byId("session").textContent = byId("session").title = id;
}

/** Start a new session; the server discards the context of the old one. */
function switchSession() {
  speech.hush();
  turns.stop();
  paused = false;
  showSession(newId());
  send({ type: "keepalive" });
  note(`${word("switched")} ${session.slice(0, 8)}`);
}

let connected = { state: "connecting", detail: {} };

function showConnection(state, detail = {}) {
  const before = connected.state;
  connected = { state, detail };
  if (before === "open" && state !== "open") transcript.cut();
  sayConnection();
  for (const button of document.querySelectorAll("[data-action], #fresh")) button.disabled = state !== "open";
  byId("connect").hidden = !["closed", "auth", "waiting"].includes(state);
  if (state === "closed") ended(detail.code);
  // The server closes the connection if no key comes within seconds; do not disturb a key that is being typed.
  if (state === "auth" && (detail.wrong || before !== "auth")) askKey(detail.wrong);
}

function sayConnection() {
  const badge = byId("badge");
  badge.dataset.state = connected.state;
  badge.textContent = word("badge")[connected.state].replace("{seconds}", Math.ceil(connected.detail.seconds ?? 0));
}

/** The connection was closed for good: show the reason; the next connection starts a new session. */
function ended(code) {
  speech.stop();
  turns.stop();
  transcript.forgetQueued();
  session = "";
  paused = false;
  note(word("closed")[code] ?? word("closed").other);
}

// ---- the key --------------------------------------------------------------------------------------------------

function askKey(wrong = false) {
  byId("key-wrong").hidden = !wrong;
  if (wrong) byId("key-input").value = "";
  if (!byId("key").open) byId("key").showModal();
  byId("key-input").focus();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("key").close();
  connection.authenticate(byId("key-input").value.trim());
});
byId("key-cancel").addEventListener("click", () => byId("key").close());
byId("connect").addEventListener("click", () => (connected.state === "auth" ? askKey() : connection.again()));

// ---- speech ---------------------------------------------------------------------------------------------------

const TAGS = { zh: "zh-CN", en: "en-US" };
let listened = false;

const speech = createSpeech({
  language: TAGS[language],
  onInterim: (text) => transcript.interim(text),
  onFinal: (text) => transcript.final(text),
  onState: showSpeech,
  onError: (code) => note(word("hearing")[code] ?? word("hearing").other, "failure"),
});

function showSpeech(state) {
  byId("mic").setAttribute("aria-pressed", String(speech.listening));
  byId("mic").dataset.state = state;
  const held = state === "speaking" && speech.listening;
  byId("mic-word").textContent = word(held ? "micHeld" : speech.listening ? "micOff" : "micOn");
  byId("hush").disabled = state !== "speaking";
}

function toggleListening() {
  if (speech.listening) speech.stop();
  else speech.start();
}

/** The effects of the controls on microphone and voice; the server does the rest. */
const ALSO = {
  pause() {
    listened ||= speech.listening;
    paused = true;
    speech.stop();
  },
  resume() {
    if (listened) speech.start();
    listened = paused = false;
  },
  stop() {
    listened = paused = false;
    speech.stop();
    speech.hush();
  },
  instant_query: () => speech.hush(),
};

for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", () => {
    ALSO[button.dataset.action]();
    send({ type: "control", action: button.dataset.action });
  });
}

byId("mic").hidden = !speech.canListen;
byId("voices").hidden = !speech.canSpeak;
byId("mic").addEventListener("click", toggleListening);
byId("hush").addEventListener("click", () => speech.hush());
byId("fresh").addEventListener("click", switchSession);
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("line").value.trim();
  byId("line").value = "";
  if (text) transcript.final(text);
});

const relabelVoices = speechControls(speech, {
  aloud: byId("aloud"),
  voice: byId("voice"),
  rate: byId("rate"),
  shown: byId("rate-shown"),
});

// ---- language -------------------------------------------------------------------------------------------------

function speak(chosen) {
  language = chosen;
  root.lang = language === "zh" ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-t]")) one.textContent = word(one.dataset.t) ?? "";
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
  for (const row of byId("stages").children) row.firstElementChild.textContent = word("stage")[row.dataset.stage];
  byId("line").placeholder = word("line");
  byId("hint").textContent = word(speech.canListen ? "hint" : "hintTyped");
  byId("voice").dataset.automatic = word("automatic");
  document.title = `${root.dataset.app} · ${word("title")}`;
  byId("language").textContent = word("other");
  byId("language").lang = language === "zh" ? "en" : "zh-CN";
  speech.setLanguage(TAGS[language]);
  relabelVoices();
  showSpeech(speech.speaking ? "speaking" : speech.listening ? "listening" : "off");
  sayStage();
  sayConnection();
}

/** The page is left: close the connection in an orderly way, so that the server cancels running answers. */
addEventListener("pagehide", () => connection.close());
addEventListener("pageshow", (event) => event.persisted && connection.connect());
byId("language").addEventListener("click", () => speak(language === "zh" ? "en" : "zh"));
makeStages();
speak(language);
connection.connect();
