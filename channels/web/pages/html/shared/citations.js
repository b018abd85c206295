// The numbers in an answer that name its sources. The cited passage is shown beside its number under the pointer, with
// the focus, or by a tap; a click leads to the source below the answer. `answer.css` has the looks.

const { wireCitations } = (() => {
  const LABELS = { zh: "来源", en: "Source" };
  /** Milliseconds until the passage is shown under the pointer, and for which it stays when the pointer has left. */
  const SHOW_MS = 100;
  const STAY_MS = 250;
  /** Pixels between number and passage, and between the passage and the window's edge. */
  const GAP = 8;

  const card = element("div", "cite-card");
  /** The number whose passage is shown. */
  let shown = null;
  let timer = 0;
  Object.assign(card, { id: "cite-card", hidden: true, onpointerenter: () => clearTimeout(timer), onpointerleave: () => later(hide, STAY_MS) });
  card.setAttribute("role", "tooltip");
  document.body.append(card);

  function later(act, milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  }

  /** Return the item of a citation's number in the answer's list of sources, null without one. */
  function sourceOf(chip) {
    let around = chip.closest(".rendered");
    while (!around.matches("ol, main, body") && !around.querySelector(".sources li")) around = around.parentElement;
    return around.matches("ol, main, body") ? null : (around.querySelectorAll(".sources li")[Number(chip.textContent) - 1] ?? null);
  }

  function show(chip) {
    const source = sourceOf(chip);
    clearTimeout(timer);
    if (!source || shown === chip) return;
    hide();
    card.replaceChildren(source.firstChild.cloneNode(true));
    // The keyboard reaches the link in the list of sources.
    if (card.firstChild.href) card.firstChild.tabIndex = -1;
    if (source.dataset.passage) card.append(element("q", "", source.dataset.passage));
    card.hidden = false;
    shown = chip;
    chip.setAttribute("aria-describedby", card.id);
    place(chip);
  }

  /** Place the passage above its number, or below where there is no room; hide it where the number is out of view. */
  function place(chip) {
    const { left, width, top, bottom } = chip.getBoundingClientRect();
    if (bottom < 0 || top > innerHeight) return hide();
    const above = top - card.offsetHeight - GAP;
    const middle = left + width / 2 - card.offsetWidth / 2;
    card.style.left = `${Math.max(GAP, Math.min(middle, innerWidth - card.offsetWidth - GAP))}px`;
    card.style.top = `${above < GAP ? bottom + GAP : above}px`;
  }

  function hide() {
    clearTimeout(timer);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  }

  /** A tap shows the passage, the next one hides it; other clicks show the source in its list. */
  function click(event, chip) {
    event.preventDefault();
    if (!chip.dataset.tapped) return lead(chip);
    delete chip.dataset.tapped;
    return shown === chip ? hide() : show(chip);
  }

  function lead(chip) {
    const source = sourceOf(chip);
    if (!source) return;
    const folded = source.closest("details");
    if (folded) folded.open = true;
    hide();
    source.tabIndex = -1;
    source.focus();
    source.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("pointerdown", ({ target }) => shown && !shown.contains(target) && !card.contains(target) && hide());
  document.addEventListener("scroll", ({ target }) => shown && target !== card && place(shown), { capture: true, passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !shown) return;
    // It hides the passage only, and stops no answer.
    event.stopPropagation();
    hide();
  });

  /** Make the citations of an element show their passages, and name them in the page's language. */
  function wireCitations(place) {
    if (shown && !shown.isConnected) hide();
    for (const chip of place.querySelectorAll(".cite a")) {
      const isMouse = ({ pointerType }) => pointerType === "mouse";
      chip.onpointerenter = (event) => isMouse(event) && later(() => show(chip), SHOW_MS);
      chip.onpointerleave = (event) => isMouse(event) && later(hide, STAY_MS);
      chip.onpointerdown = (event) => (isMouse(event) ? delete chip.dataset.tapped : (chip.dataset.tapped = "yes"));
      chip.onfocus = () => chip.matches(":focus-visible") && show(chip);
      chip.onblur = () => later(hide, STAY_MS);
      chip.onclick = (event) => click(event, chip);
      chip.ariaLabel = `${LABELS[document.documentElement.lang.startsWith("zh") ? "zh" : "en"]} ${chip.textContent}`;
    }
  }

  return { wireCitations };
})();
