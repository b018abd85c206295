// The view Rules: whether each file of rules is in force, and whom a text that is not in force yet would meet.

const rules = (() => {
  const form = byId("check-form");
  let refused = () => {};
  let files = null;
  /** What the last check found, and of which setting. */
  let checked = null;
  let setting = "";
  /** Number of the newest check; what an older one finds is ignored. */
  let search = 0;

  function drawFiles() {
    const found = files ?? [];
    byId("files-none").hidden = files === null || found.length > 0;
    byId("files-place").hidden = found.length === 0;
    const texts = found.map((one) => [one.setting, one.file, word(one.in_force ? "inForce" : "brokenFile"), one.cause ?? "–"]);
    fillTable(byId("files"), ["setting", "file", "streamState", "cause"], texts);
  }

  const outcomeOf = (names) => names.map((name) => (setting === "ACCESS_FILE" ? word(name) ?? name : name)).join(" · ") || "–";

  function about() {
    if (!checked) return "";
    const { cause, tried, changed, words, masked } = checked;
    if (cause !== null) return word("isBroken", { cause });
    if (masked !== null) return word("isGoodWords", { count: number(words.length), masked: masked || "–" });
    return word("isGood", { tried: number(tried), changed: number(changed) });
  }

  function drawChecked() {
    put(byId("check-about"), about());
    const { people, words } = checked ?? { people: [], words: [] };
    byId("check-place").hidden = people.length + words.length === 0;
    if (words.length) {
      fillTable(byId("check-table"), ["line", "action", "pattern"], words.map((one) => [number(one.line), one.action, one.pattern]));
      return;
    }
    const texts = people.map((one) => [one.person, one.department ?? "–", one.bot, one.channel, number(one.questions), outcomeOf(one.now), outcomeOf(one.then)]);
    fillTable(byId("check-table"), ["person", "department", "bot", "channel", "questions", "nowRule", "thenRule"], texts);
  }

  function draw() {
    byId("sample-field").hidden = form.elements.setting.value !== "WORDS_FILE";
    drawFiles();
    drawChecked();
  }

  async function check() {
    const mine = ++search;
    const given = Object.fromEntries(new FormData(form));
    const found = await api.checkRules(given);
    if (mine !== search) return;
    [checked, setting] = [found, given.setting];
    drawChecked();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(check, refused);
  });
  form.elements.setting.addEventListener("change", () => {
    checked = null;
    draw();
  });

  return {
    draw,
    async look() {
      ({ files } = await api.rules());
      drawFiles();
    },
    /** Take what shows a failed request, and forget what another person has seen. */
    begin(parts) {
      ({ refused } = parts);
      form.reset();
      search += 1;
      [files, checked, setting] = [null, null, ""];
      draw();
    },
  };
})();
