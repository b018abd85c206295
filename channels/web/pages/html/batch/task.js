// One task: its status, progress, counts and usage, and the actions that are possible now.

const ENDED = ["completed", "failed", "cancelled"];

const taskView = (() => {
  const ACTIONS = ["pause", "resume", "cancel", "purge", "retry"];
  let task = null;

  /** Show the current state of a task, or nothing for null. */
  function show(found) {
    task = found;
    byId("task").hidden = !task;
    if (!task) return;
    const state = stateOf(task);
    byId("task").dataset.status = state;
    put(byId("task-name"), task.name);
    showStatus(byId("task-status"), state);
    put(byId("facts"), factsWords());
    showBar(byId("bar"), task.progress);
    put(byId("counts"), countsWords());
    put(byId("figures"), usageWords(task.usage));
    showActions();
    resultTable.drawFilter(task.progress);
  }

  function showActions() {
    const ended = ENDED.includes(task.status);
    const { failed } = task.progress;
    byId("pause").hidden = ended || task.status === "paused";
    byId("resume").hidden = task.status !== "paused";
    byId("cancel").hidden = ended;
    byId("purge").hidden = !ended;
    byId("retry").hidden = !["completed", "failed"].includes(task.status) || !failed;
    put(byId("retry").lastElementChild, wordFor("retry", failed));
  }

  function factsWords() {
    const facts = [word("created", { time: timeOf(task.created_at) })];
    const ended = task.completed_at ?? task.cancelled_at;
    if (task.started_at && ended) {
      facts.push(word("lasted", { time: timeLeft((Date.parse(ended) - Date.parse(task.started_at)) / 1000) }));
    }
    if ((task.priority ?? "normal") !== "normal") facts.push(`${word("priority")} ${word(`priority_${task.priority}`)}`);
    const delivery = task.webhook?.state ?? "none";
    if (delivery !== "none") facts.push(word(`webhook_${delivery}`));
    return facts.join(" · ");
  }

  function countsWords() {
    const { progress, status } = task;
    const done = progress.completed + progress.failed;
    const parts = [progressWords(progress)];
    if (progress.running) parts.push(word("runs", { count: number(progress.running) }));
    if (progress.rate && status === "running") {
      parts.push(word("rate", { rate: Number(progress.rate.toPrecision(2)) }));
      parts.push(word("left", { time: timeLeft((progress.total - done) / progress.rate) }));
    }
    return parts.join(" · ");
  }

  /** Do what a button says; `done` gets the action and the server's reply. */
  async function act(to, button, { done, refused }) {
    const question = { cancel: "cancelTask", purge: "purge" }[to];
    if (question && !(await confirmed(question, { name: task.name }))) return;
    const { task_id: id } = task;
    button.disabled = true;
    say("task-error");
    try {
      await done(to, await api[to](id));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      say("task-error", () => refusalWords(error));
      refused(error);
    } finally {
      button.disabled = false;
      if (!byId("task").hidden) byId("task-name").focus();
    }
  }

  /** Save the results that the filter shows as a file. */
  async function download(format, button) {
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    say("task-error");
    try {
      const { status } = resultTable;
      const link = element("a");
      link.href = URL.createObjectURL(await api.file(task.task_id, format, status));
      const name = status ? `${task.name} (${word(`is_${status}`)})` : task.name;
      link.download = `${name.replace(/[\\/:*?"<>|]/g, "_")}.${format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      say("task-error", () => refusalWords(error));
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  }

  /** Connect the buttons; `done` and `refused` are called after an action. */
  function begin(on) {
    for (const to of ACTIONS) byId(to).addEventListener("click", ({ currentTarget }) => act(to, currentTarget, on));
    for (const button of byId("downloads").querySelectorAll("button")) {
      button.addEventListener("click", () => download(button.dataset.format, button));
    }
  }

  return { show, begin };
})();

/** Return a task's status, or "partly" for a completed one with failed questions. */
function stateOf({ status, progress }) {
  return status === "completed" && progress.failed ? "partly" : status;
}

function showStatus(tag, state) {
  tag.dataset.status = state;
  put(tag, word(`is_${state}`));
}

/** Show a progress bar whose parts are the completed, the failed and the running questions. */
function showBar(bar, progress) {
  const share = (count) => (progress.total ? (100 * count) / progress.total : 0);
  for (const one of bar.children) one.style.width = `${share(progress[one.dataset.part])}%`;
  if (bar.getAttribute("role") !== "progressbar") return;
  bar.setAttribute("aria-valuenow", String(progress.percentage));
  bar.setAttribute("aria-valuetext", progressWords(progress));
}

/** Return how many questions are done, failed and cancelled. */
function progressWords(progress) {
  const done = progress.completed + progress.failed;
  const parts = [word("done", { done: number(done), total: number(progress.total) })];
  if (progress.failed) parts.push(word("failures", { count: number(progress.failed) }));
  if (progress.cancelled) parts.push(word("cancellations", { count: number(progress.cancelled) }));
  return parts.join(" · ");
}
