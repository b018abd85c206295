// What this tab keeps over a reload: the session, the transcript and the turns, in its session storage. Each turn has a
// key of its own, so that a growing answer rewrites only itself.

const store = (() => {
  const PREFIX = "wechatlaibao.realtime.";
  /** Maximum number of stored turns. */
  const MOST = 200;

  /** Return a stored value; a browser may refuse access to the storage. */
  function get(name, fallback) {
    try {
      return JSON.parse(sessionStorage.getItem(PREFIX + name)) ?? fallback;
    } catch {
      return fallback;
    }
  }

  /** Store a value; return false when there is no room for it. */
  function set(name, value) {
    try {
      sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }

  function remove(name) {
    try {
      sessionStorage.removeItem(PREFIX + name);
    } catch {
      // Without storage there is nothing to remove.
    }
  }

  /** Store a turn; the oldest ones are removed beyond MOST, and when there is no room. */
  function keepTurn(turn) {
    const ids = get("turns", []);
    if (!ids.includes(turn.id)) ids.push(turn.id);
    while (ids.length > MOST) remove(`turn.${ids.shift()}`);
    while (!set(`turn.${turn.id}`, turn) && ids.length > 1) remove(`turn.${ids.shift()}`);
    set("turns", ids);
  }

  function dropTurn(id) {
    remove(`turn.${id}`);
    set("turns", get("turns", []).filter((other) => other !== id));
  }

  /** Return the turns, oldest first. */
  function turns() {
    return get("turns", []).map((id) => get(`turn.${id}`, null)).filter(Boolean);
  }

  return { get, set, keepTurn, dropTurn, turns };
})();

/** Return a function that calls `act` a moment after the first of several calls; leaving the page calls it at once. */
function soon(act) {
  let timer = 0;
  const run = () => {
    clearTimeout(timer);
    timer = 0;
    act();
  };
  addEventListener("pagehide", () => timer && run());
  return () => (timer ||= setTimeout(run, 250));
}
