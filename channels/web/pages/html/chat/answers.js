// Applies the server's frames to the turns, and sends the client's: each question once; a cut answer is resumed.

/** The error code for too many unfinished answers; the refused one is resumed when another has ended. */
const FULL = "TOO_MANY_QUESTIONS";

/** The most turns of a conversation; beyond it the oldest one is removed. */
const MOST_TURNS = 500;

class Answers {
  #chat = { id: "", title: "", changed: 0, unfinished: 0 };
  #paused = false;
  #turns = [];
  #waiting = [];
  /** Ids of removed questions whose echo has not come: their answers are stopped when it comes. */
  #dropped = new Set();
  #unkept = new Set();
  #timer = 0;

  /** `send` sends a frame and returns whether it was sent; `on` has the callbacks. */
  constructor(database, send, on) {
    this.database = database;
    this.send = send;
    this.on = on;
    this.ratings = new Ratings(send, (turn) => this.#rated(turn));
  }

  /** The conversation that is shown. */
  get chat() {
    return this.#chat;
  }

  /** Whether another tab has taken the conversation over. */
  get paused() {
    return this.#paused;
  }

  get turns() {
    return this.#turns;
  }

  get unfinished() {
    return this.#turns.filter((turn) => turn.unfinished);
  }

  /** Show a conversation with its stored turns. */
  show(chat, kept) {
    this.#forget();
    this.#chat = chat;
    this.#paused = false;
    this.#turns = this.#waiting = [];
    byId("turns").replaceChildren();
    delete byId("turns").dataset.paused;
    for (const one of kept) this.#show(one);
    this.on.changed();
  }

  /** Stop the growing of answers on the page: another tab shows the conversation, and stores it from now on. */
  pause() {
    this.#forget();
    this.#paused = true;
    byId("turns").dataset.paused = "";
    for (const turn of this.unfinished) turn.theirs.setAttribute("aria-busy", "false");
  }

  /** Ask a question with the files that `attachments.take` returned. `more` may have `choice`, the form's choice that it
   *  is, with `given`, the texts that the form asks for, by name; or `versions` and `version` of an answer before. */
  ask(question, conversation, sent, more = {}) {
    const about = { id: newId(), chat: this.#chat.id, number: (this.#turns.at(-1)?.kept.number ?? 0) + 1 };
    const turn = this.#show({ ...about, question, conversation, sent, ...more, asked: new Date().toISOString() });
    turn.isNew = true;
    if (more.choice) this.#choose(more.choice, more.choice);
    this.#chat.title ||= titleFor(question || sent[0].name);
    this.#chat.changed = Date.now();
    if (this.#turns.length > MOST_TURNS) {
      this.#remove([this.#turns[0]]);
      this.on.note(() => word("tooMany", { most: MOST_TURNS }));
    }
    this.#deliver(turn);
    this.keep();
    return turn;
  }

  /** Store that a turn shows another version of its answer. */
  turned(turn) {
    this.#changed(turn);
  }

  /** Return the turns after one. */
  after(turn) {
    return this.#turns.slice(this.#turns.indexOf(turn) + 1);
  }

  /** Remove a turn and those after it from the page and the store, and stop the unfinished ones of them. */
  drop(turn) {
    const dropped = [turn, ...this.after(turn)];
    for (const one of dropped.filter((other) => other.unfinished)) {
      if (one.kept.stream_id) this.#stop(one);
      else this.#dropped.add(one.kept.id);
    }
    this.#remove(dropped);
  }

  /** After a (re)connect: send unconfirmed questions again, and resume unfinished answers. */
  reconnect() {
    this.#waiting = [];
    for (const turn of this.unfinished) {
      if (turn.kept.stream_id) this.#resume(turn);
      else this.#deliver(turn);
    }
    this.ratings.resend(this.#turns);
  }

  /** Stop every answer; without a connection the stop is sent after the reconnect. */
  stop() {
    for (const turn of this.unfinished) {
      turn.kept.stopping = true;
      this.#changed(turn);
      if (turn.kept.state === "unsent") this.#end(turn, "cancelled");
    }
    if (this.unfinished.length) this.send({ type: "stop" });
  }

  receive(frame) {
    const turn = this.#turns.find(({ kept }) => isOf(kept, frame));
    if (turn) this.#take(turn, frame);
    else if (frame.role === "user" && this.#dropped.has(frame.id)) this.send({ type: "stop", stream_id: frame.stream_id });
    else if (frame.type === "error") this.on.note(() => sentenceOf(frame));
  }

  /** Store the changed turns. */
  async keep() {
    const turns = [...this.#unkept].map(({ kept }) => kept);
    this.#forget();
    if (turns.length) await this.database.save({ ...this.#chat, unfinished: this.unfinished.length }, turns);
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#unkept.clear();
  }

  #take(turn, frame) {
    switch (frame.type === "chat" ? frame.role : frame.type) {
      case "user":
        return this.#taken(turn, frame);
      case "typing":
        return this.#typing(turn, frame);
      case "chat_delta":
        return this.#grown(turn, frame);
      case "reset":
        return this.#reset(turn, frame);
      case "assistant":
        return this.#answered(turn, frame);
      case "feedback":
        return this.ratings.confirmed(turn, frame.rating);
      case "error":
        return this.#failed(turn, frame);
      default:
        return undefined;
    }
  }

  #taken(turn, frame) {
    Object.assign(turn.kept, { stream_id: frame.stream_id, question: frame.content });
    this.#becomes(turn, "asked");
    if (turn.kept.stopping) this.#stop(turn);
  }

  #typing(turn, { status: runs, step = "" }) {
    if (runs) {
      turn.runs(step);
      return this.#becomes(turn, "growing");
    }
    const { ending, sentence, text } = turn.kept;
    return this.#end(turn, ending || (sentence ? "error" : text ? "completed" : "cancelled"));
  }

  #grown(turn, frame) {
    turn.grow(frame.content, frame.html);
    turn.kept.cursor = frame.cursor;
    if (turn.kept.state !== "growing") turn.becomes("growing");
    this.#changed(turn);
    this.on.grown(turn);
  }

  #reset(turn, frame) {
    turn.reset();
    turn.kept.cursor = frame.cursor;
    // After a resume of ours the same text comes again, so nothing was replaced.
    if (!turn.kept.resuming) this.on.replaced(turn);
    turn.kept.resuming = false;
    this.#changed(turn);
  }

  #answered(turn, frame) {
    turn.finish(frame.content, frame.html);
    const { cursor, sources = [], files = [], suggestions = [], choices = [], inputs = [], mock = false, status } = frame;
    Object.assign(turn.kept, { cursor, sources, files, suggestions, choices, inputs, mock, ending: status });
    turn.draw();
    this.#changed(turn);
  }

  #failed(turn, frame) {
    if (!turn.unfinished) {
      // An answer that has ended has errors of its rating only.
      this.ratings.refused(turn);
      return this.on.note(() => sentenceOf(frame));
    }
    if (turn.kept.stream_id && frame.code === FULL) return this.#waiting.push(turn);
    // A completed answer was resumed only to get its end; an error then is not its own.
    if (turn.kept.ending !== "completed") Object.assign(turn.kept, { sentence: frame.content, code: frame.code });
    // A question that was never asked gets no further frames.
    if (!turn.kept.stream_id || !frame.stream_id) return this.#end(turn, "error");
    return this.#changed(turn);
  }

  #remove(turns) {
    for (const turn of turns) {
      this.#unkept.delete(turn);
      turn.box.remove();
    }
    this.#turns = this.#turns.filter((turn) => !turns.includes(turn));
    this.#waiting = this.#waiting.filter((turn) => !turns.includes(turn));
    this.database.deleteTurns(turns.map(({ kept }) => kept.id));
  }

  #show(kept) {
    const turn = new Turn(kept, this.on);
    this.#turns.push(turn);
    byId("turns").append(turn.box);
    return turn;
  }

  #deliver(turn) {
    const { id, question: content, conversation, sent, choice, given } = turn.kept;
    const memory = { ...(conversation && { conversation }), ...(choice && { choice, inputs: given }) };
    const files = sent.length ? { files: sent.map(({ file_id }) => file_id) } : {};
    const isSent = this.send({ type: "chat", id, content, render: "html", ...memory, ...files });
    this.#becomes(turn, isSent ? "sent" : "unsent");
  }

  #resume(turn) {
    const { stream_id, cursor, stopping } = turn.kept;
    turn.kept.resuming = cursor > 0;
    this.send({ type: "resume", stream_id, cursor, render: "html" });
    if (stopping) this.#stop(turn);
  }

  #stop(turn) {
    this.send({ type: "stop", stream_id: turn.kept.stream_id });
  }

  #becomes(turn, state) {
    turn.becomes(state);
    this.#changed(turn);
    this.on.changed();
  }

  #end(turn, state) {
    if (turn.kept.anew) turn.empty();
    this.#chat.changed = Date.now();
    this.#becomes(turn, state);
    if (turn.kept.choice && state === "error" && !FORM_OVER.includes(turn.kept.code)) this.#choose(turn.kept.choice, "");
    this.on.ended(turn);
    const next = this.#waiting.shift();
    if (next) this.#resume(next);
  }

  /** Mark the form with this choice as answered by `chosen`, or with "" as open again. */
  #choose(choice, chosen) {
    const asking = this.#turns.find(({ kept }) => kept.choices.some((one) => one.choice === choice));
    if (!asking) return;
    asking.kept.chosen = chosen;
    asking.draw();
    this.#changed(asking);
  }

  /** Stored at once: a person may close the page right after a press. */
  #rated(turn) {
    this.#changed(turn);
    this.keep();
  }

  #changed(turn) {
    if (this.#paused) return;
    this.#unkept.add(turn);
    this.#timer ||= setTimeout(() => this.keep(), 250);
  }
}

/** Tell whether a frame belongs to a turn, by the question's id or else by the stream id. */
function isOf(kept, frame) {
  return frame.id ? kept.id === frame.id : Boolean(frame.stream_id) && kept.stream_id === frame.stream_id;
}
