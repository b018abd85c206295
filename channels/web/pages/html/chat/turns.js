// The turns on the chat page: the bubbles of a question and its answer, drawn from the stored turn.

const isEnded = (state) => ["completed", "cancelled", "error"].includes(state);

/** What a turn has of its answer, as it is before the question is sent. Each version of a regenerated answer has it. */
const ANSWER = {
  ...{ state: "unsent", stream_id: "", cursor: 0, asked: "", anew: false, resuming: false, stopping: false },
  ...{ text: "", blocks: [], sources: [], files: [], suggestions: [], choices: [], inputs: [], chosen: "" },
  ...{ ending: "", sentence: "", code: "", mock: false, rating: "", rated: "", why: "", whyTaken: "" },
};

/** The most versions of an answer; beyond it the oldest one is forgotten. */
const MOST_VERSIONS = 10;

/** A question and its answer. `kept` is its whole state as JSON. States: unsent, sent, asked (confirmed by the
 *  server), growing, and finally completed, cancelled or error. `kept.versions` are the versions of a regenerated answer,
 *  with null for the one that is shown, number `kept.version`; [] for an answer that has one only. */
class Turn {
  /** `on` has the callbacks of the buttons: `again`, `edit`, `regenerate` and `read` with the turn, `turned` with one that
   *  shows another version, `rate` with the turn, "like", "dislike" or "", and words, `ask` with a question, `choose` with
   *  the title and the name of a form's choice and the texts that were given with it, by name. */
  constructor(kept, on) {
    this.kept = { ...structuredClone(ANSWER), sent: [], choice: "", given: {}, versions: [], version: 0, ...kept };
    this.box = element("li", "turn");
    this.mine = element("div", "mine");
    this.theirs = element("div", "theirs");
    this.blocks = element("div", "blocks");
    this.typing = element("div", "typing");
    this.note = element("div", "note");
    this.choices = element("div", "form-choices");
    this.files = element("div", "files");
    this.sources = element("details", "sources");
    this.edit = iconButton("edit", "edit", () => on.edit(this));
    this.editor = null;
    /** Ratings that were sent on this connection and are not confirmed. */
    this.ratings = 0;
    this.actions = new AnswerActions(this, on);
    this.step = labelled("span", "", "thinking");
    this.typing.append(this.step, element("i"), element("i"), element("i"));
    this.time = element("time");
    this.theirs.append(speakerShown(this.time), this.blocks, this.typing, this.choices, this.files, this.sources, this.note);
    this.suggestions = element("div", "suggestions");
    this.on = on;
    this.box.append(this.mine, this.theirs, this.actions.box, this.suggestions);
    this.#drawAnswer();
    this.draw();
  }

  get unfinished() {
    return !isEnded(this.kept.state);
  }

  /** The answer's text without markup. */
  get words() {
    const words = this.blocks.cloneNode(true);
    for (const bar of words.querySelectorAll(".code-bar")) bar.remove();
    return words.textContent.trim();
  }

  /** Return the versions of a new answer to this question: those that have a text, and a place for the new one. */
  get nextVersions() {
    const { versions, version } = this.kept;
    const all = versions.length ? versions : [null];
    const answers = all.map((one, at) => (at === version ? answerOf(this.kept) : one));
    const earlier = answers.filter(({ text }) => text).slice(1 - MOST_VERSIONS);
    return earlier.length ? { versions: [...earlier, null], version: earlier.length } : {};
  }

  /** Show another version of the answer. */
  turnTo(version) {
    const { versions, version: before } = this.kept;
    const shown = versions[version];
    versions[before] = answerOf(this.kept);
    versions[version] = null;
    Object.assign(this.kept, shown, { version });
    this.ratings = 0;
    this.#drawAnswer();
    this.draw();
    this.on.turned(this);
  }

  /** Name the step of the answer that runs while there is no text; "" names none. */
  runs(step) {
    this.step.textContent = step || word("thinking");
    if (step) delete this.step.dataset.t;
    else this.step.dataset.t = "thinking";
  }

  becomes(state) {
    this.kept.state = state;
    this.draw();
  }

  /** Add text and blocks of the growing answer; a block replaces the one with the same number. */
  grow(content, blocks) {
    if (this.kept.anew) this.empty();
    this.kept.text += content;
    for (const { block, html } of blocks ?? []) {
      this.kept.blocks[block] = html;
      this.#drawBlock(block);
    }
    if (!blocks) this.#drawText();
  }

  /** Discard the text when the new one arrives; until then the old one stays visible. */
  reset() {
    this.kept.anew = true;
  }

  empty() {
    Object.assign(this.kept, { anew: false, text: "", blocks: [] });
    this.blocks.replaceChildren();
  }

  /** Set the whole answer; blocks that already show a part of it are not drawn again. */
  finish(text, html) {
    Object.assign(this.kept, { anew: false, text });
    if (html === undefined) return this.#drawText();
    const last = this.kept.blocks.length - 1;
    const before = this.kept.blocks.slice(0, -1).join("");
    if (last >= 0 && html.startsWith(before)) {
      this.kept.blocks[last] = html.slice(before.length);
      return this.#drawBlock(last);
    }
    this.kept.blocks = [html];
    return this.#drawAnswer();
  }

  draw() {
    const { state, question, sent, suggestions, asked } = this.kept;
    this.box.dataset.state = state;
    const waits = ["unsent", "sent"].includes(state) ? [labelled("small", "", state)] : [];
    const words = this.editor ?? element("span", "words", question);
    const files = element("span", "sent-files");
    files.append(...sent.map(sentFileShown));
    this.mine.replaceChildren(labelled("span", "unseen", "you"), ...(sent.length ? [files] : []), words, ...waits);
    this.suggestions.replaceChildren(...suggestionsShown(suggestions, this.on.ask));
    this.suggestions.hidden = !suggestions.length;
    this.edit.ariaLabel = this.edit.title = word("edit");
    this.time.textContent = asked && clockOf(asked);
    if (!this.editor && !this.kept.choice) this.mine.append(this.edit);
    this.typing.hidden = !this.unfinished;
    this.theirs.setAttribute("aria-busy", String(this.unfinished));
    this.theirs.hidden = state === "completed" && !this.kept.text && !this.kept.sentence && !this.kept.files.length;
    this.#drawChoices();
    this.#drawNote();
    this.#drawFiles();
    this.#drawSources();
    this.actions.draw();
  }

  #drawAnswer() {
    this.blocks.replaceChildren();
    if (this.kept.text && !this.kept.blocks.length) this.#drawText();
    this.kept.blocks.forEach((_, block) => this.#drawBlock(block));
  }

  #drawBlock(block) {
    while (this.blocks.childElementCount <= block) this.blocks.append(element("div"));
    showHtml(this.blocks.children[block], this.kept.blocks[block] ?? "");
    showCards(this.blocks.children[block], this.on.ask);
  }

  /** The sentence about a failed answer in the page's language, "" for none. */
  get failure() {
    return failureOf(this.kept);
  }

  /** Show plain text when the server has sent no HTML. */
  #drawText() {
    this.kept.blocks = [];
    this.blocks.replaceChildren(element("div", "plain", this.kept.text));
  }

  #drawNote() {
    const { state, sentence, mock, code } = this.kept;
    const parts = [];
    if (sentence) parts.push(element("span", "failure", this.failure));
    if (mock) parts.push(labelled("span", "tag", "mock"));
    if (state === "cancelled") parts.push(labelled("span", "", "cancelled"));
    if (state === "error" && !sentence) parts.push(labelled("span", "failure", "failed"));
    if (state === "error" && !FORM_OVER.includes(code)) parts.push(this.#againButton());
    this.note.replaceChildren(...parts);
  }

  /** Draw the form's fields and buttons once, and again when it has an answer or is open again: a typed text stays. */
  #drawChoices() {
    const { choices, chosen } = this.kept;
    const drawn = JSON.stringify([choices, chosen]);
    if (this.choices.dataset.drawn === drawn) return;
    this.choices.dataset.drawn = drawn;
    this.choices.replaceChildren(...(choices.length ? choicesShown(this.kept, this.on.choose) : []));
    this.choices.hidden = !choices.length;
  }

  #againButton() {
    const button = labelled("button", "", "again");
    button.type = "button";
    button.addEventListener("click", () => this.on.again(this));
    return button;
  }

  /** Show the files that the text does not link. */
  #drawFiles() {
    const shown = this.kept.text + this.kept.blocks.join("");
    const beside = filesBeside(this.kept.files, shown);
    this.files.hidden = !beside.length;
    this.files.replaceChildren(...beside);
  }

  #drawSources() {
    const { sources } = this.kept;
    this.sources.hidden = !sources.length;
    this.sources.replaceChildren(element("summary", "", word("sources", { count: sources.length })), sourcesList(sources));
  }
}

/** Return the state of the answer that a turn shows. */
function answerOf(kept) {
  return Object.fromEntries(Object.keys(ANSWER).map((name) => [name, kept[name]]));
}

/** Return who answers: the bot's icon and name, and the time of the question. */
function speakerShown(time) {
  const who = element("div", "who");
  who.append(icon("logo"), element("span", "", document.documentElement.dataset.app), time);
  return who;
}

function clockOf(iso) {
  return new Date(iso).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
}

const failureOf = ({ code, sentence }) => sentenceOf({ code, content: sentence });

/** Return a conversation's stored turns as Markdown. */
function asMarkdown(title, turns) {
  const parts = turns.map((kept) => {
    const quoted = kept.question.split("\n").map((line) => `> ${line}`).join("\n");
    const list = kept.sources.map((source) => `- ${titleOf(source)}`);
    const sources = list.length ? [`**${word("sources", { count: list.length })}**`, list.join("\n")] : [];
    const ending = failureOf(kept) || (kept.state === "cancelled" ? word("cancelled") : "");
    return [quoted, kept.text, ending && `*${ending}*`, ...sources].filter(Boolean).join("\n\n");
  });
  return [`# ${title}`, new Date().toLocaleString(document.documentElement.lang), ...parts].join("\n\n---\n\n") + "\n";
}
