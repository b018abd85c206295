// Shared by the scripts of the realtime page: buttons, scrolling lists, notes and stages.

/** The stages of a session, in the order of a question. */
const STAGES = [
  "listening",
  "paused",
  "waiting_for_question",
  "analyzing",
  "instant_query",
  "querying_rag",
  "interrupting",
  "idle",
  "closed",
];

/** Tell screen readers what a button has done. */
function announce(text) {
  byId("announcer").textContent = text;
}

/** Return a button with a text of the page, and an icon. */
function pressed(key, act, shape = "") {
  const button = element("button", "quiet small");
  button.type = "button";
  button.append(...(shape ? [icon(shape)] : []), labelled("span", "", key));
  button.addEventListener("click", act);
  return button;
}

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

/** Return a key if the page has a text for it, otherwise the fallback. */
const oneOf = (key, fallback) => (word(key) ? key : fallback);

/** Show a text of the page between the turns. */
function note(key, className = "") {
  noted(labelled("p", `event ${className}`, key));
}

/** Show an error that belongs to no question. */
function noteError(frame) {
  const event = element("p", "event failure");
  event.error = frame;
  noted(event);
  drawErrors();
}

function noted(event) {
  follow(byId("talk"), () => byId("talk").append(event));
  prune(byId("talk"), TURNS);
}

/** Write the errors between the turns in the page's language. */
function drawErrors() {
  for (const event of document.querySelectorAll(".event.failure")) {
    if (event.error) event.textContent = sentenceOf(event.error);
  }
}

const stages = (() => {
  let current = "";

  for (const stage of STAGES) {
    const row = element("li");
    row.dataset.stage = stage;
    row.append(labelled("b", "", `stage_${stage}`), element("small"));
    byId("stages").append(row);
  }

  /** Show the stage of a status frame, with what is known of it. */
  function show({ stage, note: reason, question, confidence }) {
    current = stage;
    byId("stages").querySelector("[aria-current]")?.removeAttribute("aria-current");
    const row = [...byId("stages").children].find((one) => one.dataset.stage === stage);
    if (!row) return;
    row.setAttribute("aria-current", "step");
    const sure = typeof confidence === "number" ? `${Math.round(confidence * 100)}%` : "";
    const why = stage === "interrupting" ? word(`reason_${reason}`) : "";
    row.lastElementChild.textContent = [why, question, sure].filter(Boolean).join(" · ");
    draw();
  }

  function draw() {
    byId("stage-now").textContent = current && word(`stage_${current}`);
    byId("stage-now").dataset.stage = current;
  }

  return { show, draw };
})();
