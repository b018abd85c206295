// The batch page: shows the form of a new task or the task of the URL's fragment, and polls it and the list of tasks.

/** Polling intervals in milliseconds: of a running task, of one opened less than FIRST_MS ago, and of the list. */
const LOOK_MS = 2_000;
const FIRST_LOOK_MS = 500;
const FIRST_MS = 10_000;
const LIST_MS = 10_000;
/** Maximum seconds until the next poll after failed ones. */
const LONGEST = 30;

let taskId = "";
let task = null;
let failures = 0;
let timer = 0;
let listedAt = -LIST_MS;
let openedAt = 0;
let isNew = false;
/** Number of the newest poll; replies of older ones are ignored. */
let round = 0;
/** Whether the wanted page of results was asked for and is not shown yet. */
let resultsWanted = false;
/** Whether the person was asked for a key since the last answer of the server. */
let keyAsked = false;

// ---- the connection -------------------------------------------------------------------------------------------

/** Show a failed request; return the seconds until the next try, 0 for no further try. */
function takeRefusal(refused) {
  if (!(refused instanceof Refused)) throw refused;
  if (refused.status === 401) {
    const wrong = preferences.key !== "";
    header.showState("auth");
    preferences.keep("");
    if (wrong || !keyAsked) askKey(wrong);
    keyAsked = true;
    return 0;
  }
  if (refused.reason === "batch_unavailable") {
    header.showState("closed");
    say("refused", () => refusalWords(refused));
    return 0;
  }
  if (!refused.passes) return 0;
  const seconds = Math.min(LONGEST, 2 ** failures);
  failures += 1;
  header.showState("waiting", seconds);
  return seconds;
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
    header.showState("open");
    keyAsked = false;
    const running = task && !ENDED.includes(task.status);
    later(running ? (performance.now() - openedAt < FIRST_MS ? FIRST_LOOK_MS : LOOK_MS) : LIST_MS);
  } catch (refused) {
    if (mine !== round) return;
    if (refused.status === 404) return forgetTask(refused);
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
  // A newer poll may have overtaken the reply, or the request has failed.
  if (resultsWanted) await showResults(mine);
  if (mine !== round) return;
  if (performance.now() - listedAt < LIST_MS) return;
  const found = await api.tasks(taskList.size);
  if (mine !== round) return;
  listedAt = performance.now();
  taskList.show(found);
  newTask.learn().catch(() => {});
}

async function showTask(found, mine) {
  const before = task;
  task = found;
  taskView.show(task);
  if (isNew) byId("task-name").focus();
  isNew = false;
  taskList.update(task);
  if (before && before.status !== task.status) announce();
  const changed = JSON.stringify(before?.progress) !== JSON.stringify(task.progress) || before?.status !== task.status;
  if (changed) await showResults(mine);
}

async function showResults(mine) {
  resultsWanted = true;
  const found = await api.results(taskId, resultTable.wanted());
  if (mine !== round) return;
  resultsWanted = false;
  resultTable.fill(found);
}

/** Show another page of results, and go on polling. */
async function turn() {
  const mine = ++round;
  try {
    await showResults(mine);
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
  }
  if (mine === round) look();
}

function announce() {
  byId("announcer").textContent = word("announced", { name: task.name, status: word(`is_${stateOf(task)}`) });
}

// ---- the shown part -------------------------------------------------------------------------------------------

/** Show the task named in the URL's fragment, so that it survives a reload, or else the form of a new one. */
function openTask() {
  const named = location.hash.slice(1);
  if (named !== taskId) {
    taskId = named;
    task = null;
    resultsWanted = false;
    openedAt = performance.now();
    taskView.show(null);
    resultTable.begin(taskId);
    say("refused");
    say("task-error");
  }
  byId("new").hidden = taskId !== "";
  byId("workspace").dataset.shows = taskId ? "task" : "new";
  taskList.mark(taskId);
  return look();
}

/** Leave a task that does not exist, or was removed. */
function forgetTask(refused = null) {
  history.replaceState(null, "", location.pathname + location.search);
  listedAt = -LIST_MS;
  openTask();
  say("refused", refused ? () => refusalWords(refused) : undefined);
  byId("new-title").focus();
}

function showNew() {
  location.hash = "";
  openTask();
  byId("questions").focus();
}

function taken({ task_id: id, formulas_without_value: unvalued }) {
  listedAt = -LIST_MS;
  isNew = true;
  location.hash = id;
  openTask();
  if (unvalued) say("refused", () => word("unvalued", { count: unvalued }));
}

/** Show a task after an action: `to` is the action, `found` the task, which "purge" has removed. */
async function changed(to, found) {
  if (to === "purge") return forgetTask();
  if (to === "retry") resultTable.begin(taskId);
  openedAt = performance.now();
  await showTask(found, ++round);
  return look();
}

// ---- the page -------------------------------------------------------------------------------------------------

function speakLanguage() {
  relabel();
  newTask.relabel();
  if (task) taskView.show(task);
  taskList.draw();
}

preferences.on("locale", () => {
  speakLanguage();
  if (task) turn();
});
preferences.on("key", (key) => key && look());
byId("fresh").addEventListener("click", showNew);
byId("back").addEventListener("click", showNew);
addEventListener("hashchange", openTask);
addEventListener("online", look);
document.addEventListener("visibilitychange", () => document.hidden || look());

newTask.begin({ taken, refused: takeRefusal });
taskView.begin({ done: changed, refused: (refused) => refused.status === 401 && takeRefusal(refused) });
taskList.begin({
  open: (id) => (location.hash = id),
  more: () => {
    listedAt = -LIST_MS;
    look();
  },
});
resultTable.onTurn = turn;
speakLanguage();
openTask();
