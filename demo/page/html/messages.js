"use strict";

// The messages of the bot that are no bubble: the rest of an answer, files, and, over the long connection, pushes.
// A further message comes when the answer is complete: after twenty minutes at the latest.
const LATE_MS = 2000;
const LATE_LIMIT_MS = 1_260_000;

// By person: how many messages that nobody asked for are shown.
const pushesShown = {};

/** Show a message below an answer or in a line of its own; red if it breaks a rule of WeCom. */
function showMessage(column, message, label) {
  const shown = element("div", message.broken.length ? "bubble late broken" : "bubble late");
  const words = element("div", "text");
  showHtml(words, message.html);
  shown.append(words, ...shownFile(message.file));
  const told = [label, `${message.file?.bytes ?? message.bytes} B`, ...message.broken].join(" · ");
  const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
  column.append(shown, element("div", message.broken.length ? "meta failure" : "meta", told));
  if (atEnd) chat.scrollTop = chat.scrollHeight;
}

/** A picture, or a link to a file of another kind. */
function shownFile(file) {
  if (!file) return [];
  if (file.kind === "image") {
    const box = element("div", "pictures");
    box.append(picture(file.url));
    return [box];
  }
  const link = element("a", "attached", `📄 ${file.name}`);
  Object.assign(link, { href: file.url, download: file.name });
  return [link];
}

/** Wait for the message that a frame announces with its mark; over the long connection for any number of them. */
async function awaitLate(key, answer) {
  const end = Date.now() + LATE_LIMIT_MS;
  let since = 0;
  while (Date.now() < end) {
    const { messages } = await post("/late", { bubble: key, since }).catch(() => ({ messages: [] }));
    for (const message of messages) message.card ? answer.showCard(key, message.card) : answer.showLate(message);
    since += messages.length;
    if (since > 0 && !overSocket()) return;
    await pause(LATE_MS);
  }
}

/** Show the messages that nobody asked for, of the chosen person, as they come. */
async function awaitPushes() {
  for (;;) {
    const user = chosen("user");
    const since = pushesShown[user] ?? 0;
    const { messages } = await post("/pushes", { user, since }).catch(() => ({ messages: [] }));
    pushesShown[user] = since + messages.length;
    messages.forEach(showPush);
    await pause(LATE_MS);
  }
}

function showPush(message) {
  const line = element("li", "line theirs");
  const column = element("div", "column");
  line.append(avatar(), column);
  append(line);
  showMessage(column, message, word("pushed"));
}

/** Push what was typed, or an example, to the chosen person as a program would. */
async function push() {
  const text = byId("question").value.trim() || word("reminder");
  byId("question").value = "";
  try {
    const { state, error } = await post("/push", { user: chosen("user"), text });
    if (state !== "sent") note(`${word("push")}: ${state} ${error}`, "note failure");
  } catch (error) {
    complain(error);
  }
}
