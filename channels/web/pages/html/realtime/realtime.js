// The realtime page: sends speech to the server as transcripts, and shows the streamed answers.

let session = store.get("session", "");
let paused = store.get("paused", false);

const connection = createConnection({
  path: document.documentElement.dataset.socket,
  keepalive: () => addressed({ type: "keepalive" }),
  onState: showConnection,
  onFrame: take,
});

const addressed = (frame) => (session ? { ...frame, session_id: session } : frame);
const send = (frame) => connection.send(addressed(frame));
const transcript = new Transcript({
  send,
  changed: drawControls,
  held: (text) => turns.hold(text),
  released: (id) => turns.release(id),
});
const turns = new Turns({
  begun: (id, question) => transcript.begun(id, question),
  again: (question) => transcript.again(question),
  changed: drawControls,
});

/** The stages after which the server may have room for another question. */
const ROOM = ["listening", "analyzing", "idle"];

/** Send a sentence that waits for room at the server; where there is none, it is held again. */
function askHeld() {
  if (!paused) transcript.next();
}

const TAKE = {
  ack(frame) {
    if (frame.message === "connected") greet(frame);
    else transcript.acked(frame);
  },
  queued(frame) {
    transcript.queued(frame.stream_id, frame.question);
    turns.queued(frame.stream_id, frame.question);
    askHeld();
  },
  status(frame) {
    stages.show(frame);
    if (frame.stage === "waiting_for_question") transcript.noQuestion();
    if (frame.stage === "interrupting") forgetWaiting();
    if (frame.stream_id) turns.begin(frame.stream_id, frame.question);
    if (ROOM.includes(frame.stage)) askHeld();
  },
  answer(frame) {
    const { id, kept } = turns.take(frame);
    if (frame.final || frame.content.includes("\n")) speech.read(id, kept.text, frame.final);
  },
  reset(frame) {
    if (turns.reset(frame)) speech.forget(frame.stream_id);
  },
  error(frame) {
    if (frame.stream_id) return turns.complain(frame) || noteError(frame);
    if (frame.code === "TOO_MANY_QUESTIONS" && transcript.hold()) return undefined;
    const sentence = transcript.settled();
    return sentence ? turns.refused(sentence.text, frame) : noteError(frame);
  },
};

function forgetWaiting() {
  turns.stop({ queued: true });
  transcript.forgetQueued();
}

function take(frame) {
  if (Object.hasOwn(TAKE, frame.type)) TAKE[frame.type](frame);
  drawControls();
}

/** After a (re)connect: continue the session, resume unfinished answers, and send the sentences spoken meanwhile. */
function greet(frame) {
  const again = Boolean(session);
  if (again) send({ type: "keepalive" });
  else showSession(frame.session_id);
  if (paused) send({ type: "control", action: "pause" });
  for (const resume of turns.resumes()) send(resume);
  transcript.flush();
}

function showSession(id) {
  session = id;
  store.set("session", id);
  byId("session").textContent = byId("session").title = id;
}

function pause(wanted) {
  paused = wanted;
  store.set("paused", wanted);
}

/** Start a new session; the server discards the context of the old one. */
function switchSession() {
  speech.hush();
  turns.stop();
  transcript.forgetQueued();
  transcript.forgetLast();
  pause(false);
  showSession(newId());
  send({ type: "keepalive" });
  note("switched");
  drawControls();
}

let connected = false;

function showConnection(state, detail = {}) {
  if (connected && state !== "open") transcript.cut();
  connected = state === "open";
  header.showState(state, detail.seconds);
  byId("connect").hidden = !["closed", "auth", "waiting"].includes(state);
  if (state === "closed") ended(detail.code);
  drawControls();
}

/** The connection was closed for good: show the reason; the next connection starts a new session. */
function ended(code) {
  speech.stop();
  turns.stop();
  transcript.forgetQueued();
  pause(false);
  showSession("");
  note(oneOf(`closed_${code}`, "closed_other"));
}

byId("connect").addEventListener("click", () => (connection.state === "auth" ? askKey() : connection.connect()));

// ---- speech ---------------------------------------------------------------------------------------------------

const TAGS = { zh: "zh-CN", en: "en-US" };
/** Whether the microphone was on when the session was paused. */
let listened = false;

const speech = createSpeech({
  language: TAGS[preferences.locale],
  onInterim: (text) => transcript.interim(text),
  onFinal: (text) => transcript.final(text),
  onState: drawSpeech,
  onError: (code) => note(oneOf(`hearing_${code.replaceAll("-", "_")}`, "hearing_other"), "failure"),
});

function drawSpeech() {
  const held = speech.speaking && speech.listening;
  const state = held ? "micHeld" : speech.listening ? "micOff" : "micOn";
  byId("mic").setAttribute("aria-pressed", String(speech.listening));
  byId("mic").dataset.state = state;
  byId("mic-word").textContent = word(state);
  byId("hush").hidden = !speech.speaking;
}

// ---- controls -------------------------------------------------------------------------------------------------

/** Enable each control while it has an effect. */
function drawControls() {
  byId("pause").disabled = !connected;
  byId("pause").dataset.state = paused ? "paused" : "running";
  byId("pause-word").dataset.t = paused ? "resume" : "pause";
  byId("pause-word").textContent = word(byId("pause-word").dataset.t);
  byId("instant").disabled = !connected || paused || !transcript.last;
  byId("stop").disabled = !connected || !turns.open.length;
  byId("fresh").disabled = !connected;
  const [talks, heard] = [byId("talk").childElementCount > 0, byId("finals").childElementCount > 0];
  byId("clear").disabled = byId("save").disabled = !talks && !heard;
  byId("copy-heard").disabled = !heard;
  byId("empty").hidden = talks;
  byId("hint").hidden = heard;
  [byId("questions").textContent, byId("answers").textContent] = turns.counts;
}

function togglePause() {
  if (!paused) listened = speech.listening;
  pause(!paused);
  if (paused) speech.stop();
  else if (listened) speech.start();
  send({ type: "control", action: paused ? "pause" : "resume" });
  drawControls();
}

/** Stop the answers; the server ends a pause and forgets the sentences. */
function stop() {
  speech.hush();
  pause(false);
  transcript.known = false;
  send({ type: "control", action: "stop" });
}

function clear() {
  turns.clear();
  transcript.clear();
  for (const event of byId("talk").querySelectorAll(".event")) event.remove();
  drawControls();
}

const PRESSED = {
  "copy-heard": ({ currentTarget }) => copyFrom(currentTarget, transcript.heard.map(({ text }) => text).join("\n")),
  save: () => saveMarkdown(minutesTitle(), minutes(transcript.heard, turns.all)),
  mic: () => (speech.listening ? speech.stop() : speech.start()),
  hush: () => speech.hush(),
  pause: togglePause,
  stop,
  clear,
  fresh: switchSession,
  instant() {
    speech.hush();
    transcript.askLast();
  },
};
for (const [id, act] of Object.entries(PRESSED)) byId(id).addEventListener("click", act);

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("line").value.trim();
  byId("line").value = "";
  if (text) transcript.final(text);
});

// ---- language and start ---------------------------------------------------------------------------------------

function draw() {
  relabel();
  byId("voice").dataset.automatic = word("automatic");
  speech.setLanguage(TAGS[preferences.locale]);
  relabelVoices();
  turns.draw();
  stages.draw();
  drawErrors();
  drawSpeech();
  drawControls();
}

transcript.restore();
// What was shown before the reload is not read aloud again.
for (const { id, kept } of turns.restore()) speech.read(id, kept.text, !OPEN.includes(kept.state));
const relabelVoices = speechControls(speech, {
  aloud: byId("aloud"),
  voice: byId("voice"),
  rate: byId("rate"),
  shown: byId("rate-shown"),
});
byId("mic").hidden = !speech.canListen;
byId("voices").hidden = !speech.canSpeak;
byId("hint").dataset.t = speech.canListen ? "hint" : "hintTyped";
if (session) showSession(session);
preferences.on("locale", draw);
draw();
for (const id of ["words", "talk"]) byId(id).scrollTop = byId(id).scrollHeight;
connection.connect();
