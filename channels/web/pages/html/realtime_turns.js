// The questions and answers on the realtime page. A turn is a question with its answer, identified by its stream_id
// also after a reconnect.

/** Maximum turns and notes on the page. */
const TURNS = 200;

/** The bubbles of a question and its answer. */
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

  /** Apply one frame of the answer; pieces repeated after a reconnect are ignored. */
  take(frame) {
    this.cursor = frame.cursor ?? this.cursor;
    if (frame.mock) this.bubble.dataset.mock = word("mock");
    if (frame.content && frame.stream_index >= this.#next) this.#grow(frame);
    if (frame.final) this.#end(frame.error);
  }

  /** Discard the text; the answer starts again. */
  reset(cursor) {
    this.cursor = cursor;
    this.text = "";
    this.#next = 0;
    this.words.replaceChildren();
    this.#becomes("waiting", "thinking");
  }

  /** Mark the answer as stopped. */
  stop() {
    this.#becomes("stopped", "stopped");
  }

  /** Show an error in the bubble. */
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

/** All turns, by stream id. */
class Turns {
  #turns = new Map();
  #asked = new Map();
  #counts = { questions: 0, answers: 0 };

  /** `begun` is called with the id of each stream that starts to be shown. */
  constructor(begun) {
    this.begun = begun;
  }

  /** Remember a question whose answer is queued. */
  asked(id, question) {
    if (!this.#turns.has(id)) this.#asked.set(id, question);
  }

  /** Forget the queued questions. */
  forgetAsked() {
    this.#asked.clear();
  }

  /** Return the turn of a stream; show its question if this is the first frame. */
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

  /** Apply a frame to its answer; return the turn. */
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

  /** Show an error in the answer it belongs to; return whether there is one. */
  complain(id, sentence) {
    const turn = this.#turns.get(id);
    if (turn) follow(byId("talk"), () => turn.complain(sentence));
    return Boolean(turn);
  }

  /** Return the streams to resume after a reconnect, oldest first. */
  unfinished() {
    const shown = this.#open().map((turn) => ({ stream_id: turn.id, cursor: turn.cursor }));
    return [...shown, ...[...this.#asked.keys()].map((id) => ({ stream_id: id, cursor: 0 }))];
  }

  /** Mark all answers of the old session as stopped. */
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
