// Ratings of answers: shown at once, confirmed by the server, and sent again after a lost connection. A bad one may say why.

/** The most characters of a rating's words, and the reasons to choose from: keys of WORDS. */
const MOST_WHY = 2000;
const REASONS = ["whyWrong", "whyIncomplete", "whyOutdated", "whyUnclear", "whySources"];

class Ratings {
  /** `send` sends a frame; `changed(turn)` stores a turn. `kept.rating` is what the person has chosen, `kept.rated` what
   *  the server has confirmed: "like", "dislike", or "" for none. `kept.why` and `kept.whyTaken` are the words with it. */
  constructor(send, changed) {
    this.send = send;
    this.changed = changed;
  }

  /** Rate an answer, or withdraw its rating by ""; `why` is what a person says about a bad answer. */
  rate(turn, rating, why = "") {
    this.#set(turn, { rating, why });
    this.#send(turn);
  }

  confirmed(turn, rating) {
    turn.ratings -= 1;
    // Of two ratings on their way the first one's confirmation says nothing of the second.
    this.#set(turn, { rated: rating ?? "", ...(turn.ratings < 1 && { whyTaken: turn.kept.why ?? "" }) });
  }

  refused(turn) {
    const { rated = "", whyTaken = "" } = turn.kept;
    this.#set(turn, { rating: rated, why: whyTaken });
  }

  /** Send what is not confirmed. */
  resend(turns) {
    for (const turn of turns) {
      const { rating = "", rated = "", why = "", whyTaken = "" } = turn.kept;
      turn.ratings = 0;
      if (rating !== rated || why !== whyTaken) this.#send(turn);
    }
  }

  #set(turn, values) {
    Object.assign(turn.kept, values);
    turn.draw();
    this.changed(turn);
  }

  #send(turn) {
    const { stream_id, rating, why } = turn.kept;
    turn.ratings += 1;
    this.send({ type: "feedback", stream_id, rating: rating || null, ...(why && { content: why }) });
  }
}

/** Return a form that asks why an answer is bad; `send` gets the words, `close` is called where nothing is to be said. */
function reasonsForm(send, close) {
  const form = element("form", "reasons");
  const chips = element("div", "suggestions");
  const field = Object.assign(element("input"), { type: "text", maxLength: MOST_WHY / 2 });
  const line = element("div", "line");
  const skip = labelled("button", "quiet", "whySkip");
  const reasons = REASONS.map((key) => {
    const chip = labelled("button", "suggestion", key);
    Object.assign(chip, { type: "button", ariaPressed: "false" });
    chip.addEventListener("click", () => (chip.ariaPressed = String(chip.ariaPressed !== "true")));
    return chip;
  });
  Object.assign(field.dataset, { empty: "whyMore", label: "whyMore" });
  field.placeholder = field.ariaLabel = word("whyMore");
  skip.type = "button";
  skip.addEventListener("click", close);
  chips.append(...reasons);
  line.append(field, skip, labelled("button", "main", "whySend"));
  form.append(labelled("p", "soft", "why"), chips, line);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = reasons.filter(({ ariaPressed }) => ariaPressed === "true").map(({ textContent }) => textContent);
    send([...chosen, field.value.trim()].filter(Boolean).join(word("whyJoin")));
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.stopPropagation();
    close();
  });
  return form;
}
