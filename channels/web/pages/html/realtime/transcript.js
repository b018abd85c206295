// The transcript on the realtime page: the interim words, the finished sentences, and their state.

/** Maximum lines on the page, sentences waiting for a connection or for room at the server, and characters of one. */
const LINES = 200;
const UNSENT = 20;
const CHARACTERS = 10_000;
/** Minimum milliseconds between two interim transcripts. */
const INTERIM_MS = 200;

/** The states in which a sentence can be sent again. */
const AGAIN = ["unsure", "paused"];

/**
 * The finished sentences, one line each. States: waiting (for a connection), sent, then "" or queued (a question),
 * paused (not taken), unsure (the connection broke), stopped. What was asked is marked in its sentence. The server takes
 * a few questions at once; further sentences are held here, in the queue, until an answer has ended.
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
  #held = [];
  #acked = null;
  #stamp = 0;
  #interim = "";
  #interimAt = 0;
  #keep = soon(() => store.set("lines", this.#lines.map(({ line, insists, ...kept }) => kept)));

  /**
   * `on.send` sends a frame and returns whether it was sent; `on.changed` is called after each sentence, `on.held` with
   * the text of a held sentence, which returns the id of its place in the queue, and `on.released` with that id.
   */
  constructor(on) {
    this.on = on;
  }

  /** What was heard, oldest first: `{text, question, at}` with the question in it, "" for none, and its time. */
  get heard() {
    return this.#lines;
  }

  /** Show the lines of before a reload. Sentences that were sent but not settled may not have been delivered. */
  restore() {
    for (const kept of store.get("lines", [])) {
      const sentence = Object.assign(this.#add(kept.text), kept);
      const { state, stream, held } = sentence;
      if (state === "waiting") this.#unsent.push(sentence);
      if (held) this.#held.push(sentence);
      else if (state === "queued") this.#queued.set(stream, sentence);
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
    this.on.send({ type: "asr_chunk", text, is_final: false });
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
    const sentence = this.#takeAcked();
    if (sentence) this.#release(sentence);
    if (sentence) this.#mark(sentence, "");
    return sentence;
  }

  /** The server has no room for the sentence of the last `ack`: hold it; return false if there is none, or no place. */
  hold() {
    if (this.#held.length === UNSENT) return false;
    const sentence = this.#takeAcked();
    if (!sentence) return false;
    sentence.held ||= this.on.held(sentence.text);
    this.#held = [...this.#held, sentence].sort((one, other) => one.at - other.at);
    this.#mark(sentence, "queued");
    return true;
  }

  /** Send the first sentence that is held: the server may have room again. */
  next() {
    const sentence = this.#held.shift();
    if (sentence) this.#deliver(sentence, sentence.insists);
  }

  /** The last sentence has no question in it. */
  noQuestion() {
    if (this.settled()?.insists) this.#askNow();
  }

  /** The last sentence is a question that waits for the answers before it. */
  queued(id, question) {
    const sentence = this.settled();
    if (!sentence) return;
    Object.assign(sentence, { stream: id, question });
    this.#queued.set(id, sentence);
    this.#mark(sentence, "queued");
  }

  /** The answer to a question starts: to a queued one, to the oldest without a result, or to one that is asked now. */
  begun(id, question) {
    const asked = () => question && this.#lines.findLast((line) => line.text === question);
    const sentence = this.#queued.get(id) ?? this.#taken.shift() ?? asked();
    this.#queued.delete(id);
    if (!sentence) return;
    sentence.question = question || sentence.question;
    this.#release(sentence);
    this.#mark(sentence, "");
  }

  /** The waiting questions are stopped. */
  forgetQueued() {
    for (const sentence of [...this.#queued.values(), ...this.#held.splice(0)]) {
      sentence.held = "";
      this.#mark(sentence, "stopped");
    }
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
    this.on.changed();
  }

  #takeAcked() {
    const sentence = this.#acked;
    this.#acked = null;
    this.#taken = this.#taken.filter((other) => other !== sentence);
    return sentence;
  }

  /** Free the place of a sentence that is held no longer. */
  #release(sentence) {
    if (sentence.held) this.on.released(sentence.held);
    sentence.held = "";
  }

  #askNow() {
    this.on.send({ type: "control", action: "instant_query", render: "html" });
  }

  /** Append a line. */
  #add(text) {
    const line = element("p", "sentence");
    const sentence = { text, line, state: "", stream: "", question: "", held: "", at: Date.now() };
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
    const sent = this.on.send(frame);
    if (sent) this.#awaited.set(this.#stamp, sentence);
    else if (!this.#unsent.includes(sentence)) this.#unsent = [...this.#unsent, sentence].slice(-UNSENT);
    this.#mark(sentence, sent ? "sent" : "waiting");
    this.on.changed();
  }

  /** Show a line with its question marked, its state beside it, and a button where it can be sent again. */
  #mark(sentence, state) {
    sentence.state = sentence.line.dataset.state = state;
    sentence.line.firstElementChild.replaceChildren(...wordsOf(sentence));
    const shown = state && state !== "sent" ? [labelled("span", "", state)] : [];
    if (AGAIN.includes(state)) shown.push(pressed("again", () => this.#deliver(sentence)));
    sentence.line.lastElementChild.replaceChildren(...shown);
    this.#keep();
  }
}

/** Return the words of a sentence with the question in it marked; all of it where only parts of it were asked. */
function wordsOf({ text, question }) {
  if (!question) return [text];
  const place = text.indexOf(question);
  const [start, end] = place < 0 ? [0, text.length] : [place, place + question.length];
  const mark = Object.assign(element("mark", "", text.slice(start, end)), { title: word("asked") });
  mark.dataset.hint = "asked";
  return [text.slice(0, start), mark, text.slice(end)];
}
