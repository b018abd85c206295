// The list of tasks, newest first.

const taskList = (() => {
  /** Tasks shown at first and added by each "more"; the maximum is that of the API. */
  const STEP = 20;
  const MOST = 100;
  let tasks = [];
  let total = 0;
  let size = STEP;
  let openId = "";
  let onOpen = () => {};

  /** Show the list. Existing lines are updated in place, because one of them may have the focus. */
  function draw() {
    byId("none").hidden = tasks.length > 0;
    byId("more").hidden = total <= size || size >= MOST;
    byId("most").hidden = total <= MOST || size < MOST;
    byId("most").textContent = word("most", { count: MOST, total: number(total) });
    const lines = new Map([...byId("tasks").children].map((line) => [line.dataset.task, line]));
    const wanted = tasks.map((one) => fillLine(lines.get(one.task_id) ?? makeLine(one), one));
    const same = wanted.length === lines.size && wanted.every((line, place) => byId("tasks").children[place] === line);
    if (!same) byId("tasks").replaceChildren(...wanted);
  }

  function makeLine({ task_id: id }) {
    const line = element("li");
    line.dataset.task = id;
    const open = Object.assign(element("button"), { type: "button" });
    const bar = element("span", "mini");
    bar.setAttribute("aria-hidden", "true");
    for (const name of ["completed", "failed", "running"]) {
      const one = element("span");
      one.dataset.part = name;
      bar.append(one);
    }
    open.append(element("span", "task-title"), element("span", "tag"), bar, element("span", "soft"));
    open.addEventListener("click", () => onOpen(id));
    line.append(open);
    return line;
  }

  function fillLine(line, one) {
    const [open] = line.children;
    const [name, tag, bar, words] = open.children;
    put(name, one.name);
    if (one.task_id === openId) open.setAttribute("aria-current", "true");
    else open.removeAttribute("aria-current");
    showStatus(tag, stateOf(one));
    showBar(bar, one.progress);
    put(words, `${progressWords(one.progress)} · ${timeOf(one.created_at, "short")}`);
    return line;
  }

  return {
    draw,
    get size() {
      return size;
    },
    show(found) {
      ({ tasks, total } = found);
      draw();
    },
    /** Show a newer state of one of the tasks. */
    update(task) {
      tasks = tasks.map((one) => (one.task_id === task.task_id ? task : one));
      draw();
    },
    /** Mark a task as the opened one, "" for none. */
    mark(id) {
      openId = id;
      draw();
    },
    /** Call `open` with the id of a chosen task, `more` when the list is to be longer. */
    begin({ open, more }) {
      onOpen = open;
      byId("more").addEventListener("click", () => {
        size = Math.min(MOST, size + STEP);
        more();
      });
    },
  };
})();
