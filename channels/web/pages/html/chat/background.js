// Answers of conversations that are not shown: the page asks whether they have ended, and the list then has them as new.

/** Milliseconds between two rounds, and for which an answer is asked after: the server replies when it has ended. */
const ROUND_MS = 3000;
const LOOK_MS = 3000;
/** Replies that do not tell: no valid key, too many requests, a replica that leaves. */
const NO_REPLY = [401, 403, 429, 503];

class Background {
  #timer = 0;

  /** `isOther(id)` tells whether a conversation may be asked after now: it is not the one that is shown. */
  constructor(database, isOther) {
    this.database = database;
    this.isOther = isOther;
  }

  /** Look after unfinished answers until there are none. */
  watch() {
    this.#timer ||= setTimeout(() => this.#round(), ROUND_MS);
  }

  async #round() {
    const waiting = (await this.database.chats()).filter(({ unfinished }) => unfinished);
    for (const { id } of waiting) if (this.isOther(id) && !(await this.#runs(id))) await this.database.end(id);
    this.#timer = 0;
    if (waiting.some(({ id }) => this.isOther(id))) this.watch();
  }

  /** Return whether an answer of a conversation is still being written, as far as the server says. */
  async #runs(id) {
    for (const { state, stream_id } of await this.database.turns(id)) {
      if (!isEnded(state) && stream_id && !(await this.#hasEnded(stream_id))) return true;
    }
    return false;
  }

  async #hasEnded(stream) {
    try {
      const reply = await fetch(new URL(`./api/chat/${stream}`, location.href), { headers: keyHeaders(), signal: AbortSignal.timeout(LOOK_MS) });
      reply.body?.cancel();
      return !NO_REPLY.includes(reply.status);
    } catch {
      return false;
    }
  }
}
