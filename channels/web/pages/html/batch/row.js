// One result as two rows of the table: a summary, and below it the whole result while it is opened.

/** Characters of a question and an answer in a summary; the style sheet cuts them to a few lines. */
const SUMMARY = 400;

class Row {
  #item = null;
  #drawn = "";

  /** `load` resolves to a result by its index, with the answer as HTML. */
  constructor(load) {
    this.load = load;
    this.line = element("tr", "line-row");
    this.details = element("tr", "details-row");
    this.open = Object.assign(element("button", "open"), { type: "button" });
    const [numberCell, questionCell, answerCell, statusCell] = ["number", "asked", "answer", "state"].map(cellOf);
    this.question = element("div", "clip");
    this.about = element("div", "about");
    this.answer = element("div", "clip");
    this.tag = element("span", "tag");
    this.open.append(icon("chevron"), element("span"));
    numberCell.append(this.open);
    questionCell.append(this.question, this.about);
    answerCell.append(this.answer);
    statusCell.append(this.tag);
    this.line.append(numberCell, questionCell, answerCell, statusCell);
    this.place = cellOf("whole");
    this.place.colSpan = 4;
    this.details.append(this.place);
    for (const row of [this.line, this.details]) row.setAttribute("role", "row");
    this.details.hidden = true;
    this.open.addEventListener("click", () => this.toggle());
    this.line.addEventListener("click", ({ target }) => {
      if (!target.closest("button") && !String(getSelection())) this.toggle();
    });
  }

  get opened() {
    return !this.details.hidden;
  }

  /** Show a result. What did not change stays as it is, so that reading is not disturbed. */
  show(item) {
    if (this.#item && this.#item.index !== item.index) this.#close();
    this.#item = item;
    this.open.setAttribute("aria-expanded", String(this.opened));
    this.open.setAttribute("aria-label", word("openRow", { number: item.index + 1 }));
    put(this.open.lastElementChild, String(item.index + 1));
    put(this.question, item.text.slice(0, SUMMARY));
    put(this.about, aboutOf(item).map(([name, value]) => (name ? word("pair", { name, value }) : value)).join(" · ").slice(0, SUMMARY));
    put(this.answer, summaryOf(item));
    this.answer.classList.toggle("failure", item.status === "failed");
    showStatus(this.tag, item.status);
    this.#draw();
  }

  toggle() {
    this.details.hidden = this.opened;
    this.open.setAttribute("aria-expanded", String(this.opened));
    this.line.classList.toggle("opened", this.opened);
    this.#draw();
  }

  #close() {
    if (this.opened) this.toggle();
  }

  remove() {
    this.line.remove();
    this.details.remove();
  }

  /** Draw the opened part if the result is another one than what it shows. */
  async #draw() {
    if (!this.opened) return;
    const item = this.#item;
    const shown = JSON.stringify([item, preferences.locale]);
    if (shown === this.#drawn) return;
    this.#drawn = shown;
    this.place.replaceChildren(detailsOf(item, ""));
    if (!item.content) return;
    const found = await this.load(item.index).catch(() => null);
    if (this.#drawn !== shown) return;
    if (found?.html) this.place.replaceChildren(detailsOf(item, found.html));
    // The plain text stays, and the next time the row is drawn the HTML is asked for again.
    else this.#drawn = "";
  }
}

function cellOf(className) {
  const cell = element("td", className);
  cell.setAttribute("role", "cell");
  return cell;
}

/** Return the answer without its markup, or else the reason why there is none. */
function summaryOf(item) {
  const failed = item.status === "failed" ? errorWords(item.error) : "";
  return [failed, plainText(item.content.slice(0, 4 * SUMMARY)) || item.content].filter(Boolean).join("\n").slice(0, SUMMARY);
}

/** Return the row's own id and its other columns as [name, value] pairs; the id has no name. */
function aboutOf({ id = "", columns = {} }) {
  return [["", id], ...Object.entries(columns)].filter(([, value]) => value !== "");
}

/**
 * Return what the summary does not show whole: a long question, the answer, sources and figures. `html` "" shows the
 * answer as plain text.
 */
function detailsOf(item, html) {
  const made = element("div", "result");
  if (item.text.length > SUMMARY) made.append(part("question", element("p", "plain", item.text)));
  if (item.content) made.append(part(item.status === "failed" ? "partial" : "answer", answerOf(item, html)));
  if (item.sources.length) made.append(part("sources", sourcesList(item.sources)));
  const pairs = factsOf(item);
  if (pairs.length) made.append(listOf(pairs));
  if (!made.childElementCount) made.append(labelled("p", "soft", "noAnswer"));
  return made;
}

function part(key, content) {
  const made = element("section", `part ${key}`);
  made.append(labelled("h3", "", key), content);
  return made;
}

function answerOf(item, html) {
  const place = element("div", "blocks");
  if (html) showHtml(place, html);
  else place.append(element("div", "plain", item.content));
  return place;
}

/** Return the [name, value] pairs below a result: the row's columns, its id, attempts, duration and usage. */
function factsOf(item) {
  const pairs = aboutOf(item).map(([name, value]) => [name || word("ownId"), value]);
  if (item.attempts > 1 || item.status === "failed") pairs.push([word("attempts"), number(item.attempts)]);
  if (item.started_at && item.completed_at) {
    pairs.push([word("took"), timeLeft((Date.parse(item.completed_at) - Date.parse(item.started_at)) / 1000)]);
  }
  const usage = usageWords(item.usage);
  if (usage) pairs.push([word("usage"), usage]);
  return pairs;
}

function listOf(pairs) {
  const list = element("dl", "facts");
  for (const [name, value] of pairs) {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", "", value));
    list.append(pair);
  }
  return list;
}
