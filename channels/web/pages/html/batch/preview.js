// Shows the first rows of a chosen file, and lets the user choose the columns before anything is submitted.

const filePreview = (() => {
  let file = null;
  let found = null;
  let failure = null;
  /** The columns that the user has chosen by the ids of their fields; the others are the server's guess. */
  let choice = {};
  let round = 0;
  let changed = () => {};

  /** Take a file, or null for none; `onChange` is called with each change of what would be submitted. */
  function take(chosen, onChange) {
    changed = onChange;
    file = chosen;
    found = failure = null;
    choice = {};
    byId("encoding").value = "auto";
    byId("sheet").replaceChildren();
    if (file) return load(new FormData());
    round += 1;
    return draw();
  }

  /** Let the server read the file with these options; "" and missing ones are found by the server. */
  async function load(form) {
    const mine = ++round;
    form.append("file", file, file.name);
    byId("reading").hidden = false;
    byId("start").disabled = true;
    try {
      const read = await api.preview(form);
      if (mine !== round) return;
      [found, failure] = [read, null];
    } catch (refused) {
      if (mine !== round) return;
      if (!(refused instanceof Refused)) throw refused;
      [found, failure] = [null, refused];
    }
    byId("reading").hidden = true;
    draw();
  }

  /** Read the file again with other options, because its names and columns depend on them. */
  function again({ sheetChanged = false } = {}) {
    if (sheetChanged) choice = {};
    const form = new FormData();
    form.append("encoding", byId("encoding").value);
    if (byId("sheet").value) form.append("sheet", byId("sheet").value);
    if (!sheetChanged && found) form.append("header", byId("header").checked ? "yes" : "no");
    return load(form);
  }

  function draw() {
    byId("preview").hidden = !file;
    byId("typing").hidden = byId("drop").hidden = Boolean(file);
    if (file) drawFile();
    changed();
  }

  function drawFile() {
    byId("file-name").textContent = file.name;
    byId("file-size").textContent = sizeOf(file.size);
    const { columns = [], sheets = [] } = found ?? {};
    byId("sheet-field").hidden = sheets.length < 2;
    byId("column-field").hidden = byId("id-column-field").hidden = columns.length < 2;
    byId("header-field").hidden = !found || !isTable();
    byId("encoding-field").hidden = (!found && !failure) || /\.xlsx$/i.test(file.name);
    byId("sample").hidden = byId("rows-count").hidden = !found;
    if (found) drawFound();
  }

  function drawFound() {
    options("sheet", found.sheets.map((name) => [name, name]), found.sheet);
    options("column", columnNames(), choice.column ?? found.column ?? "");
    options("id-column", columnNames(), choice["id-column"] ?? found.id_column ?? "");
    byId("header").checked = found.header;
    drawTable();
  }

  function drawTable() {
    const words = ready() ? wordFor("rowsCount", found.rows) : word(found.rows ? "columnNeeded" : "why_no_texts");
    byId("rows-count").textContent = words;
    byId("sample").replaceChildren(table());
  }

  /** Whether the file may have a header and several columns. */
  const isTable = () => !/\.txt$/i.test(file.name);

  /** Fill a choice with [value, text] pairs; the first one of a column means that none is chosen. */
  function options(id, pairs, chosen) {
    const none = { column: "chooseColumn", "id-column": "noColumn" }[id];
    const first = none ? [Object.assign(labelled("option", "", none), { value: "" })] : [];
    const rest = pairs.map(([value, text]) => Object.assign(element("option", "", text), { value }));
    byId(id).replaceChildren(...first, ...rest);
    byId(id).value = String(chosen);
  }

  const columnNames = () => found.columns.map((column) => [column.index, nameOf(column)]);

  /** Return a column's name; one without a name in the header has its number there. */
  function nameOf({ index, name }) {
    return name === String(index) ? word("columnNumber", { number: index }) : name;
  }

  function table() {
    const made = element("table", "sample");
    const head = made.createTHead().insertRow();
    const length = Math.max(0, ...found.columns.map(({ samples }) => samples.length));
    const body = made.createTBody();
    const rows = Array.from({ length }, () => body.insertRow());
    for (const column of found.columns) {
      const role = roleOf(column);
      head.append(headOf(column, role));
      rows.forEach((row, place) => {
        const cell = row.insertCell();
        cell.textContent = column.samples[place] ?? "";
        cell.className = role;
      });
    }
    return made;
  }

  function headOf(column, role) {
    const cell = Object.assign(element("th", role, nameOf(column)), { scope: "col" });
    if (role) cell.append(labelled("span", "tag", role === "asked" ? "question" : "ownId"));
    return cell;
  }

  /** Return "asked" for the question column, "own" for the id column, "" for the others. */
  function roleOf({ index }) {
    if (String(index) === columnChosen()) return "asked";
    return String(index) === byId("id-column").value ? "own" : "";
  }

  const columnChosen = () => (found.columns.length > 1 ? byId("column").value : String(found.columns[0]?.index ?? ""));

  /** Whether the file was read, has rows, and its question column is known. */
  function ready() {
    return Boolean(found?.rows) && columnChosen() !== "";
  }

  /** Add the file and the choices to the form of a submission. */
  function addTo(form) {
    form.append("file", file, file.name);
    form.append("encoding", byId("encoding").value);
    if (byId("sheet").value) form.append("sheet", byId("sheet").value);
    if (!isTable()) return;
    form.append("header", byId("header").checked ? "yes" : "no");
    form.append("column", columnChosen());
    const own = byId("id-column").value;
    if (own !== "" && found.columns.length > 1) form.append("id_column", own);
  }

  byId("sheet").addEventListener("change", () => again({ sheetChanged: true }));
  for (const id of ["header", "encoding"]) byId(id).addEventListener("change", () => again());
  for (const id of ["column", "id-column"]) {
    byId(id).addEventListener("change", ({ target }) => {
      choice[id] = target.value;
      drawTable();
      changed();
    });
  }

  return {
    take,
    addTo,
    /** Show the chosen file in the page's present language. */
    relabel: () => file && drawFile(),
    ready,
    get file() {
      return file;
    },
    get rows() {
      return found?.rows ?? 0;
    },
    get failure() {
      return failure;
    },
  };
})();
