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
      const sentence = this.#add(text);
      sentence.stream = stream;
      if (state === "waiting") this.#unsent.push(sentence);
      if (state === "queued") this.#queued.set(stream, sentence);
      this.#mark(sentence, state === "sent" ? "unsure" : state);
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
    const sentence = this.#lines.findLast((line) => line.text === text) ?? this.#add(text);
    this.#deliver(sentence, true);
  }

  /** Ask the last sentence, whether it is a question or not. */
  askLast() {
    if (this.known) this.#askNow();
    else this.again(this.last.text);
  }

  /** Send the sentences spoken while there was no connection. */
  flush() {
    for (const sentence of this.#unsent.splice(0)) this.#deliver(sentence, sentence.insists);
  }

  /** Handle an `ack`: the sentence is found by its timestamp, one that was refused as it is has none. */
  acked(frame) {
    this.#acked = null;
    if (frame.received_type !== "asr_chunk" || frame.is_final === false) return;
    const [stamp] = frame.is_final ? [frame.timestamp] : this.#awaited.keys();
    const sentence = this.#awaited.get(stamp);
    if (!sentence) return;
    this.#awaited.delete(stamp);
    if (frame.message === "paused") return this.#mark(sentence, "paused");
    this.known ||= Boolean(frame.is_final);
    this.#taken.push(sentence);
    this.#acked = sentence;
  }

  /**
   * Return the sentence of the last `ack`, null if it was another frame's. The server handles one frame after the other,
   * so an error without a stream, and a sentence without a question, are results of that frame.
   */
  settled() {
    const sentence = this.#acked;
    this.#acked = null;
    if (!sentence) return null;
    this.#taken = this.#taken.filter((other) => other !== sentence);
    this.#mark(sentence, "");
    return sentence;
  }

  /** The last sentence has no question in it. */
  noQuestion() {
    if (this.settled()?.insists) this.#askNow();
  }

  /** The last sentence is a question that waits for the answers before it. */
  queued(id) {
    const sentence = this.settled();
    if (!sentence) return;
    sentence.stream = id;
    this.#queued.set(id, sentence);
    this.#mark(sentence, "queued");
  }

  /** The answer to a question starts: to a queued one, or to the oldest without a result. */
  begun(id) {
    const sentence = this.#queued.get(id) ?? this.#taken.shift();
    this.#queued.delete(id);
    if (sentence) this.#mark(sentence, "");
  }

  /** The server has stopped the waiting questions. */
  forgetQueued() {
    for (const sentence of this.#queued.values()) this.#mark(sentence, "stopped");
    this.#queued.clear();
    this.#taken = [];
  }

  /** The connection was lost: mark sentences without a result as unsure. */
  cut() {
    for (const sentence of [...this.#taken, ...this.#awaited.values()]) this.#mark(sentence, "unsure");
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
    const line = element("p", "sentence");
    const sentence = { text, line, state: "", stream: "" };
    line.append(element("span", "", text), element("small"));
    follow(byId("words"), () => byId("finals").append(line));
    this.last = sentence;
    this.#lines = [...this.#lines, sentence].slice(-LINES);
    prune(byId("finals"), LINES);
    return sentence;
  }

  /** Send a sentence; with `insists` it is asked even if it is no question. */
  #deliver(sentence, insists = false) {
    sentence.insists = insists;
    this.#stamp = Math.max(Date.now(), this.#stamp + 1);
    const frame = { type: "asr_chunk", text: sentence.text, is_final: true, timestamp: this.#stamp, render: "html" };
    const sent = this.send(frame);
    if (sent) this.#awaited.set(this.#stamp, sentence);
    else if (!this.#unsent.includes(sentence)) this.#unsent = [...this.#unsent, sentence].slice(-UNSENT);
    this.#mark(sentence, sent ? "sent" : "waiting");
    this.changed();
  }

  /** Show a line's state beside it, and a button where it can be sent again. */
  #mark(sentence, state) {
    sentence.state = sentence.line.dataset.state = state;
    const shown = state && state !== "sent" ? [labelled("span", "", state)] : [];
    if (AGAIN.includes(state)) shown.push(pressed("again", () => this.#deliver(sentence)));
    sentence.line.lastElementChild.replaceChildren(...shown);
    this.#keep();
  }
}
