// The chat page: handles input, and shows the state of the connection.

const CLOSED = { 4409: "replaced", 4410: "dismissed" };

const root = document.documentElement;
let clientId = store.get("client", "") || newId();
store.set("client", clientId);
locale = store.get("locale", root.dataset.locale) === "en" ? "en" : "zh";

function announce(text) {
  byId("announcer").textContent = text;
}

/** Show a message that belongs to no single question. */
function note(text) {
  byId("banner-words").textContent = text;
  byId("come-back").hidden = true;
  byId("banner").hidden = false;
}

const answers = new Answers((frame) => connection.send(frame), {
  changed: showWork,
  note,
  grown(turn) {
    if (turn.isNew) speech.read(turn.kept.id, turn.kept.text);
  },
  replaced: (turn) => speech.forget(turn.kept.id),
  ended(turn) {
    if (turn.isNew) speech.read(turn.kept.id, turn.kept.text, true);
    announce(turn.kept.sentence || word("answered", { text: turn.words }));
  },
  again: ask,
});

// ---- the connection -------------------------------------------------------------------------------------------

let until = 0;
let ticking = 0;

function stateWords(state) {
  const seconds = Math.ceil((until - performance.now()) / 1000);
  return state === "waiting" && seconds > 0 ? word("waiting", { seconds }) : word(state === "waiting" ? "connecting" : state);
}

function drawState(state) {
  byId("state").dataset.state = state;
  byId("state").textContent = stateWords(state);
}

function showState(state, { seconds = 0, code = 0, wrong = false }) {
  clearInterval(ticking);
  until = performance.now() + seconds * 1000;
  drawState(state);
  if (state === "waiting") ticking = setInterval(() => drawState(state), 1000);
  if (state !== "connecting") announce(stateWords(state));
  byId("banner").hidden = !CLOSED[code];
  byId("banner-words").textContent = CLOSED[code] ? word(CLOSED[code]) : "";
  byId("come-back").hidden = false;
  showKey(state === "auth", wrong);
}

function showKey(wanted, wrong) {
  // The form stays while a key is being checked, so that a wrong one can be corrected in place.
  if (!wanted && connection.state === "connecting") return;
  byId("key").hidden = !wanted;
  byId("key-wrong").hidden = !wrong;
  byId("key-wrong").textContent = wrong ? word("keyWrong") : "";
  if (wanted) byId("key-input").focus();
}

const connection = createConnection({
  path: () => root.dataset.socket + clientId,
  onState: showState,
  onFrame: (frame) => answers.receive(frame),
  onOpen: () => answers.reconnect(),
});

byId("come-back").addEventListener("click", () => connection.again());
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key-input").value.trim();
  byId("key-input").value = "";
  if (key) connection.authenticate(key);
});

// ---- asking ---------------------------------------------------------------------------------------------------

const question = byId("question");

/** Update which buttons are shown and enabled. */
function showWork() {
  const working = answers.unfinished.length > 0;
  byId("stop").hidden = !working;
  byId("empty").hidden = answers.turns.length > 0;
  byId("export").disabled = answers.turns.length === 0;
}

function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight + 2}px`;
}

function ask(text) {
  const words = text.trim();
  if (!words) return;
  speech.hush();
  answers.ask(words, byId("conversation").checked);
  byId("scroll").scrollTop = byId("scroll").scrollHeight;
}

function submit() {
  ask(question.value);
  question.value = "";
  fit();
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
  question.focus();
});
question.addEventListener("input", fit);
question.addEventListener("keydown", (event) => {
  // An Enter that confirms a character belongs to the input method.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
byId("stop").addEventListener("click", () => {
  answers.stop();
  question.focus();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (byId("settings").open) {
    byId("settings").open = false;
    byId("settings").firstElementChild.focus();
    return;
  }
  speech.hush();
  answers.stop();
});

// ---- the page -------------------------------------------------------------------------------------------------

function speakLanguage(chosen) {
  locale = chosen;
  store.set("locale", chosen);
  relabel();
  const other = byId("language");
  other.textContent = locale === "zh" ? "English" : "中文";
  other.lang = locale === "zh" ? "en" : "zh-CN";
  question.placeholder = word("question");
  byId("voice").dataset.automatic = word("automatic");
  speech.setLanguage(speechLanguage());
  relabelVoices();
  for (const turn of answers.turns) turn.draw();
  drawState(connection.state || "connecting");
  showSpeech();
}

function exportChat() {
  const title = document.querySelector("h1").textContent;
  const file = new Blob([asMarkdown(title, answers.turns)], { type: "text/markdown;charset=utf-8" });
  const link = element("a");
  link.href = URL.createObjectURL(file);
  link.download = `${word("file")}-${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function beginAnew() {
  if (answers.turns.length && !confirm(word("freshConfirm"))) return;
  answers.stop();
  speech.hush();
  answers.clear();
  connection.close();
  clientId = newId();
  store.set("client", clientId);
  connection.connect();
  showWork();
  question.focus();
}

byId("language").addEventListener("click", () => speakLanguage(locale === "zh" ? "en" : "zh"));
byId("export").addEventListener("click", exportChat);
byId("fresh").addEventListener("click", beginAnew);
byId("conversation").checked = store.get("conversation", false);
byId("conversation").addEventListener("change", ({ target }) => store.set("conversation", target.checked));
document.addEventListener("click", (event) => {
  if (!byId("settings").contains(event.target)) byId("settings").open = false;
});
document.addEventListener("visibilitychange", () => document.hidden && answers.keep());
addEventListener("pagehide", () => {
  answers.keep();
  connection.close();
});
addEventListener("pageshow", (event) => event.persisted && connection.connect());

answers.restore(store.turns());
speakLanguage(locale);
showWork();
byId("scroll").scrollTop = byId("scroll").scrollHeight;
connection.connect();
// Focus the input only on devices without a touch keyboard, which would cover half of the page.
if (matchMedia("(pointer: fine)").matches) question.focus();
