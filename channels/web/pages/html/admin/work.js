// The view Batches and connections: tasks, pushes and open sockets of all replicas; an operator pauses, resumes, cancels
// and closes.

const work = (() => {
  /** The tasks, pushes and sockets that are shown, by what tells them apart. */
  const rows = { batches: new Map(), pushes: new Map(), sockets: new Map() };
  const ENDED = ["completed", "failed", "cancelled"];
  let found = null;
  let may = () => false;
  let refused = () => {};

  function button(key, act) {
    const made = labelled("button", "", key);
    made.type = "button";
    made.addEventListener("click", async () => {
      await attempt(async () => {
        await act();
        await look();
      }, refused);
    });
    return made;
  }

  const change = (id, act) => api.changeBatch(id, act);
  const cancel = async (id) => (await confirmed("cancelBatch")) && change(id, "cancel");
  const cancelPush = async (id) => (await confirmed("cancelPush")) && api.cancelPush(id);
  const close = async (id) => (await confirmed("closeSocket")) && api.closeSocket(id);

  // A row's key has the status: one that changes gets other buttons.
  const keyOfTask = (one) => `${one.task_id} ${one.status}`;
  const keyOfPush = (one) => `${one.id} ${one.state}`;
  const keyOfSocket = (one) => [one.client_id, one.connected_at, one.replica].join(" ");

  function actsOfTask(_, { task_id: id, status, owner }) {
    // An administrator's own batches have former answers.
    const compare = may("admin") && owner.startsWith("admin:") ? [button("compare", () => comparison.show(id))] : [];
    if (!may("operator") || ENDED.includes(status)) return compare;
    const act = status === "paused" ? "resume" : "pause";
    return [...compare, button(act, () => change(id, act)), button("cancel", () => cancel(id))];
  }

  const actsOfPush = (_, { id, state }) => (may("operator") && state === "queued" ? [button("cancel", () => cancelPush(id))] : []);

  const textsOfTask = (one) => [timeOf(one.created_at), word(`task_${one.status}`), one.owner, number(one.completed), number(one.failed), number(one.running), number(one.total), one.task_id.slice(0, 8)];
  function textsOfPush(one) {
    const state = word(`push_${one.state}`);
    const ended = one.ended_at ? timeOf(one.ended_at) : "–";
    return [timeOf(one.created_at), one.error ? word("pair", { name: state, value: one.error }) : state, one.bot, word(one.is_file ? "aFile" : "aText"), one.chat.slice(0, 8), ended, one.id];
  }

  const textsOfSocket = (one) => [timeOf(one.connected_at), one.channel, one.client_id, duration(one.idle_time), one.replica];

  const countOf = (shown, total) => (shown < total ? word("someStreams", { count: number(shown), total: number(total) }) : word("allStreams", { count: number(total) }));

  function draw() {
    if (!found) return;
    const { batches, pushes, sockets } = found;
    const tasks = batches?.tasks ?? [];
    byId("batches-place").hidden = tasks.length === 0;
    put(byId("batches-count"), batches ? countOf(tasks.length, batches.total) : word("noBatches"));
    keepRows(byId("batches"), rows.batches, tasks, keyOfTask, actsOfTask, textsOfTask);
    byId("pushes-place").hidden = pushes.pushes.length === 0;
    put(byId("pushes-count"), word("waitingPushes", { count: number(pushes.waiting) }));
    keepRows(byId("pushes"), rows.pushes, pushes.pushes, keyOfPush, actsOfPush, textsOfPush);
    byId("sockets-place").hidden = sockets.count === 0;
    put(byId("sockets-count"), countOf(sockets.count, sockets.count));
    const acts = (_, { client_id: id }) => (may("operator") ? [button("closeSocket", () => close(id))] : []);
    keepRows(byId("sockets"), rows.sockets, sockets.connections, keyOfSocket, acts, textsOfSocket);
  }

  async function look() {
    const batches = api.batches().catch((failure) => {
      // Without a database there are none.
      if (!(failure instanceof Refused) || failure.status !== 404) throw failure;
      return null;
    });
    const [tasks, pushes, sockets] = await Promise.all([batches, api.pushes(), api.sockets()]);
    found = { batches: tasks, pushes, sockets };
    draw();
  }

  return {
    draw,
    look,
    /** Take what tells whether the person has a role, and what shows a failed request. */
    begin(parts) {
      ({ may, refused } = parts);
      found = null;
      for (const shown of Object.values(rows)) {
        for (const row of shown.values()) row.remove();
        shown.clear();
      }
    },
  };
})();
