// The view Usage: sums by day, department, person and more, as a chart that the server draws and as a table.

const usage = (() => {
  /** Rows of the table at most: the last days, or the names with most questions. */
  const MOST = 200;
  const COLUMNS = ["questions", "answers", "failed", "tokens", "price", "likes", "dislikes", "meanSeconds"];
  const form = byId("usage-form");
  let may = () => false;
  let refused = () => {};
  /** The sums that are shown, and what was asked for. */
  let found = null;
  let asked = null;
  /** Number of the newest look; what an older one finds is ignored. */
  let search = 0;

  const filter = ({ by, since, until }) => ({ by, since, until });

  /** Return the prices of a sum in each currency; "–" where none is known. */
  function priceOf({ prices, questions: count, unknown_prices: unknown }) {
    const each = Object.entries(prices).map(([currency, price]) => `${Number(price.toPrecision(4))} ${currency}`.trim());
    return each.join(" · ") || (unknown < count ? "0" : "–");
  }

  function textsOf(one) {
    const figures = [one.questions, one.answers, one.failures, one.tokens].map((value) => (value === null ? "–" : number(value)));
    const mean = duration(one.questions ? one.seconds / one.questions : null);
    return [one[asked.by] ?? "–", ...figures, priceOf(one), number(one.likes), number(one.dislikes), mean];
  }

  function about() {
    if (!asked) return "";
    if (!found) return word("noUsage");
    const { since, until, groups, rows } = found;
    if (!groups) return word("usageNone", { since, until });
    if (rows.length === groups) return word("usageSpan", { since, until });
    return word("usageSome", { since, until, count: number(rows.length), total: number(groups) });
  }

  function draw() {
    const rows = found?.rows ?? [];
    byId("usage-place").hidden = byId("usage-chart").hidden = rows.length === 0;
    byId("usage-save").hidden = rows.length === 0 || !may("admin");
    put(byId("usage-about"), about());
    if (!rows.length) return;
    fillTable(byId("usage-table"), [asked.by, ...COLUMNS], rows.map(textsOf));
    drawChart();
  }

  /** Ask for the chart in the theme and the width of the page. */
  function drawChart() {
    const width = byId("usage-place").clientWidth;
    // A hidden view has no width; it is drawn again once it is looked at.
    if (!width) return;
    const image = byId("usage-chart");
    const dark = document.documentElement.dataset.theme === "dark";
    const source = api.usageChart({ ...filter(asked), of: asked.of, width: Math.min(2000, Math.max(240, width)), dark });
    if (image.getAttribute("src") !== source) image.src = source;
    image.alt = word("chartOf", { figure: word(asked.of === "failures" ? "failed" : asked.of), by: word(asked.by) });
  }

  /** Read the sums that the form asks for. */
  async function read() {
    const mine = ++search;
    const wanted = Object.fromEntries(new FormData(form));
    const sums = await api.usage({ ...filter(wanted), limit: MOST }).catch((failure) => {
      // Without a database there are none.
      if (!(failure instanceof Refused) || failure.status !== 404) throw failure;
      return null;
    });
    if (mine !== search) return;
    [found, asked] = [sums, wanted];
    draw();
  }

  const act = (work) => attempt(work, refused);

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(read);
  });
  for (const choice of form.querySelectorAll("select")) choice.addEventListener("change", () => act(read));
  byId("usage-save").addEventListener("click", () => act(() => api.saveUsage(filter(asked))));
  preferences.on("theme", draw);

  return {
    draw,
    /** Read the sums once; from then on the person asks. The chart follows the width of the page. */
    async look() {
      if (asked === null) await read();
      else draw();
    },
    /** Take what tells whether the person has a role, and what shows a failed request. */
    begin(parts) {
      ({ may, refused } = parts);
      form.reset();
      search += 1;
      [found, asked] = [null, null];
      byId("usage-table").replaceChildren();
      delete byId("usage-table").dataset.made;
      byId("usage-chart").removeAttribute("src");
      draw();
    },
  };
})();
