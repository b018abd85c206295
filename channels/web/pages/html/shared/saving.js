// What a person takes along: a text that is copied, a file that is saved, and the buttons for both.

/** Milliseconds for which a copy is confirmed. */
const COPIED_MS = 2000;

/** Return a button with an icon, whose name changes with the language. */
function iconButton(name, key, act) {
  const made = element("button", `act ${key}`);
  made.type = "button";
  Object.assign(made.dataset, { label: key, hint: key });
  made.append(icon(name));
  made.ariaLabel = made.title = word(key);
  made.addEventListener("click", act);
  return made;
}

/** Copy a text; without the clipboard's API, which needs a secure origin, by a selection. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const place = Object.assign(element("textarea", "unseen"), { value: text });
    document.body.append(place);
    place.select();
    document.execCommand("copy");
    place.remove();
  }
}

/** Copy a text, and confirm it at its button. */
async function copyFrom(button, text) {
  await copyText(text);
  button.replaceChildren(icon("check"));
  announce(word("copied"));
  setTimeout(() => button.replaceChildren(icon("copy")), COPIED_MS);
}

/** Let the browser save Markdown as a file. */
function saveMarkdown(title, markdown) {
  const name = `${title.replace(/[\\/:*?"<>|\s]+/g, "-").slice(0, 60)}.md`;
  saveFile(name, new Blob([markdown], { type: "text/markdown;charset=utf-8" }));
}

/** Let the browser save a blob as a file. */
function saveFile(name, blob) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
