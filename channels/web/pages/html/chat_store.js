// What survives a reload: this tab's client id, language, choices and turns, each turn under a name of its own, so that
// a growing answer writes itself and nothing else.

const store = (() => {
  const PREFIX = "wechatlaibao.chat.";
  /** Turns that are kept. */
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

  /** Keep a value; false when the browser has no room for it. */
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
      // Nothing was kept.
    }
  }

  /** Keep a turn, at the cost of the oldest; false when some had to go. */
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

/** Return an id that nobody else has; randomUUID is there on safe origins only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
