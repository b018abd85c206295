// Shared by the scripts of the realtime page: elements, texts in the current language, notes and stages.

const root = document.documentElement;

let language = root.dataset.locale === "en" ? "en" : "zh";
let stage = "";

const word = (key) => WORDS[language][key];

/** Run a change, and keep the list scrolled to its end unless the reader has scrolled up. */
function follow(box, change) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** Remove the oldest children of a list beyond `most`. */
function prune(box, most) {
  while (box.childElementCount > most) box.firstElementChild.remove();
}

function note(text, className = "") {
  follow(byId("talk"), () => byId("talk").append(element("p", `event ${className}`, text)));
  prune(byId("talk"), TURNS);
}

function makeStages() {
  for (const name of Object.keys(WORDS.zh.stage)) {
    const row = element("li");
    row.dataset.stage = name;
    row.append(element("b"), element("small"));
    byId("stages").append(row);
  }
}

function showStage(frame) {
  stage = frame.stage;
  byId("stages").querySelector("[aria-current]")?.removeAttribute("aria-current");
  const row = byId("stages").querySelector(`[data-stage="${CSS.escape(stage)}"]`);
  if (!row) return;
  row.setAttribute("aria-current", "step");
  const sure = typeof frame.confidence === "number" ? ` · ${Math.round(frame.confidence * 100)}%` : "";
  row.lastElementChild.textContent = (word("reasons")[frame.note] ?? frame.note ?? "") + sure;
  sayStage();
}

function sayStage() {
  byId("stage-now").textContent = stage && `${word("stages")}: ${word("stage")[stage] ?? stage}`;
}
