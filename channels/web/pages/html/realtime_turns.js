// The realtime page's questions and answers. One turn is a question with its answer; an answer is known by its
// stream_id, whatever connection brings it.

/** Turns and notes that stay on the page. */
const TURNS = 200;

/** A question and the bubble of its answer. */
class Turn {
  cursor = 0;
  text = "";
  #next = 0;

  constructor(question, id) {
    this.id = id;
    this.box = element("article", "turn");
    this.words = element("div", "text");
    this.note = labelled("div", "note", "thinking");
    this.bubble = element("div", "bubble theirs");
    this.bubble.append(this.words, this.note);
    this.box.append(element("div", "bubble mine", question), this.bubble);
    this.#becomes("waiting", "thinking");
  }

  get open() {
    return ["waiting", "growing"].includes(this.bubble.dataset.state);
  }

  /** Take one frame of the answer. What is shown already comes again after some cuts: it counts once. */
  take(frame) {
    this.cursor = frame.cursor ?? this.cursor;
    if (frame.mock) this.bubble.dataset.mock = word("mock");
    if (frame.content && frame.stream_index >= this.#next) this.#grow(frame);
    if (frame.final) this.#end(frame.error);
  }

  /** The answer's text begins anew. */
  reset(cursor) {
    this.cursor = cursor;
    this.text = "";
    this.#next = 0;
    this.words.replaceChildren();
    this.#becomes("waiting", "thinking");
  }

  /** It will get no more. */
  stop() {
    this.#becomes("stopped", "stopped");
  }

  /** Say in the bubble what went wrong. */
  complain(sentence) {
    this.failure ??= this.bubble.insertBefore(element("p", "failure"), this.note);
    this.failure.textContent = sentence;
  }

  #grow(frame) {
    this.#next = frame.stream_index + 1;
    this.text += frame.content;
    this.words.append(frame.content);
    this.#becomes("growing", "");
  }

  #end(error) {
    if (error === "CANCELLED") this.stop();
    else if (error) this.#becomes("failed", "failed");
    else this.#becomes("finished", this.text ? "" : "noAnswer");
  }

  #becomes(state, key) {
    this.bubble.dataset.state = state;
    this.bubble.setAttribute("aria-busy", String(this.open));
    this.note.dataset.t = key;
    this.note.textContent = key && word(key);
  }
}

/** All turns, by their streams. */
class Turns {
  #turns = new Map();
  #asked = new Map();
  #counts = { questions: 0, answers: 0 };

  /** `begun` is told of the streams whose turn comes. */
  constructor(begun) {
    this.begun = begun;
  }

  /** A question has its stream and waits for its turn. */
  asked(id, question) {
    if (!this.#turns.has(id)) this.#asked.set(id, question);
  }

  /** What waited is given up. */
  forgetAsked() {
    this.#asked.clear();
  }

  /** It is a stream's turn: show its question, once; return its turn. */
  begin(id, question = this.#asked.get(id) ?? "") {
    const known = this.#turns.get(id);
    if (known) return known;
    const turn = new Turn(question, id);
    this.#asked.delete(id);
    this.begun(id);
    this.#turns.set(id, turn);
    if (this.#turns.size > TURNS) this.#turns.delete(this.#turns.keys().next().value);
    follow(byId("talk"), () => byId("talk").append(turn.box));
    prune(byId("talk"), TURNS);
    this.#count("questions");
    return turn;
  }

  /** Take a frame of an answer; return its turn. */
  take(frame) {
    const turn = this.begin(frame.stream_id);
    follow(byId("talk"), () => turn.take(frame));
    if (turn.text && !turn.counted) this.#count("answers");
    turn.counted ||= Boolean(turn.text);
    return turn;
  }

  reset(frame) {
    follow(byId("talk"), () => this.begin(frame.stream_id).reset(frame.cursor));
  }

  /** Put an error into the turn of its answer, which then gets its end; tell whether there is one. */
  complain(id, sentence) {
    const turn = this.#turns.get(id);
    if (turn) follow(byId("talk"), () => turn.complain(sentence));
    return Boolean(turn);
  }

  /** Return what to go on with after a cut, oldest first. */
  unfinished() {
    const shown = this.#open().map((turn) => ({ stream_id: turn.id, cursor: turn.cursor }));
    return [...shown, ...[...this.#asked.keys()].map((id) => ({ stream_id: id, cursor: 0 }))];
  }

  /** Nothing of the old session comes any more. */
  stop() {
    this.#asked.clear();
    for (const turn of this.#open()) turn.stop();
  }

  #open() {
    return [...this.#turns.values()].filter((turn) => turn.open);
  }

  #count(which) {
    this.#counts[which] += 1;
    byId(which).textContent = String(this.#counts[which]);
  }
}
