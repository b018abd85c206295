// Session storage of this tab: client id, language, settings and turns. Each turn has a key of its own, so that a
// growing answer rewrites only itself.

const store = (() => {
  const PREFIX = "wechatlaibao.chat.";
  /** Maximum number of stored turns. */
  const MOST = 200;
  const volatile = new Map();

  function get(name, fallback) {
    try {
      const kept = sessionStorage.getItem(PREFIX + name) ?? volatile.get(name);
      return kept === undefined ? fallback : JSON.parse(kept);
    } catch {
      return fallback;
    }
  }

  /** Store a value; return false when the storage is full or not allowed (it is then kept in memory). */
  function set(name, value) {
    const written = JSON.stringify(value);
    try {
      sessionStorage.setItem(PREFIX + name, written);
      return true;
    } catch {
      volatile.set(name, written);
      return false;
    }
  }

  function remove(name) {
    volatile.delete(name);
    try {
      sessionStorage.removeItem(PREFIX + name);
    } catch {
      // Without storage there is nothing to remove.
    }
  }

  /** Store a turn and remove the oldest ones if there is no room; return false if there was none. */
  function keepTurn(turn) {
    const ids = get("turns", []);
    if (!ids.includes(turn.id)) ids.push(turn.id);
    while (ids.length > MOST) remove(`turn.${ids.shift()}`);
    let fits = set(`turn.${turn.id}`, turn);
    const whole = fits;
    while (!fits && ids.length > 1) {
      remove(`turn.${ids.shift()}`);
      fits = set(`turn.${turn.id}`, turn);
    }
    set("turns", ids);
    return whole;
  }

  /** Return the turns, oldest first. */
  function turns() {
    return get("turns", []).map((id) => get(`turn.${id}`, null)).filter(Boolean);
  }

  function clearTurns() {
    for (const id of get("turns", [])) remove(`turn.${id}`);
    remove("turns");
  }

  return { get, set, keepTurn, turns, clearTurns };
})();
