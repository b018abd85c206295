// Applies the server's frames to the turns, and sends the client's: each question once; a cut answer is resumed.

/** The error code for too many unfinished answers; the refused one is resumed when another has ended. */
const FULL = "TOO_MANY_QUESTIONS";

class Answers {
  #turns = [];
  #waiting = [];
  #unkept = new Set();
  #timer = 0;

  /** `send` sends a frame and returns whether it was sent; `on` has the callbacks. */
  constructor(send, on) {
    this.send = send;
    this.on = on;
  }

  get turns() {
    return this.#turns;
  }

  get unfinished() {
    return this.#turns.filter((turn) => turn.unfinished);
  }

  /** Show the turns stored before a reload. */
  restore(kept) {
    for (const one of kept) this.#show(one);
  }

  ask(question, conversation) {
    const turn = this.#show({ id: newId(), question, conversation, asked: new Date().toISOString() });
    turn.isNew = true;
    this.#deliver(turn);
    return turn;
  }

  clear() {
    this.#turns = this.#waiting = [];
    this.#unkept.clear();
    store.clearTurns();
    byId("turns").replaceChildren();
  }

  /** After a (re)connect: send unconfirmed questions again, and resume unfinished answers. */
  reconnect() {
    this.#waiting = [];
    for (const turn of this.unfinished) {
      if (turn.kept.stream_id) this.#resume(turn);
      else this.#deliver(turn);
    }
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
    if (turn) follow(() => this.#take(turn, frame));
    else if (frame.type === "error") this.on.note(frame.content);
  }

  /** Store the changed turns. */
  keep() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const whole = [...this.#unkept].map((turn) => store.keepTurn(turn.kept)).every(Boolean);
    this.#unkept.clear();
    if (!whole) this.on.note(word("lost"));
  }

  #take(turn, frame) {
    switch (frame.type === "chat" ? frame.role : frame.type) {
      case "user":
        return this.#taken(turn, frame);
      case "typing":
        return this.#typing(turn, frame.status);
      case "chat_delta":
        return this.#grown(turn, frame);
      case "reset":
        return this.#reset(turn, frame);
      case "assistant":
        return this.#answered(turn, frame);
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

  #typing(turn, status) {
    if (status) return this.#becomes(turn, "growing");
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
    const { cursor, sources = [], mock = false, status } = frame;
    Object.assign(turn.kept, { cursor, sources, mock, ending: status });
    turn.draw();
    this.#changed(turn);
  }

  #failed(turn, frame) {
    if (turn.kept.stream_id && frame.code === FULL) return this.#waiting.push(turn);
    // A completed answer was resumed only to get its end; an error then is not its own.
    if (turn.kept.ending !== "completed") turn.kept.sentence = frame.content;
    // A question that was never asked gets no further frames.
    if (!turn.kept.stream_id || !frame.stream_id) return this.#end(turn, "error");
    return this.#changed(turn);
  }

  #show(kept) {
    const turn = new Turn(kept, (failed) => this.#again(failed));
    this.#turns.push(turn);
    byId("turns").append(turn.box);
    return turn;
  }

  #again(turn) {
    this.on.again(turn.kept.question);
  }

  #deliver(turn) {
    const { id, question: content, conversation } = turn.kept;
    const memory = conversation ? { conversation: true } : {};
    const sent = this.send({ type: "chat", id, content, render: "html", ...memory });
    this.#becomes(turn, sent ? "sent" : "unsent");
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
    this.#becomes(turn, state);
    this.on.ended(turn);
    const next = this.#waiting.shift();
    if (next) this.#resume(next);
  }

  #changed(turn) {
    this.#unkept.add(turn);
    this.#timer ||= setTimeout(() => this.keep(), 250);
  }
}

/** Tell whether a frame belongs to a turn, by the question's id or else by the stream id. */
function isOf(kept, frame) {
  return frame.id ? kept.id === frame.id : Boolean(frame.stream_id) && kept.stream_id === frame.stream_id;
}
