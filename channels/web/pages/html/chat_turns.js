// The turns on the chat page: the bubbles of a question and its answer, drawn from the stored turn.

/** The only way HTML is inserted into this page: rendered and sanitized by the server. */
const cleaned = (() => {
  const rules = { createHTML: (html) => html };
  return globalThis.trustedTypes?.createPolicy("answers", rules) ?? rules;
})();

/** Run a change, and keep the list scrolled to its end unless the reader has scrolled up. */
function follow(change) {
  const box = byId("scroll");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** A question and its answer. `kept` is its whole state as JSON. States: unsent, sent, asked (confirmed by the
 *  server), growing, and finally completed, cancelled or error. */
class Turn {
  constructor(kept, again) {
    const begun = { state: "unsent", stream_id: "", cursor: 0, text: "", blocks: [], sources: [], sentence: "" };
    this.kept = { ...begun, ...kept };
    this.box = element("li", "turn");
    this.mine = element("div", "mine");
    this.theirs = element("div", "theirs");
    this.blocks = element("div", "blocks");
    this.typing = element("div", "typing");
    this.note = element("div", "note");
    this.sources = element("details", "sources");
    this.again = labelled("button", "", "again");
    this.again.type = "button";
    this.again.addEventListener("click", () => again(this));
    this.typing.append(labelled("span", "", "thinking"), element("i"), element("i"), element("i"));
    this.theirs.append(labelled("span", "unseen", "answer"), this.blocks, this.typing, this.sources, this.note);
    this.box.append(this.mine, this.theirs);
    this.#drawAnswer();
    this.draw();
  }

  get unfinished() {
    return ["unsent", "sent", "asked", "growing"].includes(this.kept.state);
  }

  /** The answer's text without markup. */
  get words() {
    return this.blocks.textContent.trim();
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
    const { state, question } = this.kept;
    this.box.dataset.state = state;
    const waits = ["unsent", "sent"].includes(state) ? [labelled("small", "", state)] : [];
    this.mine.replaceChildren(labelled("span", "unseen", "you"), element("span", "words", question), ...waits);
    this.typing.hidden = !this.unfinished;
    this.theirs.setAttribute("aria-busy", String(this.unfinished));
    this.theirs.hidden = state === "completed" && !this.kept.text && !this.kept.sentence;
    this.#drawNote();
    this.#drawSources();
  }

  #drawAnswer() {
    this.blocks.replaceChildren();
    if (this.kept.text && !this.kept.blocks.length) this.#drawText();
    this.kept.blocks.forEach((_, block) => this.#drawBlock(block));
  }

  #drawBlock(block) {
    while (this.blocks.childElementCount <= block) this.blocks.append(element("div"));
    this.blocks.children[block].innerHTML = cleaned.createHTML(this.kept.blocks[block] ?? "");
  }

  /** Show plain text when the server has sent no HTML. */
  #drawText() {
    this.kept.blocks = [];
    this.blocks.replaceChildren(element("div", "plain", this.kept.text));
  }

  #drawNote() {
    const { state, sentence, mock, asked } = this.kept;
    const parts = [];
    if (sentence) parts.push(element("span", "failure", sentence));
    if (mock) parts.push(labelled("span", "tag", "mock"));
    if (state === "cancelled") parts.push(labelled("span", "", "cancelled"));
    if (state === "error" && !sentence) parts.push(labelled("span", "failure", "failed"));
    if (state === "completed" && asked) parts.push(element("time", "", clockOf(asked)));
    if (state === "error") parts.push(this.again);
    this.note.replaceChildren(...parts);
  }

  #drawSources() {
    const { sources } = this.kept;
    this.sources.hidden = !sources.length;
    const list = element("ol");
    list.append(...sources.map(sourceLine));
    this.sources.replaceChildren(element("summary", "", word("sources", { count: sources.length })), list);
  }
}

/** Return a source's document and excerpt; it is a link only if its URL is http or https. */
function sourceLine(source) {
  const line = element("li");
  const title = titleOf(source);
  const address = /^https?:\/\//i.test(source.url ?? "") ? source.url : "";
  const name = element(address ? "a" : "span", "", title);
  if (address) Object.assign(name, { href: address, target: "_blank", rel: "noopener noreferrer nofollow" });
  line.append(name);
  const piece = String(source.content || source.snippet || "").trim();
  if (/[\p{L}\p{N}]/u.test(piece)) line.append(element("q", "", piece.length > 200 ? `${piece.slice(0, 200)}…` : piece));
  return line;
}

function titleOf({ dataset_name: dataset, document_name: document, title, url }) {
  return [dataset, document || title].filter(Boolean).join(" · ") || String(url || "—");
}

function clockOf(iso) {
  return new Date(iso).toLocaleTimeString(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
}

/** Return the whole chat as Markdown. */
function asMarkdown(title, turns) {
  const parts = turns.map(({ kept }) => {
    const quoted = kept.question.split("\n").map((line) => `> ${line}`).join("\n");
    const list = kept.sources.map((source) => `- ${titleOf(source)}`);
    const sources = list.length ? [`**${word("sources", { count: list.length })}**`, list.join("\n")] : [];
    const ending = kept.sentence || (kept.state === "cancelled" ? word("cancelled") : "");
    return [quoted, kept.text, ending && `*${ending}*`, ...sources].filter(Boolean).join("\n\n");
  });
  return [`# ${title}`, new Date().toLocaleString(document.documentElement.lang), ...parts].join("\n\n---\n\n") + "\n";
}
