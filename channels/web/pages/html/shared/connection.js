// A WebSocket that reconnects with growing delays, sends the API key when it is required, and replaces a connection
// that has gone silent. Used by the chat and realtime pages.

const { createConnection } = (() => {
  /** Milliseconds of silence until a ping, from a ping until something must come, and for a connection to open. */
  const PING_MS = 25_000;
  const ANSWER_MS = 15_000;
  const BEGIN_MS = 15_000;
  /** The same while frames are expected: a frozen link is noticed within 10 seconds. */
  const EXPECTED_PING_MS = 3000;
  const EXPECTED_ANSWER_MS = 5000;
  /** Milliseconds between two looks at the connection. */
  const LOOK_MS = 500;
  const MOST_SILENCES = 4;
  /** Maximum seconds between two tries; a connection open for STEADY_MS milliseconds resets the delay. */
  const LONGEST = 30;
  const STEADY_MS = 10_000;
  /** Close code of a restarting replica: reconnect at once, to another one. */
  const RESTARTING = 1012;
  const NOT_AUTHENTICATED = 4401;
  /** Close codes without a reconnect: closed by us, replaced by a newer socket, closed by an administrator. */
  const FINAL = [1000, 4409, 4410];
  /** Return the WebSocket URL of a path, relative to the page, which may be served below a path prefix. */
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
    #showedKey = false;
    #tries = 0;
    #heard = 0;
    /** When the last ping was sent; 0 after any frame has come. */
    #asked = 0;
    /** Connections given up for silence one after the other while frames were expected. */
    #silences = 0;
    #timers = [];
    #retry = 0;

    constructor({ path, keepalive, expects, onState, onFrame, onOpen }) {
      this.path = typeof path === "function" ? path : () => path;
      this.keepalive = keepalive ?? (() => ({ type: "ping", timestamp: Date.now() }));
      this.expects = expects ?? (() => false);
      this.on = { state: onState ?? (() => {}), frame: onFrame ?? (() => {}), open: onOpen ?? (() => {}) };
      addEventListener("online", () => this.#hurry());
      addEventListener("offline", () => this.#socket && this.#drop());
      document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
      preferences.on("key", (key) => this.#keyChanged(key));
    }

    /** Connect, unless there is a connection or an attempt. */
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

    /** Connect now, also in a state that never reconnects by itself. */
    again() {
      this.connect();
    }

    /** Close with 1000; it stays closed until `connect`. */
    close() {
      clearTimeout(this.#retry);
      this.#leave(1000);
      this.#lost(1000);
    }

    /** Send a frame; return false when the connection is not open. */
    send(frame) {
      if (this.state !== "open") return false;
      this.#socket.send(JSON.stringify(frame));
      return true;
    }

    /** Another key was chosen, or the key forgotten: show the new one, by a new connection if there is one already. */
    #keyChanged(key) {
      if (["auth", "waiting"].includes(this.state)) {
        if (key && this.#socket) this.#showKey();
        else if (key) this.connect();
      } else if (this.state === "open" || (key && this.state === "connecting")) {
        this.#stopTimers();
        this.#leave(1000);
        this.connect();
      }
    }

    /** Ask for a key, unless the person has already closed the dialog since the last connection. */
    #askKey(wrong) {
      const first = this.state !== "auth";
      this.#tell("auth", { wrong });
      if (wrong || first) askKey(wrong);
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
      this.#asked = 0;
      const frame = read(text);
      if (!frame || frame.type === "pong" || frame.type === "heartbeat") return;
      if (frame.type === "auth_required") return this.#showKey();
      if (this.state !== "open") {
        // An error before the first other frame is a refusal; the close code that follows gives the reason.
        if (frame.type === "error") return;
        this.#opened();
      }
      this.on.frame(frame);
    }

    #showKey() {
      this.#stopTimers();
      if (!preferences.key) return this.#askKey(false);
      this.#showedKey = true;
      this.#later(BEGIN_MS, () => this.#drop());
      this.#socket.send(JSON.stringify({ type: "auth", token: preferences.key }));
    }

    #opened() {
      this.#stopTimers();
      this.#tell("open");
      this.#later(STEADY_MS, () => (this.#tries = 0));
      this.#asked = 0;
      this.#later(LOOK_MS, () => this.#look());
      this.on.open();
    }

    #ping() {
      this.#asked = performance.now();
      this.send(this.keepalive());
    }

    /** Ping a silent connection, and give up one that does not answer. */
    #look() {
      const expected = this.expects();
      if (!expected) this.#silences = 0;
      // A large frame on a slow link looks like silence: each try in a row has twice the time.
      const longest = expected ? EXPECTED_ANSWER_MS * 2 ** this.#silences : ANSWER_MS;
      const now = performance.now();
      this.#later(LOOK_MS, () => this.#look());
      if (this.#asked) {
        if (now - this.#asked < longest) return;
        if (expected) this.#silences = Math.min(this.#silences + 1, MOST_SILENCES);
        this.#drop();
      } else if (now - this.#heard >= (expected ? EXPECTED_PING_MS : PING_MS)) this.#ping();
    }

    /** The network is back or the page is visible again: reconnect at once, or check the open connection. */
    #hurry() {
      if (this.state === "waiting") return this.connect();
      if (this.state === "open" && !this.#asked) this.#ping();
    }

    #leave(code) {
      const socket = this.#socket;
      this.#socket = null;
      socket?.close(code);
    }

    /** Abandon a silent connection, whose close could take minutes. */
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

    /** The key was wrong or missing: ask the user for one. */
    #locked() {
      this.#askKey(this.#showedKey);
      if (this.#showedKey) preferences.keep("");
    }

    /** Return the seconds until the next try: exponential backoff with jitter. */
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
    /** States: connecting, open, waiting {seconds}, auth {wrong} (a key is required), closed {code} (no reconnect). */
    createConnection: (options) => new Connection(options),
  };
})();
