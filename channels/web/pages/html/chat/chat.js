// The chat page: one conversation at a time, its connection, and what the buttons do.

/** Close codes that end the connection until a click. */
const REPLACED = 4409;
const CLOSED = { [REPLACED]: "replaced", 4410: "dismissed" };

const root = document.documentElement;

function announce(text) {
  byId("announcer").textContent = text;
}

/** Show a message that belongs to no single question; `words()` returns it in the page's language. */
function note(words) {
  say("notice-words", words);
  byId("notice").hidden = false;
}

byId("notice-close").addEventListener("click", () => (byId("notice").hidden = true));

// ---- the conversations ----------------------------------------------------------------------------------------

const troubles = new Set();

const database = new ChatDatabase({
  trouble(kind) {
    if (!troubles.has(kind)) note(() => word(`storage_${kind}`));
    troubles.add(kind);
  },
  changed() {
    list.draw();
    background.watch();
  },
  deleted(id) {
    if (id !== answers.chat.id) return;
    openChat(newId());
    note(() => word("deletedElsewhere"));
  },
});

const answers = new Answers(database, (frame) => connection.send(frame), {
  changed: showWork,
  note,
  grown(turn) {
    if (turn.isNew) speech.read(turn.kept.id, turn.kept.text);
  },
  replaced: (turn) => speech.forget(turn.kept.id),
  ended(turn) {
    if (turn.isNew) speech.read(turn.kept.id, turn.kept.text, true);
    announce(turn.failure || word("answered", { text: turn.words }));
  },
  again: ({ kept }) => ask(kept.question, kept.sent, { choice: kept.choice, given: kept.given }),
  ask: (text) => ask(text),
  choose: chooseBy,
  regenerate: (turn) => askInstead(turn, turn.kept.question, turn.nextVersions),
  turned: (turn) => answers.turned(turn),
  edit: editTurn,
  rate: (turn, rating, why) => answers.ratings.rate(turn, rating, why),
  read: readTurn,
});

const list = new ChatList(database, () => answers.chat.id, {
  open: (id) => id !== answers.chat.id && openChat(id),
  fresh: () => (answers.turns.length ? openChat(newId()) : question.focus()),
  exported: async (chat) => saveMarkdown(chat.title, asMarkdown(chat.title, await database.turns(chat.id))),
  deleted: deleteChat,
});

const background = new Background(database, (id) => id !== answers.chat.id && connection.state === "open" && !document.hidden);

let opening = 0;

/** Show a conversation, and connect as its client: its running answers are resumed. */
async function openChat(id) {
  const ours = ++opening;
  speech.hush();
  await answers.keep();
  connection.close();
  const [chats, turns] = await Promise.all([database.chats(), database.turns(id)]);
  if (ours !== opening) return;
  tabStore.set("client", id);
  // Words that were typed before the page was ready stay.
  if (answers.chat.id || !question.value) drafts.show(id);
  if (location.hash !== `#${id}`) history[answers.chat.id ? "pushState" : "replaceState"](null, "", `#${id}`);
  const blank = { id, title: "", changed: Date.now(), unfinished: 0 };
  const chat = chats.find((one) => one.id === id) ?? blank;
  if (chat.unread) database.see(id);
  answers.show({ ...chat, unread: false }, turns);
  scrolling.toEnd();
  connection.connect();
  list.draw();
  // Focus the field only on devices without a touch keyboard, which would cover half of the page.
  if (matchMedia("(pointer: fine)").matches) question.focus();
}

/** Open the conversation of the page's address, if this browser has it; else the tab's last one or a new one. */
async function openAddress() {
  const named = location.hash.slice(1);
  const own = tabStore.get("client", "");
  const known = named === own || (await database.chats()).some(({ id }) => id === named);
  if (named && known) return openChat(named);
  return openChat(answers.chat.id ? newId() : own || newId());
}

/** Delete a conversation and stop its running answers. */
async function deleteChat(chat) {
  for (const { state, stream_id } of await database.turns(chat.id)) {
    if (!isEnded(state) && stream_id) connection.send({ type: "stop", stream_id });
  }
  if (chat.id === answers.chat.id) await openChat(newId());
  tabStore.set(`draft.${chat.id}`, "");
  await database.delete(chat.id);
}

// ---- the connection -------------------------------------------------------------------------------------------

function showState(state, { seconds = 0, code = 0 }) {
  // Closed by the page itself, which opens another connection at once.
  if (code === 1000) return;
  header.showState(state, seconds);
  byId("banner").hidden = !CLOSED[code];
  byId("banner-words").textContent = CLOSED[code] ? word(CLOSED[code]) : "";
  if (code === REPLACED) answers.pause();
}

const connection = createConnection({
  path: () => root.dataset.socket + answers.chat.id,
  expects: () => answers.unfinished.length > 0,
  onState: showState,
  onFrame: (frame) => answers.receive(frame),
  onOpen() {
    answers.reconnect();
    background.watch();
    loadOpening((text) => ask(text));
  },
});

// Another tab may have gone on with the conversation: show it as it is stored.
byId("come-back").addEventListener("click", () => openChat(answers.chat.id));

// ---- asking ---------------------------------------------------------------------------------------------------

/** Update which buttons are shown and enabled. */
function showWork() {
  byId("stop").hidden = answers.unfinished.length === 0;
  byId("empty").hidden = answers.turns.length > 0;
  byId("chat-title").textContent = answers.chat.title || word("fresh");
}

/** Answer a form; the question shows the texts that go with the choice. */
function chooseBy(title, choice, given) {
  const text = [title, ...Object.entries(given).map((named) => named.join(": "))].join("\n");
  if (refusalOf(text)) return note(() => refusalOf(text));
  return ask(text, [], { choice, given });
}

/** Ask a question; `more` is that of `Answers.ask`. */
async function ask(text, files = [], more = {}) {
  const words = text.trim();
  if (!words && !files.length) return;
  speech.hush();
  // A question that is sent before the page is ready belongs to the conversation that is about to be shown.
  if (!answers.chat.id) await firstShown;
  if (answers.paused) await openChat(answers.chat.id);
  answers.ask(words, byId("conversation").checked, files, more);
  scrolling.toEnd();
}

/** Ask in place of a question: it and what follows leave the page, but for the `versions` of its answer. */
function askInstead(turn, text, versions = {}) {
  answers.drop(turn);
  ask(text, turn.kept.sent, versions);
  question.focus();
}

function editTurn(turn) {
  editQuestion(turn, answers.after(turn).length, (text) => askInstead(turn, text));
}

wireComposer({
  ask,
  current: () => answers.chat.id,
  editLast() {
    const last = answers.turns.at(-1);
    if (last && !last.editor && !last.kept.choice) editTurn(last);
  },
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

function speakLanguage() {
  relabel();
  byId("voice").dataset.automatic = word("automatic");
  speech.setLanguage(speechLanguage());
  relabelVoices();
  attachments.relabel();
  for (const turn of answers.turns) turn.draw();
  showSpeech();
  showWork();
  list.draw();
}

preferences.on("locale", speakLanguage);
byId("conversation").checked = settings.get("conversation", true);
byId("conversation").addEventListener("change", ({ target }) => settings.set("conversation", target.checked));
document.addEventListener("click", (event) => {
  if (!byId("settings").contains(event.target)) byId("settings").open = false;
});
document.addEventListener("visibilitychange", () => document.hidden && answers.keep());
addEventListener("pagehide", () => {
  answers.keep();
  connection.close();
});
addEventListener("popstate", openAddress);
addEventListener("pageshow", (event) => event.persisted && openChat(answers.chat.id));

speakLanguage();
const firstShown = database.open().then(openAddress);
