// The buttons at a turn: turn to another version of an answer, copy, read aloud, rate and regenerate it; edit a question.

/** The buttons below an answer. `on` has the callbacks of `Turn`. */
class AnswerActions {
  constructor(turn, on) {
    this.turn = turn;
    this.box = element("div", "actions");
    this.copy = iconButton("copy", "copy", () => copyFrom(this.copy, this.turn.kept.text));
    this.read = iconButton("speaker", "read", () => on.read(turn));
    this.like = this.#thumb("like", on);
    this.dislike = this.#thumb("dislike", on);
    this.regenerate = iconButton("again", "regenerate", () => on.regenerate(turn));
    this.before = iconButton("chevron", "versionBefore", () => this.#turn(-1));
    this.after = iconButton("chevron", "versionAfter", () => this.#turn(1));
    this.version = element("span", "version");
    this.versions = element("div", "versions");
    this.reasons = null;
    this.read.ariaPressed = "false";
    this.versions.append(this.before, this.version, this.after);
    this.box.append(this.versions, this.copy, this.read, this.like, this.dislike, this.regenerate);
  }

  draw() {
    const { state, text, rating, mock, stream_id, choice, versions } = this.turn.kept;
    this.box.hidden = this.turn.unfinished || !(text || state === "cancelled" || versions.length);
    this.#drawVersions();
    this.copy.hidden = !text;
    this.read.hidden = !(text && "speechSynthesis" in globalThis);
    // A choice is taken once.
    this.regenerate.hidden = Boolean(choice);
    for (const kind of ["like", "dislike"]) {
      this[kind].hidden = state !== "completed" || Boolean(mock) || !stream_id;
      this[kind].ariaPressed = String(rating === kind);
    }
  }

  #drawVersions() {
    const { versions, version } = this.turn.kept;
    this.versions.hidden = !versions.length;
    this.version.textContent = `${version + 1}/${versions.length}`;
    // A disabled button would lose the focus.
    this.before.ariaDisabled = String(version === 0);
    this.after.ariaDisabled = String(version === versions.length - 1);
  }

  #turn(by) {
    const { versions, version } = this.turn.kept;
    const next = version + by;
    if (next < 0 || next >= versions.length) return;
    this.#close();
    this.turn.turnTo(next);
    announce(word("versionShown", { number: next + 1, count: versions.length }));
  }

  /** Pressed again, a thumb withdraws the rating; a bad answer is asked about. */
  #thumb(kind, on) {
    return iconButton(kind, kind, () => {
      const rating = this.turn.kept.rating === kind ? "" : kind;
      on.rate(this.turn, rating);
      if (rating === "dislike") this.#ask(on);
      else this.#close();
    });
  }

  /** Ask why the answer is bad; the rating itself has been sent already. */
  #ask(on) {
    this.#close();
    const close = () => {
      this.#close();
      this.dislike.focus();
    };
    this.reasons = reasonsForm((why) => {
      if (why) on.rate(this.turn, "dislike", why);
      announce(word("whyThanks"));
      close();
    }, close);
    this.box.after(this.reasons);
  }

  #close() {
    this.reasons?.remove();
    this.reasons = null;
  }
}

/** Show a form in place of a question; `later` is the number of turns that go when it is asked again. */
function editQuestion(turn, later, ask) {
  const form = element("form", "edit");
  const field = Object.assign(element("textarea"), { value: turn.kept.question, ariaLabel: word("edit") });
  const refusal = element("p", "failure");
  const cancel = labelled("button", "", "cancel");
  const send = labelled("button", "main", "askAgain");
  const lines = element("div", "line");
  const close = () => {
    turn.editor = null;
    turn.draw();
    turn.edit.focus();
  };
  refusal.setAttribute("role", "alert");
  cancel.type = "button";
  cancel.addEventListener("click", close);
  lines.append(cancel, send);
  form.append(field, refusal, element("p", "soft", word(later ? "editDrops" : "editReplaces", { count: later })), lines);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    refusal.textContent = refusalOf(field.value);
    if (field.value.trim() && !refusal.textContent) ask(field.value.trim());
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.stopPropagation();
    close();
  });
  turn.editor = form;
  turn.draw();
  field.focus();
}
