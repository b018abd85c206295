// The view Questions: the question log by filter, page by page; one question's members, with its words for an admin.

const questions = (() => {
  /** Questions of one page. */
  const PAGE = 50;
  const form = byId("filter");
  let refused = () => {};
  /** The questions that are shown, the `cursor` of the page after them, and the filter that found them. */
  let rows = [];
  let next = null;
  let asked = null;
  /** Number of the newest search; what an older one finds is ignored. */
  let search = 0;
  /** The question in the dialog, and its story. */
  let opened = null;
  let told = [];
  let isMissing = false;

  const wanted = () => ({ ...filterOf(form), limit: PAGE });

  function rowOf(one) {
    const row = element("tr");
    row.dataset.stream = one.stream_id;
    const rating = one.rating ? word(one.rating) : "–";
    const texts = [timeOf(one.time), one.person, one.bot, one.channel, one.outcome, duration(one.first_text_seconds), duration(one.seconds), rating, one.question];
    row.append(...texts.map((text, place) => element(place ? "td" : "th", "", text ?? "–")));
    row.firstChild.scope = "row";
    row.lastChild.className = "words";
    const acts = element("td");
    const open = labelled("button", "", "details");
    open.type = "button";
    open.addEventListener("click", () => show(one.stream_id, false));
    acts.append(open);
    row.append(acts);
    return row;
  }

  function draw() {
    byId("log").replaceChildren(...rows.map(rowOf));
    drawEnds();
    drawDetail();
  }

  function drawEnds() {
    byId("log-place").hidden = rows.length === 0;
    byId("older").hidden = next === null;
    byId("none-found").hidden = asked === null || rows.length > 0;
    put(byId("none-found"), word(isMissing ? "noLog" : next === null ? "noneFound" : "noneYet"));
  }

  /** Read a page of the log: the first one of a filter, or the one after those that are shown. */
  async function read(cursor) {
    const mine = ++search;
    const filter = cursor ? asked : wanted();
    const found = await api.questions({ ...filter, cursor }).catch((failure) => {
      // Without a database there is no log.
      if (!(failure instanceof Refused) || failure.status !== 404) throw failure;
      return null;
    });
    if (mine !== search) return;
    isMissing = found === null;
    const fresh = found?.questions ?? [];
    asked = filter;
    next = found?.next ?? null;
    rows = cursor ? [...rows, ...fresh] : fresh;
    if (!cursor) byId("log").replaceChildren();
    byId("log").append(...fresh.map(rowOf));
    drawEnds();
  }

  const act = (work) => attempt(work, refused);

  /** Return an item of the story: what happened, and how long after the question. */
  function stepOf({ event, time, seconds, detail, count }) {
    const made = element("li");
    const texts = [word(`step_${event}`), event === "rated" ? word(detail) : detail, count > 1 ? word("times", { count: number(count) }) : ""];
    const after = time === null ? "" : event === "asked" ? timeOf(time) : word("after", { time: duration(seconds) });
    made.append(texts.filter(Boolean).join(" · "));
    if (after) made.append(element("span", "soft", after));
    return made;
  }

  function drawDetail() {
    if (!opened) return;
    byId("story").replaceChildren(...told.map(stepOf));
    const known = Object.entries(opened).filter(([, value]) => value !== null);
    const pairs = known.map(([name, value]) => [
      element("dt", "", name),
      element("dd", "", typeof value === "object" ? JSON.stringify(value) : String(value)),
    ]);
    byId("detail-list").replaceChildren(...pairs.flat());
  }

  const show = (id, withWords) =>
    act(async () => {
      const found = await Promise.all([api.question(id, withWords), api.story(id)]);
      [opened, { steps: told }] = found;
      drawDetail();
      if (!byId("detail").open) byId("detail").showModal();
    });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(() => read(""));
  });
  byId("older").addEventListener("click", () => act(() => read(next)));
  byId("log-save").addEventListener("click", () => act(() => api.saveQuestions({ ...wanted(), limit: "" })));
  byId("detail-words").addEventListener("click", () => show(opened.stream_id, true));
  byId("detail-close").addEventListener("click", () => byId("detail").close());
  byId("detail").addEventListener("close", () => {
    opened = null;
    told = [];
    for (const place of ["detail-list", "story"]) byId(place).replaceChildren();
  });

  return {
    draw,
    /** Show a question in the dialog, without its words. */
    show: (id) => show(id, false),
    /** Read the log once; from then on the person asks. Each page with words is in the audit. */
    async look() {
      if (asked === null) await read("");
    },
    /** Take what shows a failed request, and forget what another person has seen. */
    begin(parts) {
      ({ refused } = parts);
      form.reset();
      search += 1;
      [rows, next, asked, opened] = [[], null, null, null];
      draw();
    },
  };
})();
