// The questions and answers on the realtime page. A turn is a question with its answer, identified by its stream_id
// also after a reconnect and a reload.

/** Maximum turns and notes on the page. */
const TURNS = 200;

/** The states of an unfinished answer, those in the queue, and those after which the question can be asked again. */
const OPEN = ["queued", "waiting", "growing"];
const QUEUED = ["held", "queued"];
const AGAIN_AFTER = ["stopped", "failed", "refused"];
/** The note of each state. */
const NOTES = { held: "queued", queued: "queued", waiting: "thinking", stopped: "stopped" };

/**
 * A question and its answer. `kept` is its whole state as JSON, with its time `at`. States: held (the server has no room
 * for it yet), queued, waiting, growing, and finally finished, stopped, failed or refused (never asked).
 */
class Turn {
  constructor(kept, again) {
    const begun = { state: "waiting", cursor: 0, text: "", blocks: [], sources: [], files: [], mock: false, error: null, at: Date.now() };
    this.kept = { ...begun, ...kept };
    this.box = element("article", "turn");
    this.answer = element("div", "theirs");
    this.text = element("div", "text");
    this.failure = element("p", "failure");
    this.beside = element("div", "beside");
    this.note = element("div", "note");
    this.again = again;
    this.answer.append(this.text, this.failure, this.beside, this.note);
    this.box.append(element("div", "mine", this.kept.question), this.answer);
    this.kept.blocks.forEach((_, block) => this.#drawBlock(block));
    this.draw();
  }

  get id() {
    return this.kept.id;
  }

  get open() {
    return OPEN.includes(this.kept.state);
  }

  becomes(state) {
    this.kept.state = state;
    this.draw();
  }

  /** Apply one frame of the answer. */
  take({ content, html = [], cursor, final, error, mock, sources, files }) {
    if (this.kept.anew && (content || (final && !error))) this.#empty();
    this.kept.cursor = cursor;
    this.kept.text += content;
    for (const changed of html) {
      this.kept.blocks[changed.block] = changed.html;
      this.#drawBlock(changed.block);
    }
    if (final) Object.assign(this.kept, { mock: Boolean(mock), sources: sources ?? [], files: files ?? [] });
    if (final) this.becomes(error === "CANCELLED" ? "stopped" : error ? "failed" : "finished");
    else if (this.kept.text && this.kept.state !== "growing") this.becomes("growing");
  }

  /** The answer starts again; the text that is shown stays until the new one comes. */
  reset(cursor) {
    this.kept.cursor = cursor;
    this.kept.anew = true;
  }

  /** Show the error of a frame. */
  complain({ code, detail, message }) {
    this.kept.error = { code, detail, message };
    this.draw();
  }

  draw() {
    const { state, text, error, mock, sources } = this.kept;
    this.box.dataset.state = state;
    this.answer.setAttribute("aria-busy", String(this.open));
    this.failure.textContent = error ? sentenceOf(error) : state === "failed" ? word("failed") : "";
    this.beside.replaceChildren(...filesBeside(this.kept.files, this.kept.text + this.kept.blocks.join("")), ...(sources.length ? [sourcesShown(sources)] : []));
    const notes = [NOTES[state] ?? (state === "finished" && !text ? "noAnswer" : "")].filter(Boolean);
    this.note.replaceChildren(
      ...notes.map((key) => labelled("span", "", key)),
      ...(mock ? [labelled("span", "tag", "mock")] : []),
      ...(AGAIN_AFTER.includes(state) ? [pressed("askAgain", () => this.again(this), "again")] : []),
      ...(text && !this.open ? [iconButton("copy", "copy", ({ currentTarget }) => copyFrom(currentTarget, this.kept.text))] : []),
    );
  }

  #empty() {
    Object.assign(this.kept, { anew: false, text: "", blocks: [] });
    this.text.replaceChildren();
  }

  #drawBlock(block) {
    while (this.text.childElementCount <= block) this.text.append(element("div"));
    showHtml(this.text.children[block], this.kept.blocks[block] ?? "");
  }
}

/** Return a folded list of sources. */
function sourcesShown(sources) {
  const folded = element("details", "sources");
  folded.append(element("summary", "", word("sources", { count: sources.length })), sourcesList(sources));
  return folded;
}

/** All turns, by id. */
class Turns {
  #turns = new Map();
  #changed = new Set();
  #keep = soon(() => {
    for (const turn of this.#changed) if (this.#turns.has(turn.id)) store.keepTurn(turn.kept);
    this.#changed.clear();
  });

  /**
   * `on` has callbacks: `begun` gets the id of each stream whose answer starts, and its question, `again` a question,
   * `changed` nothing.
   */
  constructor(on) {
    this.on = on;
  }

  get open() {
    return [...this.#turns.values()].filter((turn) => turn.open);
  }

  /** The numbers of questions and of answers on the page. */
  get counts() {
    const asked = this.all.filter(({ state }) => ![...QUEUED, "refused"].includes(state));
    return [asked.length, asked.filter(({ text }) => text).length];
  }

  /** The states of all turns, oldest first, as `kept` of a turn. */
  get all() {
    return [...this.#turns.values()].map(({ kept }) => kept);
  }

  /** Show the turns of before a reload; return them. */
  restore() {
    return store.turns().map((kept) => this.#show(kept));
  }

  /** Show a question whose answer waits for others. */
  queued(id, question) {
    if (!this.#turns.has(id)) this.#show({ id, question, state: "queued" });
  }

  /** Show a sentence for which the server has no room yet; return its id. */
  hold(question) {
    return this.#show({ id: `held-${newId()}`, question, state: "held" }).id;
  }

  /** Remove a sentence that was held. */
  release(id) {
    const turn = this.#turns.get(id);
    if (turn) this.#remove(turn);
  }

  /** Show a question that was not asked, and why. */
  refused(question, error) {
    this.#show({ id: `refused-${newId()}`, question, state: "refused" }).complain(error);
  }

  /** Return the turn of a stream; its first frame begins it. */
  begin(id, question = "") {
    const known = this.#turns.get(id);
    if (known && known.kept.state !== "queued") return known;
    this.on.begun(id, question);
    const turn = known ?? this.#show({ id, question });
    this.#change(turn, () => turn.becomes("waiting"));
    return turn;
  }

  /** Apply a frame to its answer; return the turn. */
  take(frame) {
    const turn = this.begin(frame.stream_id);
    this.#change(turn, () => turn.take(frame));
    return turn;
  }

  /** Start an answer again; return whether its text is replaced, and not only sent again after a resume. */
  reset(frame) {
    const turn = this.begin(frame.stream_id);
    const replaced = !turn.resumed;
    turn.resumed = false;
    this.#change(turn, () => turn.reset(frame.cursor));
    return replaced;
  }

  /** Show an error in the answer it belongs to; return whether there is one. */
  complain(error) {
    const turn = this.#turns.get(error.stream_id);
    if (turn) this.#change(turn, () => turn.complain(error));
    return Boolean(turn);
  }

  /** Return the frames that resume the unfinished answers after a reconnect, oldest first. */
  resumes() {
    return this.open.map((turn) => {
      turn.resumed = turn.kept.cursor > 0;
      return { type: "resume", stream_id: turn.id, cursor: turn.kept.cursor, render: "html" };
    });
  }

  /** Mark the questions in the queue as stopped, or all unfinished ones. */
  stop({ queued = false } = {}) {
    const states = queued ? QUEUED : [...QUEUED, ...OPEN];
    for (const turn of this.#turns.values()) {
      if (states.includes(turn.kept.state)) this.#change(turn, () => turn.becomes("stopped"));
    }
  }

  clear() {
    for (const turn of this.#turns.values()) if (!turn.open && turn.kept.state !== "held") this.#remove(turn);
    this.on.changed();
  }

  draw() {
    for (const turn of this.#turns.values()) turn.draw();
  }

  #again(turn) {
    if (!turn.kept.text) this.#remove(turn);
    this.on.again(turn.kept.question);
    this.on.changed();
  }

  #show(kept) {
    const turn = new Turn(kept, (refused) => this.#again(refused));
    this.#turns.set(turn.id, turn);
    if (this.#turns.size > TURNS) this.#turns.delete(this.#turns.keys().next().value);
    this.#change(turn, () => {});
    prune(byId("talk"), TURNS);
    return turn;
  }

  #remove(turn) {
    turn.box.remove();
    this.#turns.delete(turn.id);
    store.dropTurn(turn.id);
  }

  /** Change a turn; queued ones are in a list of their own, below the answer that grows. */
  #change(turn, act) {
    follow(byId("talk"), () => {
      act();
      const place = byId(QUEUED.includes(turn.kept.state) ? "queue" : "talk");
      if (turn.box.parentElement !== place) place.append(turn.box);
    });
    this.#changed.add(turn);
    this.#keep();
    this.on.changed();
  }
}
