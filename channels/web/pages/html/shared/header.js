// The header of all pages: the switches for language and theme, and the state of the connection.

const header = (() => {
  const THEMES = ["auto", "light", "dark"];
  let state = "connecting";
  let until = 0;
  let ticking = 0;

  function stateWords() {
    const seconds = Math.ceil((until - performance.now()) / 1000);
    if (state !== "waiting") return word(`state_${state}`);
    return seconds > 0 ? word("state_waiting", { seconds }) : word("state_connecting");
  }

  function drawState() {
    byId("state").dataset.state = state;
    byId("state").textContent = stateWords();
  }

  /** Show the state of the connection, with the seconds until the next try; screen readers hear each change once. */
  function showState(now, seconds = 0) {
    clearInterval(ticking);
    const isNew = now !== state;
    state = now;
    until = performance.now() + seconds * 1000;
    drawState();
    if (state === "waiting") ticking = setInterval(drawState, 1000);
    if (isNew && state !== "connecting") byId("state-announcement").textContent = stateWords();
  }

  function drawTheme() {
    const words = word(`theme_${preferences.theme}`);
    byId("theme").title = words;
    byId("theme").setAttribute("aria-label", words);
    byId("theme").replaceChildren(icon(preferences.theme));
  }

  /** Draw what depends on the language and is no fixed text. */
  function draw() {
    byId("language").lang = preferences.locale === "zh" ? "en" : "zh-CN";
    byId("state-announcement").textContent = "";
    drawTheme();
    drawState();
  }

  byId("language").addEventListener("click", () => (preferences.locale = preferences.locale === "zh" ? "en" : "zh"));
  byId("theme").addEventListener("click", () => {
    preferences.theme = THEMES[(THEMES.indexOf(preferences.theme) + 1) % THEMES.length];
  });
  preferences.on("theme", drawTheme);

  return { draw, showState };
})();
