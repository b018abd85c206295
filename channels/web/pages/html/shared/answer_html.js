// The only place where HTML is inserted into a page: answers, rendered and sanitized by the server. Code gets a line
// above it with its language and a button that copies it, a citation shows its source, thinking has its heading in the page's
// language, a picture is enlarged. `answer.css` has the looks.

const { showHtml } = (() => {
  const rules = { createHTML: (html) => html };
  const cleaned = globalThis.trustedTypes?.createPolicy("answers", rules) ?? rules;
  const LABELS = {
    zh: { copy: "复制代码", copied: "已复制", failed: "无法复制", thinking: "思考过程" },
    en: { copy: "Copy code", copied: "Copied", failed: "Could not copy", thinking: "Thinking" },
  };
  const COPIED_MS = 2000;

  const label = (key) => LABELS[document.documentElement.lang.startsWith("zh") ? "zh" : "en"][key];

  /** Replace the content of an element by a rendered answer, or a block of it. */
  function showHtml(place, html) {
    const opened = [...place.querySelectorAll("details")].map((one) => one.open);
    place.classList.add("rendered");
    place.innerHTML = cleaned.createHTML(html);
    // What a person has folded or unfolded stays so while the answer grows.
    place.querySelectorAll("details").forEach((one, index) => (one.open = opened[index] ?? one.open));
    for (const code of place.querySelectorAll("pre.code")) addBar(code);
    enlargePictures(place);
    // What scrolls sideways is reached by the keyboard.
    for (const wide of place.querySelectorAll("pre, table")) wide.tabIndex = 0;
    // Lists, quotes and tables have the direction of their first letter; CSS does it for paragraphs.
    for (const part of place.querySelectorAll("ul, ol, blockquote, table")) part.dir = "auto";
    relabel(place);
  }

  // A picture of another host that the gateway could not fetch leaves the words of its link.
  document.addEventListener("error", ({ target }) => target.matches?.("a.picture > img") && target.replaceWith(target.alt), true);

  function addBar(code) {
    const box = made("div", "code-box");
    const bar = made("div", "code-bar");
    const button = made("button", "code-copy");
    Object.assign(button, { type: "button", onclick: () => copy(code, button) });
    button.setAttribute("aria-live", "polite");
    bar.append(made("span", "", code.dataset.language ?? ""), button);
    code.replaceWith(box);
    box.append(bar, code);
  }

  async function copy(code, button) {
    const done = await copied(code);
    say(button, done ? "copied" : "failed");
    setTimeout(() => say(button, "copy"), COPIED_MS);
  }

  function say(button, key) {
    button.dataset.state = key;
    button.textContent = label(key);
  }

  /** Copy an element's text and return whether it was; without https there is only the old way, by a selection. */
  async function copied(code) {
    if (navigator.clipboard) return navigator.clipboard.writeText(code.textContent).then(() => true, () => false);
    getSelection().selectAllChildren(code);
    const done = document.execCommand("copy");
    getSelection().removeAllRanges();
    return done;
  }

  function made(tag, className, text = "") {
    return Object.assign(document.createElement(tag), { className, textContent: text });
  }

  function relabel(place) {
    for (const button of place.querySelectorAll(".code-copy")) say(button, button.dataset.state ?? "copy");
    for (const heading of place.querySelectorAll(".thinking > summary")) heading.textContent = label("thinking");
    wireCitations(place);
  }

  new MutationObserver(() => relabel(document)).observe(document.documentElement, { attributeFilter: ["lang"] });

  return { showHtml };
})();
