// The view Feedback: ratings with their questions, questions without a good answer, and both asked again or as files.

const feedback = (() => {
  /** Ratings of one page. */
  const PAGE = 50;
  const form = byId("feedback-form");
  let refused = () => {};
  /** The ratings that are shown, the `cursor` of the page after them, and the filter that found them. */
  let rows = [];
  let next = null;
  let asked = null;
  /** Number of the newest search; what an older one finds is ignored. */
  let search = 0;
  let isMissing = false;
  /** The questions without a good answer, and the filter that found them. */
  let gaps = null;
  let gapsAsked = null;

  const span = ({ since, until, bot }) => ({ since, until, bot });

  function rowOf(one) {
    const row = element("tr");
    const reasons = one.reasons.map((number) => word(`reason_${number}`) ?? String(number)).join(" · ");
    const texts = [timeOf(one.rated_at), word(one.rating), reasons || "–", one.comment, one.question, one.answer, one.bot, one.person];
    row.append(...texts.map((text, place) => element(place ? "td" : "th", place > 2 && place < 6 ? "words" : "", text ?? "–")));
    row.firstChild.scope = "row";
    const acts = element("td");
    const open = labelled("button", "", "details");
    open.type = "button";
    open.addEventListener("click", () => questions.show(one.stream_id));
    acts.append(open);
    row.append(acts);
    return row;
  }

  function draw() {
    byId("ratings").replaceChildren(...rows.map(rowOf));
    for (const place of ["ratings-place", "ratings-save", "ratings-again"]) byId(place).hidden = rows.length === 0;
    byId("ratings-older").hidden = next === null;
    byId("ratings-none").hidden = asked === null || rows.length > 0;
    put(byId("ratings-none"), word(isMissing ? "noRatingsKept" : "noRatings"));
    drawGaps();
  }

  function drawGaps() {
    const found = gaps?.groups ?? [];
    for (const place of ["gaps-place", "gaps-save", "gaps-again"]) byId(place).hidden = found.length === 0;
    put(byId("gaps-about"), gaps ? word("gapsFound", { read: number(gaps.read), count: number(found.length) }) : "");
    const reasonsOf = (reasons) => Object.entries(reasons).map(([name, count]) => `${word(`gap_${name}`)} ${number(count)}`).join(" · ");
    const texts = found.map((one) => [one.examples.join(" / "), number(one.count), number(one.people), reasonsOf(one.reasons), timeOf(one.last)]);
    fillTable(byId("gaps"), ["examples", "count", "people", "reasons", "last"], texts);
  }

  /** Read a page of ratings: the first one of a filter, or the one after those that are shown. */
  async function read(cursor) {
    const mine = ++search;
    const filter = cursor ? asked : { ...filterOf(form), limit: PAGE };
    const found = await api.feedback({ ...filter, cursor }).catch((failure) => {
      // Without a database there are none.
      if (!(failure instanceof Refused) || failure.status !== 404) throw failure;
      return null;
    });
    if (mine !== search) return;
    isMissing = found === null;
    asked = filter;
    next = found?.next ?? null;
    rows = [...(cursor ? rows : []), ...(found?.ratings ?? [])];
    draw();
  }

  async function readGaps() {
    const mine = search;
    const filter = span(filterOf(form));
    const found = await api.unanswered(filter);
    if (mine !== search) return;
    [gaps, gapsAsked] = [found, filter];
    drawGaps();
  }

  async function askAgain(view, filter) {
    const { task_id: id, left_out: leftOut } = await api.askAgain(view, filter);
    comparison.show(id, leftOut);
  }

  const act = (work) => attempt(work, refused);
  const rated = () => ({ ...span(asked), rating: asked.rating });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(() => read(""));
  });
  byId("ratings-older").addEventListener("click", () => act(() => read(next)));
  byId("ratings-save").addEventListener("click", () => act(() => api.saveFeedback(rated())));
  byId("ratings-again").addEventListener("click", () => act(() => askAgain("feedback", rated())));
  byId("gaps-find").addEventListener("click", () => act(readGaps));
  byId("gaps-save").addEventListener("click", () => act(() => api.saveUnanswered(gapsAsked)));
  byId("gaps-again").addEventListener("click", () => act(() => askAgain("unanswered", gapsAsked)));

  return {
    draw,
    /** Read the ratings once; from then on the person asks. Each page with words is in the audit. */
    async look() {
      if (asked === null) await read("");
    },
    /** Take what shows a failed request, and forget what another person has seen. */
    begin(parts) {
      ({ refused } = parts);
      form.reset();
      search += 1;
      [rows, next, asked, gaps, gapsAsked] = [[], null, null, null, null];
      draw();
    },
  };
})();
