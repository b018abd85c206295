// The view Rules: what is in force, a text that is edited, whom it would meet, and its versions with a way back.

const rules = (() => {
  const SETTINGS = { access: "ACCESS_FILE", quotas: "QUOTAS_FILE", words: "WORDS_FILE" };
  const form = byId("check-form");
  const { kind: chosen, text: field, sample, note } = form.elements;
  let may = () => false;
  let refused = () => {};
  let found = null;
  /** The version from which the text was begun, and its text; null until it is there. */
  let begun = null;
  /** What the last check found, and of which kind and text. */
  let checked = null;
  /** The versions that are shown, the `cursor` of the page after them, and their rows. */
  let versions = [];
  let next = null;
  const rows = new Map();
  let compared = null;
  /** Number of the newest check and the newest kind; what an older one finds is ignored. */
  let search = 0;
  let turn = 0;

  const of = (kind) => found?.kinds.find((one) => one.kind === kind);
  const newest = () => of(chosen.value)?.version?.number ?? 0;
  const isEdited = () => field.value !== begun?.text;
  const canSave = () => of(chosen.value)?.kept_in === "database";

  // ---- what is in force ---------------------------------------------------------------------------------------------

  function stateOf({ version, in_force: number, cause }) {
    if (cause) return word("brokenRules", { cause });
    if (!version) return word("noneMade");
    return word(version.number === number ? "inForce" : "followsSoon");
  }

  function rowsOf(one) {
    const name = word(`kind_${one.kind}`);
    if (one.kept_in === "database") {
      const { version } = one;
      return [[name, word("keptHere"), version ? number(version.number) : "–", version?.saved_by ?? "–", version ? timeOf(version.saved_at) : "–", stateOf(one)]];
    }
    return found.files
      .filter((file) => file.setting === one.setting)
      .map((file) => [name, file.file, "–", "–", "–", file.in_force ? word("inForce") : word("brokenRules", { cause: file.cause })]);
  }

  function drawFound() {
    const texts = (found?.kinds ?? []).flatMap(rowsOf);
    byId("files-none").hidden = found === null || texts.length > 0;
    byId("files-place").hidden = texts.length === 0;
    fillTable(byId("files"), ["rulesKind", "kept", "version", "savedBy", "time", "streamState"], texts);
  }

  // ---- the text and its check -----------------------------------------------------------------------------------------

  const outcomeOf = (names) => names.map((name) => (checked.kind === "access" ? word(name) ?? name : name)).join(" · ") || "–";

  function about() {
    if (!checked) return "";
    const { cause, tried, changed, words, masked } = checked.found;
    if (cause !== null) return word("isBroken", { cause });
    if (masked !== null) return word("isGoodWords", { count: number(words.length), masked: masked || "–" });
    return word("isGood", { tried: number(tried), changed: number(changed) });
  }

  function drawChecked() {
    put(byId("check-about"), about());
    const { people, words } = checked?.found ?? { people: [], words: [] };
    byId("check-place").hidden = people.length + words.length === 0;
    if (words.length) {
      fillTable(byId("check-table"), ["line", "action", "pattern"], words.map((one) => [number(one.line), one.action, one.pattern]));
    } else {
      const texts = people.map((one) => [one.person, one.department ?? "–", one.bot, one.channel, number(one.questions), outcomeOf(one.now), outcomeOf(one.then)]);
      fillTable(byId("check-table"), ["person", "department", "bot", "channel", "questions", "nowRule", "thenRule"], texts);
    }
    drawSave();
  }

  /** The sentence about the text: where it comes from, or why it cannot be saved. */
  function origin() {
    const kind = of(chosen.value);
    if (!kind) return "";
    if (kind.kept_in !== "database") return word(`kept_${kind.kept_in}`, { setting: kind.setting });
    if (begun && begun.number !== newest()) return word("savedSince", { number: number(newest()), who: kind.version.saved_by });
    return newest() ? word("begunFrom", { number: number(newest()) }) : word("begunNew");
  }

  function drawSave() {
    const isGood = checked?.found.cause === null && checked.kind === chosen.value && checked.text === field.value;
    byId("rules-save").disabled = !(begun && isGood && isEdited());
    field.readOnly = begun === null;
    byId("rules-save").hidden = byId("note-field").hidden = byId("rules-reload").hidden = !canSave();
    byId("rules-reload").disabled = !(begun && (isEdited() || begun.number !== newest()));
    put(byId("rules-origin"), origin());
  }

  // ---- versions ---------------------------------------------------------------------------------------------------------

  function actsOf(_, { number: version }) {
    const made = [button("compare", () => compare(version))];
    if (version !== newest()) made.push(button("restore", () => restore(version)));
    return made;
  }

  function button(key, act) {
    const made = labelled("button", "", key);
    made.type = "button";
    made.addEventListener("click", () => attempt(act, refused));
    return made;
  }

  const noteOf = (one) => [one.restores === null ? "" : word("asVersion", { number: number(one.restores) }), one.note ?? ""].filter(Boolean).join(" · ") || "–";

  function drawVersions() {
    byId("versions-card").hidden = !may("admin") || versions.length === 0;
    byId("versions-older").hidden = next === null;
    const keyOf = (one) => `${chosen.value} ${one.number} ${one.number === newest()}`;
    const textsOf = (one) => [number(one.number), timeOf(one.saved_at), one.saved_by, noteOf(one)];
    keepRows(byId("versions"), rows, versions, keyOf, actsOf, textsOf);
  }

  async function readVersions(cursor = "") {
    const mine = turn;
    const page = await api.rulesVersions(chosen.value, { cursor, limit: 20 });
    if (mine !== turn) return;
    versions = [...(cursor ? versions : []), ...page.versions];
    next = page.next;
    drawVersions();
  }

  /** Take the newest version's text into the field, and list the versions. */
  async function begin() {
    const mine = ++turn;
    const number = newest();
    const text = number ? (await api.rulesText(chosen.value, number)).text : "";
    if (mine !== turn) return;
    begun = { number, text };
    field.value = text;
    checked = null;
    drawChecked();
    if (canSave()) await readVersions();
  }

  async function compare(version) {
    const [before, after] = await Promise.all([newest(), version].map((one) => api.rulesText(chosen.value, one)));
    compared = version;
    byId("difference-title").textContent = word("differenceTitle", { number: number(version), newest: number(newest()) });
    const lines = difference(linesOf(before), linesOf(after));
    byId("difference-text").replaceChildren(...(lines.length ? lines.map(lineOf) : [element("li", "soft", word("noDifference"))]));
    byId("difference-restore").hidden = version === newest();
    byId("difference").showModal();
  }

  const linesOf = ({ text }) => (text ? text.replace(/\r?\n$/, "").split(/\r?\n/) : []);

  function lineOf([sign, text]) {
    const line = element("li");
    if (sign === "…") return element("li", "soft", "…");
    line.dataset.sign = sign;
    line.append(element("span", "", sign), element("span", "", text));
    return line;
  }

  async function restore(version) {
    if (!(await confirmed("restore", { number: number(version) }))) return;
    await api.restoreRules(chosen.value, version);
    byId("difference").close();
    await look();
    await begin();
  }

  // ---- what a person does -------------------------------------------------------------------------------------------------

  async function check() {
    const mine = ++search;
    const given = { kind: chosen.value, text: field.value };
    const setting = SETTINGS[given.kind];
    const result = await api.checkRules({ setting, text: given.text, sample: sample.value });
    if (mine !== search) return;
    checked = { ...given, found: result };
    drawChecked();
  }

  async function save() {
    const kind = chosen.value;
    try {
      await api.saveRules(kind, { text: field.value, base: begun.number, note: note.value.trim() || null });
    } catch (failure) {
      // Beside the button too: what the page says of failed requests may be out of sight.
      put(byId("check-about"), word(failure.reason) ?? "");
      throw failure;
    }
    note.value = "";
    await look();
    await begin();
    put(byId("check-about"), word("isSaved"));
  }

  async function look() {
    const mine = turn;
    const before = newest();
    found = await api.rules();
    drawFound();
    if (!may("admin") || mine !== turn) return;
    // A text that somebody is editing stays, whatever others have saved.
    if (begun === null || (!isEdited() && newest() !== begun.number)) await begin();
    else if (newest() !== before) await readVersions();
    drawSave();
  }

  const act = (work) => attempt(work, refused);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(check);
  });
  field.addEventListener("input", drawSave);
  byId("rules-save").addEventListener("click", () => act(save));
  byId("rules-reload").addEventListener("click", () => act(begin));
  byId("versions-older").addEventListener("click", () => act(() => readVersions(next)));
  byId("difference-close").addEventListener("click", () => byId("difference").close());
  byId("difference-restore").addEventListener("click", () => act(() => restore(compared)));
  chosen.addEventListener("change", () => {
    [begun, checked, versions, next] = [null, null, [], null];
    field.value = "";
    draw();
    act(begin);
  });

  function draw() {
    byId("sample-field").hidden = chosen.value !== "words";
    drawFound();
    drawChecked();
    drawVersions();
  }

  return {
    draw,
    look,
    /** Take what tells whether the person has a role, and what shows a failed request; forget the person before. */
    begin(parts) {
      ({ may, refused } = parts);
      form.reset();
      search += 1;
      turn += 1;
      [found, begun, checked, versions, next] = [null, null, null, [], null];
      draw();
    },
  };
})();

/** Return the lines that differ between two texts, each as its sign and itself, with two lines around them. */
function difference(before, after) {
  const AROUND = 2;
  const MOST = 1_000_000;
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < Math.min(before.length, after.length) - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  const [old, fresh] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  const lines = [
    ...before.slice(0, start).map((text) => [" ", text]),
    ...(old.length * fresh.length > MOST ? [...old.map((text) => ["−", text]), ...fresh.map((text) => ["+", text])] : aligned(old, fresh)),
    ...before.slice(before.length - end).map((text) => [" ", text]),
  ];
  const isNear = lines.map(() => false);
  lines.forEach(([sign], at) => {
    if (sign !== " ") isNear.fill(true, Math.max(0, at - AROUND), at + AROUND + 1);
  });
  if (!isNear.includes(true)) return [];
  return lines.flatMap((line, at) => (isNear[at] ? [line] : at === 0 || isNear[at - 1] ? [["…", ""]] : []));
}

/** Align two lists of lines by their longest common subsequence. */
function aligned(old, fresh) {
  const width = fresh.length + 1;
  const lengths = new Uint32Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1)
    for (let j = fresh.length - 1; j >= 0; j -= 1)
      lengths[i * width + j] = old[i] === fresh[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
  const lines = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      lines.push([" ", old[i]]);
      i += 1;
      j += 1;
    } else if (j === fresh.length || (i < old.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) lines.push(["−", old[i++]]);
    else lines.push(["+", fresh[j++]]);
  }
  return lines;
}
