// The view Live: the answers in progress on all replicas; an operator cancels one, an admin watches one grow.

const live = (() => {
  /** Milliseconds between two looks at a watched answer. */
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

  function actsOf(id) {
    return [...(may("admin") ? [button("watch", () => watch(id))] : []), ...(may("operator") ? [button("cancel", () => cancel(id))] : [])];
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
    const textsOf = (one) => [one.bot, one.person, duration(one.age_seconds), sizeOf(one.bytes), stateOf(one), one.owner || "–"];
    keepRows(byId("streams"), rows, streams, (one) => one.stream_id, actsOf, textsOf);
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
