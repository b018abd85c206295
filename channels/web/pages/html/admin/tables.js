// Tables, and formats of numbers and times in the page's language.

const language = () => (preferences.locale === "zh" ? "zh-CN" : "en");

const number = (value) => Number(value).toLocaleString(language());

/** Format a time of the server, in the browser's time zone. */
const timeOf = (iso) => new Date(iso).toLocaleString(language(), { dateStyle: "short", timeStyle: "medium" });

/** Return what a form asks for: its times are those of this browser, and a box that is not checked is "". */
function filterOf(form) {
  const values = Object.fromEntries(new FormData(form));
  for (const name of ["since", "until"]) if (values[name]) values[name] = new Date(values[name]).toISOString();
  return { ...values, with_words: form.elements.with_words.checked ? "true" : "" };
}

/** Set an element's text if it differs, so that a selection in it stays. */
function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** Do what a person asked for; a failure is shown by `refused`, and a success ends what an earlier one said. */
async function attempt(work, refused) {
  try {
    await work();
    say("trouble");
  } catch (failure) {
    refused(failure);
  }
}

/** Format a duration; null is unknown. */
function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 90) return word("seconds", { n: Number(seconds.toFixed(seconds < 1 ? 2 : seconds < 10 ? 1 : 0)) });
  return word("minutes", { n: Math.round(seconds / 60) });
}

/** Format a number of bytes. */
function sizeOf(bytes) {
  return bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KB`;
}

/**
 * Show what was found in a table's body, in this order. `rows` are the rows that are shown, by their key: one that stays
 * keeps the focus of its buttons. `actsOf(key, one)` returns a new row's buttons, `textsOf(one)` the texts before them.
 */
function keepRows(body, rows, found, keyOf, actsOf, textsOf) {
  const keys = new Set(found.map(keyOf));
  for (const [key, row] of rows) {
    if (keys.has(key)) continue;
    row.remove();
    rows.delete(key);
  }
  let above = null;
  for (const one of found) {
    const key = keyOf(one);
    const texts = textsOf(one);
    const row = rows.get(key) ?? element("tr");
    if (!rows.has(key)) {
      row.append(...texts.map((_, place) => element(place ? "td" : "th")), element("td"));
      row.firstChild.scope = "row";
      row.lastChild.append(...actsOf(key, one));
      row.dataset.key = key;
      rows.set(key, row);
      if (above) above.after(row);
      else body.prepend(row);
    }
    above = row;
    texts.forEach((text, place) => put(row.children[place], text));
  }
}

/** Fill a table: `columns` are text keys, `rows` lists of texts; the first cell of a row is its heading. */
function fillTable(table, columns, rows) {
  const head = element("tr");
  for (const key of columns) {
    const cell = element("th", "", word(key));
    cell.scope = "col";
    head.append(cell);
  }
  const filledRows = rows.map((texts) => {
    const row = element("tr");
    row.append(...texts.map((text, place) => element(place ? "td" : "th", "", text)));
    row.firstChild.scope = "row";
    return row;
  });
  const parts = [element("thead"), element("tbody")];
  parts[0].append(head);
  parts[1].append(...filledRows);
  // Nothing is touched while nothing has changed: a reader may be in the middle of it.
  const made = parts.map((part) => part.textContent).join();
  if (table.dataset.made === made) return;
  table.dataset.made = made;
  table.replaceChildren(...parts);
}
