// The transcript on the realtime page: the interim words, the finished sentences, and their state.

/** Maximum lines on the page, and sentences waiting for a connection. */
const LINES = 200;
const UNSENT = 20;
/** Minimum milliseconds between two interim transcripts. */
const INTERIM_MS = 200;

/** The finished sentences, one line each, with their state. */
class Transcript {
  #unsent = [];
  #awaited = new Map();
  #taken = [];
  #queued = new Map();
  #stamp = 0;
  #interim = "";
  #interimAt = 0;

  constructor(send) {
    this.send = send;
  }

  /** Show the interim words, and send them at most every INTERIM_MS. */
  interim(text) {
    follow(byId("words"), () => (byId("interim").textContent = text));
    if (!text || text === this.#interim || Date.now() - this.#interimAt < INTERIM_MS) return;
    this.#interim = text;
    this.#interimAt = Date.now();
    this.send({ type: "asr_chunk", text, is_final: false });
  }

  /** Show a finished sentence and send it, now or after the next connect. */
  final(text) {
    const line = element("p", "said");
    line.append(element("span", "", text), element("small"));
    follow(byId("words"), () => byId("finals").append(line));
    prune(byId("finals"), LINES);
    byId("hint").hidden = true;
    this.#deliver({ text, line });
  }

  /** Send the sentences spoken while there was no connection. */
  flush() {
    for (const said of this.#unsent.splice(0)) this.#deliver(said);
  }

  /** Handle the `ack` of a sentence, found by its timestamp; its result comes next. */
  taken(frame) {
    const said = this.#awaited.get(frame.timestamp);
    if (!said) return;
    this.#awaited.delete(frame.timestamp);
    if (frame.message === "paused") mark(said.line, "paused");
    else this.#taken.push(said);
  }

  /** Remove and return the oldest acknowledged sentence: its result has come. */
  settled() {
    return this.#taken.shift();
  }

  /** The oldest acknowledged sentence is a question that waits for the answers before it. */
  queued(id) {
    const said = this.settled();
    if (!said) return;
    this.#queued.set(id, said);
    mark(said.line, "queued");
  }

  /** The answer to a question starts. */
  begun(id) {
    const said = this.#queued.get(id) ?? this.settled();
    this.#queued.delete(id);
    if (said) mark(said.line, "");
  }

  /** Mark the waiting questions as stopped. */
  forgetQueued() {
    for (const said of this.#queued.values()) mark(said.line, "stopped");
    this.#queued.clear();
    this.#taken = [];
  }

  /** The connection was lost: mark sentences without a result as unsure and offer to send them again. */
  cut() {
    for (const said of [...this.#taken, ...this.#awaited.values()]) {
      mark(said.line, "unsure");
      const again = labelled("button", "again", "again");
      again.type = "button";
      again.addEventListener("click", () => this.#deliver(said));
      said.line.lastElementChild.append(" ", again);
    }
    this.#taken = [];
    this.#awaited.clear();
  }

  #deliver(said) {
    this.#stamp = Math.max(Date.now(), this.#stamp + 1);
    const sent = this.send({ type: "asr_chunk", text: said.text, is_final: true, timestamp: this.#stamp });
    mark(said.line, sent ? "" : "waiting");
    if (sent) this.#awaited.set(this.#stamp, said);
    else if (!this.#unsent.includes(said)) this.#unsent = [...this.#unsent, said].slice(-UNSENT);
  }
}

/** Show a line's state beside it, "" for none. */
function mark(line, state) {
  line.dataset.state = state;
  line.lastElementChild.replaceChildren(...(state ? [labelled("span", "", state)] : []));
}
