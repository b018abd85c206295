// Small values: which conversation a tab shows (session storage), and settings of this browser (local storage).

/** Return functions that read and write JSON in a storage; what it does not take is kept in memory. */
function storeIn(name) {
  const PREFIX = "wechatlaibao.chat.";
  const volatile = new Map();

  function get(key, fallback) {
    try {
      const kept = volatile.get(key) ?? globalThis[name].getItem(PREFIX + key);
      return kept === null ? fallback : JSON.parse(kept);
    } catch {
      return fallback;
    }
  }

  /** Store a value; "" removes it. */
  function set(key, value) {
    const written = JSON.stringify(value);
    volatile.delete(key);
    try {
      if (value === "") globalThis[name].removeItem(PREFIX + key);
      else globalThis[name].setItem(PREFIX + key, written);
    } catch {
      volatile.set(key, written);
    }
  }

  return { get, set };
}

const tabStore = storeIn("sessionStorage");
const settings = storeIn("localStorage");
