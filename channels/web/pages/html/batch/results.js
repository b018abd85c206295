// One page of a task's results, with a filter by status; rows are updated in place while the task runs.

const resultTable = (() => {
  const FILTERS = ["", "completed", "failed"];
  let rows = [];
  let taskId = "";
  let status = "";
  let page = 1;
  let total = 0;
  let onTurn = () => {};

  const size = () => Number(byId("size").value);
  const last = () => Math.max(1, Math.ceil(total / size()));

  /** Begin with the first page of a task's results. */
  function begin(id) {
    taskId = id;
    status = "";
    page = 1;
    for (const row of rows.splice(0)) row.remove();
    byId("pager").hidden = byId("no-rows").hidden = true;
  }

  /** What the table shows, in the words of the API. */
  const wanted = () => ({ page, size: size(), status });

  /** Show a page of results, of `found.total` that pass the filter. */
  function fill(found) {
    total = found.total;
    if (page > last()) return turnTo(last());
    const items = found.results;
    for (const row of rows.splice(items.length)) row.remove();
    items.forEach((item, place) => {
      rows[place] ??= makeRow();
      rows[place].show(item);
    });
    drawPager(items.length);
    return undefined;
  }

  function makeRow() {
    const row = new Row((index) => api.result(taskId, index));
    byId("rows").append(row.line, row.details);
    return row;
  }

  function drawPager(shown) {
    const first = (page - 1) * size() + 1;
    byId("pager").hidden = total <= 25;
    byId("earlier").disabled = page === 1;
    byId("later").disabled = page >= last();
    if (document.activeElement !== byId("page")) byId("page").value = String(page);
    byId("page").max = String(last());
    put(byId("pages"), word("ofPages", { count: number(last()) }));
    put(byId("place"), word("place", { first, last: first + shown - 1, total: number(total) }));
    byId("no-rows").hidden = total > 0;
    put(byId("no-rows"), word("noRows"));
  }

  /** Show the filter with the number of results by status. */
  function drawFilter({ total: all, completed, failed }) {
    const counts = [all, completed, failed];
    FILTERS.forEach((name, place) => {
      const button = byId("filter").children[place] ?? makeFilter(name);
      put(button, word(`filter_${name || "all"}`, { count: number(counts[place]) }));
      button.setAttribute("aria-pressed", String(name === status));
      button.disabled = name !== status && counts[place] === 0;
    });
  }

  function makeFilter(name) {
    const button = Object.assign(element("button"), { type: "button" });
    button.addEventListener("click", () => {
      for (const other of byId("filter").children) other.setAttribute("aria-pressed", String(other === button));
      status = name;
      turnTo(1);
    });
    byId("filter").append(button);
    return button;
  }

  function turnTo(wantedPage) {
    page = Math.min(Math.max(1, Math.trunc(wantedPage) || 1), last());
    return onTurn();
  }

  /** Arrow keys move between rows and turn pages; they do nothing in a field and in an opened answer. */
  function takeKey(event) {
    const turns = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const moves = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const from = rows.findIndex(({ open }) => open === event.target);
    if (from < 0 || event.altKey || event.ctrlKey || event.metaKey || !(turns || moves)) return;
    event.preventDefault();
    if (moves) rows[from + moves]?.open.focus();
    else if (page + turns >= 1 && page + turns <= last()) Promise.resolve(turnTo(page + turns)).then(() => rows[0]?.open.focus());
  }

  byId("rows").addEventListener("keydown", takeKey);
  byId("earlier").addEventListener("click", () => turnTo(page - 1));
  byId("later").addEventListener("click", () => turnTo(page + 1));
  byId("page").addEventListener("change", ({ target }) => turnTo(Number(target.value)));
  byId("size").addEventListener("change", () => turnTo(1));

  return {
    begin,
    wanted,
    fill,
    drawFilter,
    get status() {
      return status;
    },
    /** Call `load` when another page is to be shown. */
    set onTurn(load) {
      onTurn = load;
    },
  };
})();
