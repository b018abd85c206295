// The realtime page's transcript: what is being said, what was said, and what became of it.

/** Lines that stay on the page; sentences that wait for a connection. */
const LINES = 200;
const UNSENT = 20;
/** Milliseconds between two interim transcripts: the server wants to know, but not of every syllable. */
const INTERIM_MS = 200;

/** What was said for good: one line each, with what became of it. */
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

  /** Show the words of the sentence being spoken, and tell the server now and then. */
  interim(text) {
    follow(byId("words"), () => (byId("interim").textContent = text));
    if (!text || text === this.#interim || Date.now() - this.#interimAt < INTERIM_MS) return;
    this.#interim = text;
    this.#interimAt = Date.now();
    this.send({ type: "asr_chunk", text, is_final: false });
  }

  /** A sentence is finished: show it and send it, now or with the next connection. */
  final(text) {
    const line = element("p", "said");
    line.append(element("span", "", text), element("small"));
    follow(byId("words"), () => byId("finals").append(line));
    prune(byId("finals"), LINES);
    byId("hint").hidden = true;
    this.#deliver({ text, line });
  }

  /** Send what was said while there was no connection. */
  flush() {
    for (const said of this.#unsent.splice(0)) this.#deliver(said);
  }

  /** The server has taken a sentence, as it says by the sentence's own time; what it makes of it comes next. */
  taken(frame) {
    const said = this.#awaited.get(frame.timestamp);
    if (!said) return;
    this.#awaited.delete(frame.timestamp);
    if (frame.message === "paused") mark(said.line, "paused");
    else this.#taken.push(said);
  }

  /** Nothing more comes of the sentence that was taken first. */
  settled() {
    return this.#taken.shift();
  }

  /** It is a question that waits for the answers before it. */
  queued(id) {
    const said = this.settled();
    if (!said) return;
    this.#queued.set(id, said);
    mark(said.line, "queued");
  }

  /** A question's turn has come. */
  begun(id) {
    const said = this.#queued.get(id) ?? this.settled();
    this.#queued.delete(id);
    if (said) mark(said.line, "");
  }

  /** What waits is given up. */
  forgetQueued() {
    for (const said of this.#queued.values()) mark(said.line, "stopped");
    this.#queued.clear();
    this.#taken = [];
  }

  /** Nobody knows what has become of sentences the server has said nothing of: leave them to the person. */
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

/** Say beside a line what became of it; "": nothing worth saying. */
function mark(line, state) {
  line.dataset.state = state;
  line.lastElementChild.replaceChildren(...(state ? [labelled("span", "", state)] : []));
}
