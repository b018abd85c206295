// Shows one task: progress bar, counts, and one page of results, updated while the task runs.

const ENDED = ["completed", "failed", "cancelled"];
/** Number of results on a page. */
const SIZE = 25;

const results = (() => {
  let rows = [];

  /** Show the current state of a task. */
  function show(task) {
    const { total, completed, failed, percentage } = task.progress;
    byId("task").hidden = false;
    byId("task").dataset.status = task.status;
    byId("task-name").textContent = task.name;
    showStatus(byId("task-status"), task.status);
    const bar = byId("bar");
    bar.setAttribute("aria-valuenow", percentage);
    bar.setAttribute("aria-valuetext", word("done", { done: completed + failed, total }));
    bar.firstElementChild.style.width = `${percentage}%`;
    byId("counts").textContent = counts(task);
    byId("task-error").hidden = !task.error_message;
    byId("task-error").textContent = task.error_message ?? "";
    const ended = ENDED.includes(task.status);
    byId("pause").hidden = ended || task.status === "paused";
    byId("resume").hidden = task.status !== "paused";
    byId("cancel").hidden = ended;
  }

  function counts({ status, progress }) {
    const done = progress.completed + progress.failed;
    const parts = [word("done", { done, total: progress.total })];
    if (progress.failed) parts.push(word("failures", { count: progress.failed }));
    if (progress.cancelled) parts.push(word("cancellations", { count: progress.cancelled }));
    if (progress.running) parts.push(word("runs", { count: progress.running }));
    if (progress.rate && status === "running") {
      parts.push(word("rate", { rate: Number(progress.rate.toPrecision(2)) }));
      parts.push(word("left", { time: timeLeft((progress.total - done) / progress.rate) }));
    }
    return parts.join(" · ");
  }

  function showStatus(tag, status) {
    tag.dataset.status = status;
    put(tag, word(`is_${status}`));
  }

  /** Show a page of results. Existing rows are updated in place, so that reading is not disturbed. */
  function fill(page, items, total) {
    rows.slice(items.length).forEach(({ row }) => row.remove());
    rows = rows.slice(0, items.length);
    items.forEach((item, place) => {
      rows[place] ??= makeRow();
      fillRow(rows[place], item);
    });
    const first = (page - 1) * SIZE + 1;
    byId("pager").hidden = total <= SIZE;
    byId("earlier").disabled = page === 1;
    byId("later").disabled = first + SIZE > total;
    byId("place").textContent = word("place", { first, last: first + items.length - 1, total });
  }

  function makeRow() {
    const row = element("tr");
    row.setAttribute("role", "row");
    const cells = ["number", "question", "status", "answer"].map(() => element("td"));
    for (const cell of cells) cell.setAttribute("role", "cell");
    const [number, question, status, answer] = cells;
    const tag = element("span", "tag");
    status.append(tag);
    row.append(...cells);
    byId("rows").append(row);
    return { row, number, question, tag, answer };
  }

  function fillRow({ number, question, tag, answer }, item) {
    const failed = item.status === "failed";
    put(number, String(item.index + 1));
    put(question, item.text);
    showStatus(tag, item.status);
    // A failed question may have a partial answer.
    put(answer, [item.content, failed ? item.error?.message : ""].filter(Boolean).join("\n\n"));
    answer.classList.toggle("failure", failed);
  }

  function clear() {
    rows = [];
    byId("rows").replaceChildren();
    byId("pager").hidden = true;
  }

  return { show, fill, clear, showStatus };
})();
