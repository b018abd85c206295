// The dialog of a comparison: questions that a batch asked again, with the former answer beside the new one.

const comparison = (() => {
  /** Milliseconds between two looks while the batch runs. */
  const WATCH_MS = 3_000;
  const OUTCOMES = ["changed", "failed", "same", "waiting"];
  const ENDED = ["completed", "failed", "cancelled"];
  let refused = () => {};
  let task = "";
  let leftOut = 0;
  /** The last counts, the rows that are shown, and the `cursor` of those after them. */
  let found = null;
  let rows = [];
  let next = null;
  let timer = 0;
  /** Number of the newest reading of rows; what an older one finds is ignored. */
  let reading = 0;

  function rowOf(one) {
    const row = element("tr");
    const outcome = word(`outcome_${one.outcome}`);
    const texts = [one.error ? word("pair", { name: outcome, value: one.error }) : outcome, one.question, one.former_answer, one.new_answer];
    row.append(...texts.map((text, place) => element(place ? "td" : "th", place ? "words" : "", text || "–")));
    row.firstChild.scope = "row";
    return row;
  }

  function draw() {
    const named = OUTCOMES.filter((name) => name !== "waiting" || found?.counts.waiting);
    const counts = found ? named.map((name) => word("pair", { name: word(`outcome_${name}`), value: number(found.counts[name]) })) : [];
    put(byId("comparison-state"), found ? [word(`task_${found.status}`), ...counts].join(" · ") : "");
    put(byId("comparison-left-out"), leftOut ? word("leftOut", { count: number(leftOut) }) : "");
    const isOver = found !== null && ENDED.includes(found.status);
    for (const place of ["comparison-outcome-field", "comparison-save"]) byId(place).hidden = !isOver;
    byId("comparison-place").hidden = rows.length === 0;
    byId("comparison-more").hidden = next === null;
    byId("comparison-rows").replaceChildren(...rows.map(rowOf));
  }

  async function attempted(work) {
    try {
      await work();
    } catch (failure) {
      byId("comparison").close();
      refused(failure);
    }
  }

  /** Read a page of rows with their words: the first one, or the one after those that are shown. */
  async function read(cursor) {
    const mine = ++reading;
    const page = await api.comparison(task, { with_words: "true", outcome: byId("comparison-outcome").value, cursor });
    if (mine !== reading) return;
    rows = [...(cursor ? rows : []), ...page.rows];
    next = page.next;
    draw();
  }

  /** Look at the counts until the batch has ended, then at the words. */
  async function look() {
    const id = task;
    const seen = await api.comparison(id, {});
    if (id !== task) return;
    found = seen;
    draw();
    if (ENDED.includes(seen.status)) await read("");
    else timer = setTimeout(() => attempted(look), WATCH_MS);
  }

  function forget() {
    clearTimeout(timer);
    reading += 1;
    [task, leftOut, found, rows, next] = ["", 0, null, [], null];
    draw();
  }

  byId("comparison-outcome").addEventListener("change", () => attempted(() => read("")));
  byId("comparison-more").addEventListener("click", () => attempted(() => read(next)));
  byId("comparison-save").addEventListener("click", () => attempted(() => api.saveComparison(task, { outcome: byId("comparison-outcome").value })));
  byId("comparison-close").addEventListener("click", () => byId("comparison").close());
  byId("comparison").addEventListener("close", forget);

  return {
    draw,
    /** Show how a batch's answers compare; `count` questions were left out of it. */
    show(id, count = 0) {
      [task, leftOut] = [id, count];
      byId("comparison-outcome").value = "";
      draw();
      byId("comparison").showModal();
      attempted(look);
    },
    /** Take what shows a failed request. */
    begin(parts) {
      ({ refused } = parts);
    },
  };
})();
