// Helpers of all pages: elements and ids. `labelled` uses the page's own `word`.

const byId = (id) => document.getElementById(id);

/** Return an element with a class and a text; the text is never parsed as HTML. */
function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Return an element whose text changes with the language. */
function labelled(tag, className, key) {
  const made = element(tag, className, word(key));
  made.dataset.t = key;
  return made;
}

/** Return a random id; crypto.randomUUID exists on secure origins only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return an icon of shared/icons.html. */
function icon(name) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  made.append(use);
  return made;
}
