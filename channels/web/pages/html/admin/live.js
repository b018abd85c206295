// The view Live: the answers in progress on all replicas; an operator cancels one, an admin watches one grow.

const live = (() => {
  /** Milliseconds between two looks at a watched answer; each is a row of the audit. */
  const WATCH_MS = 3_000;
  /** The rows by their stream's id: a row that stays keeps the focus of its buttons. */
  const rows = new Map();
  let found = null;
  let may = () => false;
  let refused = () => {};
  let watched = "";
  let timer = 0;

  function button(key, act) {
    const made = labelled("button", "", key);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  }

  function newRow(id) {
    const row = element("tr");
    row.dataset.stream = id;
    for (let cell = 0; cell < 7; cell += 1) row.append(element(cell ? "td" : "th"));
    row.firstChild.scope = "row";
    const acts = row.lastChild;
    if (may("admin")) acts.append(button("watch", () => watch(id)));
    if (may("operator")) acts.append(button("cancel", () => cancel(id)));
    rows.set(id, row);
    return row;
  }

  /** Return the state in the page's language; the server's is English. */
  function stateOf({ state, silent_seconds: silent, takeovers }) {
    if (silent) return word("silent", { time: duration(silent) });
    if (state.startsWith("left")) return word("left");
    if (state.startsWith("waits")) return word("waits");
    return takeovers ? word("takenOver", { count: number(takeovers) }) : word("answered");
  }

  function draw() {
    if (!found) return;
    const { streams, total } = found;
    const ids = new Set(streams.map((one) => one.stream_id));
    for (const [id, row] of rows) {
      if (ids.has(id)) continue;
      row.remove();
      rows.delete(id);
    }
    for (const one of streams) {
      const row = rows.get(one.stream_id) ?? newRow(one.stream_id);
      const texts = [one.bot, one.person, duration(one.age_seconds), sizeOf(one.bytes), stateOf(one), one.owner || "–"];
      texts.forEach((text, place) => put(row.children[place], text));
      if (!row.isConnected) byId("streams").append(row);
    }
    byId("streams-place").hidden = streams.length === 0;
    put(byId("live-count"), streams.length < total ? word("someStreams", { count: number(streams.length), total: number(total) }) : word("allStreams", { count: number(total) }));
  }

  async function look() {
    found = await api.live();
    draw();
  }

  async function cancel(id) {
    if (!(await confirmed("cancelAnswer"))) return;
    try {
      await api.cancel(id);
      await look();
    } catch (failure) {
      refused(failure);
    }
  }

  async function lookAtText() {
    const id = watched;
    if (!id) return;
    try {
      const { question, text, status } = await api.text(id);
      if (id !== watched) return;
      put(byId("watch-question"), question);
      put(byId("watch-text"), text);
      put(byId("watch-state"), word(`status_${status}`));
      if (status === "processing") timer = setTimeout(lookAtText, WATCH_MS);
    } catch (failure) {
      byId("watch").close();
      refused(failure);
    }
  }

  function watch(id) {
    watched = id;
    byId("watch").showModal();
    lookAtText();
  }

  byId("watch").addEventListener("close", () => {
    watched = "";
    clearTimeout(timer);
    for (const place of ["watch-question", "watch-text", "watch-state"]) put(byId(place), "");
  });
  byId("watch-close").addEventListener("click", () => byId("watch").close());

  return {
    draw,
    look,
    /** Take what tells whether the person has a role, and what shows a failed request. */
    begin(parts) {
      ({ may, refused } = parts);
      found = null;
      for (const row of rows.values()) row.remove();
      rows.clear();
    },
  };
})();
