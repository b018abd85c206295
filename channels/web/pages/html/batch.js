// The batch page: handles input, and polls the shown task and the list of tasks.

/** Polling intervals in milliseconds: of a running task, of one opened less than FIRST_MS ago, and of the list. */
const LOOK_MS = 2_000;
const FIRST_LOOK_MS = 500;
const FIRST_MS = 10_000;
const LIST_MS = 10_000;
/** Maximum seconds until the next poll after failed ones. */
const LONGEST = 30;
/** Number of tasks in the list. */
const LISTED = 20;
const FILES = /\.(txt|csv|tsv|xlsx)$/i;

let taskId = "";
let task = null;
let page = 1;
let tasks = [];
let file = null;
let submission = null;
let failures = 0;
let timer = 0;
let listedAt = 0;
let openedAt = 0;
let isNew = false;
let round = 0;
let shown = { state: "connecting", seconds: 0 };

// ---- the connection -------------------------------------------------------------------------------------------

function showState(state, seconds = 0) {
  shown = { state, seconds };
  const words = word(state, { seconds });
  byId("state").dataset.state = state;
  if (byId("state").textContent !== words) byId("state").textContent = words;
}

function showKey(wanted, wrong = false) {
  byId("key").hidden = !wanted;
  byId("key-wrong").hidden = !wrong;
  byId("key-wrong").textContent = wrong ? word("keyWrong") : "";
  if (wanted) byId("key-input").focus();
}

/** Show a failed request; return the seconds until the next try, 0 for no further try. */
function takeRefusal(refused) {
  if (!(refused instanceof Refused)) throw refused;
  if (refused.status === 401) {
    showState("auth");
    showKey(true, api.hasKey);
    api.keep("");
    return 0;
  }
  if (refused.reason === "batch_unavailable") {
    showState("closed");
    say("refused", refused.message);
    return 0;
  }
  if (!refused.passes) return 0;
  const seconds = Math.min(LONGEST, 2 ** failures);
  failures += 1;
  showState("waiting", seconds);
  return seconds;
}

/** Show a sentence in the element `id`; "" hides it. */
function say(id, words) {
  byId(id).hidden = !words;
  byId(id).textContent = words;
}

// ---- polling --------------------------------------------------------------------------------------------------

/** Poll now, and schedule the next poll. */
async function look() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    await lookOnce(mine);
    if (mine !== round) return;
    failures = 0;
    showState("open");
    showKey(false);
    const running = task && !ENDED.includes(task.status);
    later(running ? (performance.now() - openedAt < FIRST_MS ? FIRST_LOOK_MS : LOOK_MS) : LIST_MS);
  } catch (refused) {
    if (mine !== round) return;
    if (refused.status === 404) return forgetTask(refused.message);
    const seconds = takeRefusal(refused);
    if (seconds) later(seconds * 1000);
  }
}

function later(ms) {
  timer = setTimeout(() => (document.hidden ? later(ms) : look()), ms);
}

async function lookOnce(mine) {
  const wanted = taskId;
  if (wanted && !(task?.task_id === wanted && ENDED.includes(task.status))) {
    const found = await api.task(wanted);
    if (mine !== round) return;
    await showTask(found, mine);
  }
  if (performance.now() - listedAt < LIST_MS && tasks.length) return;
  const { tasks: found } = await api.tasks(LISTED);
  if (mine !== round) return;
  listedAt = performance.now();
  tasks = found;
  showTasks();
}

async function showTask(found, mine) {
  const before = task;
  task = found;
  results.show(task);
  if (isNew) byId("task-name").focus();
  isNew = false;
  tasks = tasks.map((one) => (one.task_id === task.task_id ? task : one));
  showTasks();
  if (before && before.status !== task.status) announce();
  const changed = JSON.stringify(before?.progress) !== JSON.stringify(task.progress) || before?.status !== task.status;
  if (changed) await showResults(mine);
}

async function showResults(mine) {
  const found = await api.results(taskId, page, SIZE);
  if (mine === round) results.fill(page, found.results, found.total);
}

function announce() {
  byId("announcer").textContent = word("told", { name: task.name, status: word(`is_${task.status}`) });
}

// ---- the tasks ------------------------------------------------------------------------------------------------

/** Show the list. Existing lines are updated in place, because one of them may have the focus. */
function showTasks() {
  byId("none").hidden = tasks.length > 0;
  const lines = new Map([...byId("tasks").children].map((line) => [line.dataset.task, line]));
  const wanted = tasks.map((one) => fillLine(lines.get(one.task_id) ?? makeLine(one), one));
  const same = wanted.length === lines.size && wanted.every((line, place) => byId("tasks").children[place] === line);
  if (!same) byId("tasks").replaceChildren(...wanted);
}

function makeLine(one) {
  const line = element("li");
  line.dataset.task = one.task_id;
  const open = element("button");
  open.type = "button";
  open.addEventListener("click", () => (location.hash = one.task_id));
  line.append(open, element("span", "tag"), element("span", "soft"));
  return line;
}

function fillLine(line, one) {
  const [open, tag, words] = line.children;
  const { completed, failed, total } = one.progress;
  const when = new Date(one.created_at).toLocaleString(language(), { dateStyle: "medium", timeStyle: "short" });
  put(open, one.name);
  open.setAttribute("aria-current", String(one.task_id === taskId));
  results.showStatus(tag, one.status);
  put(words, `${word("done", { done: completed + failed, total })} · ${when}`);
  return line;
}

/** Show the task named in the URL's fragment, so that it survives a reload. */
function openTask() {
  const named = location.hash.slice(1);
  if (named === taskId) return look();
  taskId = named;
  task = null;
  page = 1;
  openedAt = performance.now();
  byId("task").hidden = true;
  results.clear();
  say("refused", "");
  showTasks();
  return look();
}

function forgetTask(words) {
  history.replaceState(null, "", location.pathname + location.search);
  taskId = "";
  task = null;
  byId("task").hidden = true;
  say("refused", words);
  look();
}

async function change(to, button) {
  if (to === "cancel" && !confirm(word("cancelConfirm"))) return;
  button.disabled = true;
  try {
    await showTask(await api.change(taskId, to), ++round);
    say("task-error", "");
  } catch (refused) {
    say("task-error", refused.message || word("broken"));
    if (refused.status === 401) takeRefusal(refused);
  } finally {
    button.disabled = false;
    byId("task-name").focus();
    look();
  }
}

async function download(format, button) {
  const words = button.textContent;
  button.disabled = true;
  button.textContent = word("downloading");
  try {
    const link = element("a");
    link.href = URL.createObjectURL(await api.file(taskId, format));
    link.download = `${task.name.replace(/[\\/:*?"<>|]/g, "_")}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say("task-error", task.error_message ?? "");
  } catch (refused) {
    say("task-error", refused.message || word("broken"));
  } finally {
    button.disabled = false;
    button.textContent = words;
  }
}

function turnTo(number) {
  page = number;
  const mine = ++round;
  showResults(mine)
    .then(() => byId("task-name").scrollIntoView({ block: "nearest" }))
    .catch(() => {})
    .finally(look);
}

// ---- a new task -----------------------------------------------------------------------------------------------

const questions = byId("questions");

const typed = () => questions.value.split(/\r\n|\r|\n/).map((line) => line.trim()).filter(Boolean);

/** Show what would be submitted. Every change makes it a new submission with a new id. */
function showNew() {
  submission = null;
  const count = typed().length;
  questions.disabled = file !== null;
  byId("count").textContent = file || !count ? "" : word("counted", { count });
  byId("chosen").textContent = file ? file.name : word("chooseHint");
  byId("forget").hidden = !file;
  byId("start").disabled = !file && count === 0;
}

function take(chosen) {
  if (!chosen) return;
  const known = FILES.test(chosen.name);
  say("refused", known ? "" : word("noFile"));
  if (known) file = chosen;
  showNew();
}

function body() {
  const name = byId("name").value.trim();
  if (!file) return { name: name || untitled(), texts: typed() };
  const form = new FormData();
  if (name) form.append("name", name);
  form.append("file", file, file.name);
  return form;
}

function untitled() {
  return word("untitled", { time: new Date().toLocaleString(language()) });
}

async function submit() {
  const start = byId("start");
  // Kept until it is accepted: repeating it after a failure finds the same task.
  submission ??= { body: body(), id: newId() };
  start.disabled = true;
  start.textContent = word("starting");
  say("refused", "");
  try {
    const taken = await api.submit(submission.body, submission.id);
    questions.value = byId("name").value = byId("file").value = "";
    file = null;
    showNew();
    listedAt = 0;
    isNew = true;
    location.hash = taken.task_id;
    if (taken.formulas_without_value) say("refused", word("unvalued", { count: taken.formulas_without_value }));
  } catch (refused) {
    if (refused.status === 401) takeRefusal(refused);
    else say("refused", refused.message || word(refused.status === 413 ? "tooLarge" : "broken"));
    start.disabled = false;
  } finally {
    start.textContent = word("start");
  }
}

// ---- the page -------------------------------------------------------------------------------------------------

function speakLanguage(chosen) {
  locale = chosen;
  relabel();
  const other = byId("language");
  other.textContent = locale === "zh" ? "English" : "中文";
  other.lang = locale === "zh" ? "en" : "zh-CN";
  questions.placeholder = word("questionsHint");
  byId("name").placeholder = word("name");
  const kept = submission;
  showNew();
  submission = kept;
  showState(shown.state, shown.seconds);
  if (task) results.show(task);
  showTasks();
}

byId("language").addEventListener("click", () => {
  speakLanguage(locale === "zh" ? "en" : "zh");
  if (task) showResults(++round).catch(() => {}).finally(look);
});
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  api.keep(byId("key-input").value.trim());
  byId("key-input").value = "";
  look();
});
byId("new").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
questions.addEventListener("input", showNew);
byId("name").addEventListener("input", showNew);
byId("file").addEventListener("change", ({ target }) => take(target.files[0]));
byId("forget").addEventListener("click", () => {
  file = null;
  byId("file").value = "";
  showNew();
  questions.focus();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  byId("new").addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
for (const to of ["pause", "resume", "cancel"]) byId(to).addEventListener("click", ({ target }) => change(to, target));
for (const format of ["csv", "jsonl"]) byId(format).addEventListener("click", ({ target }) => download(format, target));
byId("earlier").addEventListener("click", () => turnTo(page - 1));
byId("later").addEventListener("click", () => turnTo(page + 1));
addEventListener("hashchange", openTask);
addEventListener("online", look);
document.addEventListener("visibilitychange", () => document.hidden || look());

speakLanguage(document.documentElement.dataset.locale === "en" ? "en" : "zh");
openTask();
