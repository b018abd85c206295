// The transcript on the realtime page: the interim words, the finished sentences, and their state.

/** Maximum lines on the page, sentences waiting for a connection, and characters of a sentence. */
const LINES = 200;
const UNSENT = 20;
const CHARACTERS = 10_000;
/** Minimum milliseconds between two interim transcripts. */
const INTERIM_MS = 200;

/** The states in which a sentence can be sent again. */
const AGAIN = ["unsure", "paused"];

/**
 * The finished sentences, one line each. States: waiting (for a connection), sent, then "" or queued (a question),
 * paused (not taken), unsure (the connection broke), stopped.
 */
class Transcript {
  /** The last finished sentence, null before the first. */
  last = null;
  /** Whether the server knows the last sentence: it forgets it with the connection and with a stop. */
  known = false;
  #lines = [];
  #unsent = [];
  #awaited = new Map();
  #taken = [];
  #queued = new Map();
  #acked = null;
  #stamp = 0;
  #interim = "";
  #interimAt = 0;
  #keep = soon(() => store.set("lines", this.#lines.map(({ text, state, stream }) => ({ text, state, stream }))));

  /** `send` sends a frame and returns whether it was sent; `changed` is called after each sentence. */
  constructor(send, changed) {
    this.send = send;
    this.changed = changed;
  }

  /** Show the lines of before a reload. Sentences that were sent but not settled may not have been delivered. */
  restore() {
    for (const { text, state, stream } of store.get("lines", [])) {
      const said = this.#add(text);
      said.stream = stream;
      if (state === "waiting") this.#unsent.push(said);
      if (state === "queued") this.#queued.set(stream, said);
      this.#mark(said, state === "sent" ? "unsure" : state);
    }
  }

  /** Show the interim words, and send them at most every INTERIM_MS. */
  interim(text) {
    follow(byId("words"), () => (byId("interim").textContent = text));
    const early = Date.now() - this.#interimAt < INTERIM_MS;
    if (!text || text.length > CHARACTERS || text === this.#interim || early) return;
    this.#interim = text;
    this.#interimAt = Date.now();
    this.send({ type: "asr_chunk", text, is_final: false });
  }

  /** Show a finished sentence and send it, now or after the next connect. */
  final(text) {
    this.#deliver(this.#add(text));
  }

  /** Send a sentence again; it is asked even if it is no question. */
  again(text) {
    const said = this.#lines.findLast((line) => line.text === text) ?? this.#add(text);
    this.#deliver(said, true);
  }

  /** Ask the last sentence, whether it is a question or not. */
  askLast() {
    if (this.known) this.#askNow();
    else this.again(this.last.text);
  }

  /** Send the sentences spoken while there was no connection. */
  flush() {
    for (const said of this.#unsent.splice(0)) this.#deliver(said, said.insists);
  }

  /** Handle an `ack`: the sentence is found by its timestamp, one that was refused as it is has none. */
  acked(frame) {
    this.#acked = null;
    if (frame.received_type !== "asr_chunk" || frame.is_final === false) return;
    const [stamp] = frame.is_final ? [frame.timestamp] : this.#awaited.keys();
    const said = this.#awaited.get(stamp);
    if (!said) return;
    this.#awaited.delete(stamp);
    if (frame.message === "paused") return this.#mark(said, "paused");
    this.known ||= Boolean(frame.is_final);
    this.#taken.push(said);
    this.#acked = said;
  }

  /**
   * Return the sentence of the last `ack`, null if it was another frame's. The server handles one frame after the other,
   * so an error without a stream, and a sentence without a question, are results of that frame.
   */
  settled() {
    const said = this.#acked;
    this.#acked = null;
    if (!said) return null;
    this.#taken = this.#taken.filter((other) => other !== said);
    this.#mark(said, "");
    return said;
  }

  /** The last sentence has no question in it. */
  noQuestion() {
    if (this.settled()?.insists) this.#askNow();
  }

  /** The last sentence is a question that waits for the answers before it. */
  queued(id) {
    const said = this.settled();
    if (!said) return;
    said.stream = id;
    this.#queued.set(id, said);
    this.#mark(said, "queued");
  }

  /** The answer to a question starts: to a queued one, or to the oldest without a result. */
  begun(id) {
    const said = this.#queued.get(id) ?? this.#taken.shift();
    this.#queued.delete(id);
    if (said) this.#mark(said, "");
  }

  /** The server has stopped the waiting questions. */
  forgetQueued() {
    for (const said of this.#queued.values()) this.#mark(said, "stopped");
    this.#queued.clear();
    this.#taken = [];
  }

  /** The connection was lost: mark sentences without a result as unsure. */
  cut() {
    for (const said of [...this.#taken, ...this.#awaited.values()]) this.#mark(said, "unsure");
    this.#taken = [];
    this.#awaited.clear();
    this.known = false;
  }

  /** A new session begins; the server forgets the sentences of the old one. */
  forgetLast() {
    this.last = null;
    this.known = false;
  }

  clear() {
    this.forgetLast();
    this.#lines = [];
    this.#unsent = [];
    byId("finals").replaceChildren();
    this.#keep();
    this.changed();
  }

  #askNow() {
    this.send({ type: "control", action: "instant_query", render: "html" });
  }

  /** Append a line. */
  #add(text) {
    const line = element("p", "said");
    const said = { text, line, state: "", stream: "" };
    line.append(element("span", "", text), element("small"));
    follow(byId("words"), () => byId("finals").append(line));
    this.last = said;
    this.#lines = [...this.#lines, said].slice(-LINES);
    prune(byId("finals"), LINES);
    return said;
  }

  /** Send a sentence; with `insists` it is asked even if it is no question. */
  #deliver(said, insists = false) {
    said.insists = insists;
    this.#stamp = Math.max(Date.now(), this.#stamp + 1);
    const frame = { type: "asr_chunk", text: said.text, is_final: true, timestamp: this.#stamp, render: "html" };
    const sent = this.send(frame);
    if (sent) this.#awaited.set(this.#stamp, said);
    else if (!this.#unsent.includes(said)) this.#unsent = [...this.#unsent, said].slice(-UNSENT);
    this.#mark(said, sent ? "sent" : "waiting");
    this.changed();
  }

  /** Show a line's state beside it, and a button where it can be sent again. */
  #mark(said, state) {
    said.state = said.line.dataset.state = state;
    const shown = state && state !== "sent" ? [labelled("span", "", state)] : [];
    if (AGAIN.includes(state)) shown.push(pressed("again", () => this.#deliver(said)));
    said.line.lastElementChild.replaceChildren(...shown);
    this.#keep();
  }
}
