// One WebSocket that comes back by itself: with growing waits, with the key where one is wanted, and never on a link
// that has fallen silent. Both pages use it.

const { createConnection } = (() => {
  /** Milliseconds: between two signs of life, until one must be answered, for a connection to begin. */
  const PING_MS = 25_000;
  const ANSWER_MS = 15_000;
  const BEGIN_MS = 15_000;
  /** Seconds of the longest wait before another try; a connection this many milliseconds old was a good one. */
  const LONGEST = 30;
  const STEADY_MS = 10_000;
  /** The server restarts: another of its replicas answers at once. */
  const RESTARTING = 1012;
  const NOT_AUTHENTICATED = 4401;
  /** It will not do to come back: we said goodbye, a newer socket took our place, an administrator closed it. */
  const FINAL = [1000, 4409, 4410];
  const KEY = "wechatlaibao.key";

  /** Return the key of this tab, "" for none; a browser may refuse to keep one. */
  function keptKey() {
    try {
      return sessionStorage.getItem(KEY) ?? "";
    } catch {
      return "";
    }
  }

  function keepKey(key) {
    try {
      if (key) sessionStorage.setItem(KEY, key);
      else sessionStorage.removeItem(KEY);
    } catch {
      // It lasts as long as the page.
    }
  }

  /** Return where a path of this server is, also when the page is served below a folder. */
  function addressOf(path) {
    const address = new URL(path.replace(/^\/*/, "./"), location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    return address.href;
  }

  function read(text) {
    try {
      return JSON.parse(text);
    } catch {
      return null;
    }
  }

  class Connection {
    state = "";
    #socket = null;
    #key = keptKey();
    #showedKey = false;
    #tries = 0;
    #heard = 0;
    #timers = [];
    #retry = 0;

    constructor({ path, keepalive, onState, onFrame, onOpen }) {
      this.path = typeof path === "function" ? path : () => path;
      this.keepalive = keepalive ?? (() => ({ type: "ping", timestamp: Date.now() }));
      this.on = { state: onState ?? (() => {}), frame: onFrame ?? (() => {}), open: onOpen ?? (() => {}) };
      addEventListener("online", () => this.#hurry());
      document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
    }

    /** Begin, unless it has begun. */
    connect() {
      clearTimeout(this.#retry);
      if (this.#socket) return;
      this.#showedKey = false;
      this.#tell("connecting");
      const socket = new WebSocket(addressOf(this.path()));
      this.#socket = socket;
      socket.onmessage = ({ data }) => socket === this.#socket && this.#received(data);
      socket.onclose = ({ code }) => socket === this.#socket && this.#lost(code);
      this.#later(BEGIN_MS, () => this.#drop());
    }

    /** Try now what would be tried later, and what would not be tried again. */
    again() {
      this.connect();
    }

    /** Say goodbye; it stays closed until `connect`. */
    close() {
      clearTimeout(this.#retry);
      this.#leave(1000);
      this.#lost(1000);
    }

    /** Send a frame; false when there is nobody to take it now. */
    send(frame) {
      if (this.state !== "open") return false;
      this.#socket.send(JSON.stringify(frame));
      return true;
    }

    /** Show this key, now and with every connection to come. */
    authenticate(key) {
      this.#key = key;
      keepKey(key);
      if (this.#socket) this.#showKey();
      else this.connect();
    }

    #tell(state, detail = {}) {
      this.state = state;
      this.on.state(state, detail);
    }

    #later(ms, act) {
      this.#timers.push(setTimeout(act, ms));
    }

    #received(text) {
      this.#heard = performance.now();
      const frame = read(text);
      if (!frame || frame.type === "pong" || frame.type === "heartbeat") return;
      if (frame.type === "auth_required") return this.#showKey();
      if (this.state !== "open") {
        // What is said before the welcome is a refusal, and the close that follows it says why.
        if (frame.type === "error") return;
        this.#opened();
      }
      this.on.frame(frame);
    }

    #showKey() {
      this.#stopTimers();
      if (!this.#key) return this.#tell("auth", { wrong: false });
      this.#showedKey = true;
      this.#later(BEGIN_MS, () => this.#drop());
      this.#socket.send(JSON.stringify({ type: "auth", token: this.#key }));
    }

    #opened() {
      this.#stopTimers();
      this.#tell("open");
      this.#later(STEADY_MS, () => (this.#tries = 0));
      this.#later(PING_MS, () => this.#ping());
      this.on.open();
    }

    #ping() {
      const asked = performance.now();
      this.send(this.keepalive());
      this.#later(ANSWER_MS, () => this.#heard < asked && this.#drop());
      this.#later(PING_MS, () => this.#ping());
    }

    /** The network or the person is back: do not wait, and find out whether the link still lives. */
    #hurry() {
      if (this.state === "waiting") return this.connect();
      if (this.state !== "open") return;
      const asked = performance.now();
      this.send(this.keepalive());
      this.#later(ANSWER_MS, () => this.#heard < asked && this.#drop());
    }

    #leave(code) {
      const socket = this.#socket;
      this.#socket = null;
      socket?.close(code);
    }

    /** Give up a link that is silent: its own close may take minutes. */
    #drop() {
      this.#leave(4000);
      this.#lost(1006);
    }

    #lost(code) {
      const wasOpen = this.state === "open";
      this.#socket = null;
      this.#stopTimers();
      if (code === NOT_AUTHENTICATED) return this.#locked();
      if (FINAL.includes(code)) return this.#tell("closed", { code });
      const seconds = code === RESTARTING && wasOpen ? 0 : this.#wait();
      this.#retry = setTimeout(() => this.connect(), seconds * 1000);
      this.#tell("waiting", { seconds });
    }

    /** The key was wrong, or none came in time: it is for the person to give one. */
    #locked() {
      if (this.#showedKey) {
        this.#key = "";
        keepKey("");
      }
      this.#tell("auth", { wrong: this.#showedKey });
    }

    /** Return the seconds until the next try: twice as many each time, and not the same for everybody. */
    #wait() {
      const longest = Math.min(LONGEST, 2 ** this.#tries);
      this.#tries += 1;
      return longest * (0.5 + Math.random() / 2);
    }

    #stopTimers() {
      for (const timer of this.#timers.splice(0)) clearTimeout(timer);
    }
  }

  return {
    /** States: connecting, open, waiting {seconds}, auth {wrong}: a key is wanted, closed {code}: it stays so. */
    createConnection: (options) => new Connection(options),
  };
})();
