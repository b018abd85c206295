// The view Today: what is wrong now, the day's figures beside those of a week ago, replicas, and dependencies.

const today = (() => {
  /** The last overview. */
  let shown = null;

  const partOf = (name) => {
    const [kind, bot] = name.split(/:(.*)/);
    const words = word(`part_${kind}`) ?? kind;
    return bot ? word("ofBot", { part: words, bot }) : words;
  };

  /** Return the state of a dependency in the page's language; other faults are the server's words. */
  const stateOf = (state) => word(`is_${state.replaceAll(" ", "_")}`) ?? state;

  function problem({ name, cause, remedy, remedy_zh: chinese }) {
    const made = element("li");
    const title = element("strong", "", word("problem", { part: partOf(name), state: stateOf(cause === "unavailable" ? cause : "fails") }));
    const details = cause === "unavailable" ? [] : [element("p", "", cause)];
    const mend = element("p");
    // What a database says is English.
    for (const one of details) one.lang = "en";
    mend.textContent = `${word("remedy")} ${preferences.locale === "zh" ? chinese : remedy}`;
    made.append(title, ...details, mend);
    return made;
  }

  function drawProblems({ problems }) {
    const place = byId("problems");
    byId("fine").hidden = problems.length > 0;
    const made = JSON.stringify([problems, preferences.locale]);
    if (place.dataset.made === made) return;
    place.dataset.made = made;
    place.replaceChildren(...problems.map(problem));
  }

  const failed = (day) => Object.values(day.failures).reduce((sum, count) => sum + count, 0);

  function prices(day) {
    const each = Object.entries(day.prices).map(([currency, price]) => `${Number(price.toPrecision(4))} ${currency}`.trim());
    return each.join(" · ") || "0";
  }

  function figures({ today: now, last_week: week, in_progress: running }) {
    const rows = [["inProgress", running === null ? "–" : number(running), ""]];
    if (!now) return rows;
    const pair = (key, of) => [key, of(now), of(week)];
    return [
      pair("questions", (day) => number(day.questions)),
      // Visitors without a name are not counted: "0 people" beside their questions would look like a fault.
      pair("people", (day) => (day.people || !day.questions ? number(day.people) : "–")),
      ...rows,
      pair("median", (day) => duration(day.first_text_median)),
      pair("p95", (day) => duration(day.first_text_p95)),
      pair("failed", (day) => number(failed(day))),
      pair("price", prices),
      pair("dislikes", (day) => number(day.dislikes)),
    ];
  }

  function drawFigures(found) {
    const tiles = figures(found).map(([key, now, week]) => {
      const tile = element("div");
      tile.append(element("dt", "", word(key)), element("dd", "", now));
      if (week) tile.append(element("dd", "", word("before", { figure: week })));
      return tile;
    });
    byId("figures").replaceChildren(...tiles);
    byId("no-figures").hidden = !found.figures_missing;
    put(byId("no-figures"), found.figures_missing ? word(`missing_${found.figures_missing}`) : "");
    put(byId("compared"), found.today ? word("compared", { day: found.last_week.day, zone: found.zone }) : "");
    drawFailures(found.today, found.last_week);
  }

  function drawFailures(now, week) {
    const codes = now ? [...new Set([...Object.keys(now.failures), ...Object.keys(week.failures)])].sort() : [];
    byId("failures-place").hidden = codes.length === 0;
    const rows = codes.map((code) => [code, number(now.failures[code] ?? 0), number(week.failures[code] ?? 0)]);
    fillTable(byId("failures"), ["failure", "today", "weekAgo"], rows);
  }

  function drawReplicas({ replicas }) {
    const rows = replicas.map((one) => [one.name, word(one.draining ? "leaving" : "serving"), `${number(one.answers)} / ${number(one.capacity)}`, one.version, timeOf(one.since)]);
    fillTable(byId("replicas"), ["replica", "replicaState", "load", "version", "started"], rows);
  }

  function drawParts({ dependencies, long_connections: connections }) {
    const tags = Object.entries(dependencies).map(([name, state]) => {
      const made = element("li", "tag", word("pair", { name: partOf(name), value: stateOf(state) }));
      if (state !== "not configured") made.dataset.good = state === "ok" ? "yes" : "no";
      return made;
    });
    byId("parts").replaceChildren(...tags);
    byId("connections-place").hidden = connections.length === 0;
    const yes = (is) => word(is ? "yes" : "no");
    const rows = connections.map((one) => [one.bot, one.holder ?? "–", yes(one.subscribed), yes(one.stands_by)]);
    fillTable(byId("connections"), ["bot", "holder", "subscribed", "standsBy"], rows);
  }

  async function testAlert() {
    byId("test-alert").disabled = true;
    say("alert-tested");
    try {
      await api.testAlert();
      say("alert-tested", () => word("alertTested"));
    } catch (failure) {
      if (!(failure instanceof Refused)) throw failure;
      say("alert-tested", () => word(failure.status === 502 ? "alertNotTaken" : "alertFailed"));
    } finally {
      byId("test-alert").disabled = false;
    }
  }

  function draw() {
    if (!shown) return;
    drawProblems(shown);
    drawFigures(shown);
    drawReplicas(shown);
    drawParts(shown);
    byId("alerts").hidden = !shown.alerts;
  }

  byId("test-alert").addEventListener("click", testAlert);

  return {
    draw,
    async look() {
      shown = await api.overview();
      draw();
    },
    begin() {
      shown = null;
    },
  };
})();
