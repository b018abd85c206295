// Ratings of answers: shown at once, confirmed by the server, and sent again after a lost connection.

class Ratings {
  /** `send` sends a frame; `changed(turn)` stores a turn. `kept.rating` is what the person has chosen, `kept.rated` what
   *  the server has confirmed: "like", "dislike", or "" for none. */
  constructor(send, changed) {
    this.send = send;
    this.changed = changed;
  }

  rate(turn, rating) {
    this.#set(turn, { rating });
    this.#send(turn);
  }

  confirmed(turn, rating) {
    this.#set(turn, { rated: rating ?? "" });
  }

  refused(turn) {
    this.#set(turn, { rating: turn.kept.rated ?? "" });
  }

  /** Send what is not confirmed. */
  resend(turns) {
    for (const turn of turns) if ((turn.kept.rating ?? "") !== (turn.kept.rated ?? "")) this.#send(turn);
  }

  #set(turn, values) {
    Object.assign(turn.kept, values);
    turn.draw();
    this.changed(turn);
  }

  #send({ kept }) {
    this.send({ type: "feedback", stream_id: kept.stream_id, rating: kept.rating || null });
  }
}
