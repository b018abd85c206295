// What a person has chosen on any of the pages: language, theme and API key. It runs in the head of each page, so that
// the first paint has the theme. Language and theme are stored for all pages; the key for this tab or this device.

const preferences = (() => {
  const KEY = "wechatlaibao.key";
  const LOCALE = "wechatlaibao.locale";
  const THEME = "wechatlaibao.theme";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const listeners = { locale: [], theme: [], key: [] };

  /** Return a stored text, "" for none; a browser may refuse access to the storage. */
  function read(storage, name) {
    try {
      return globalThis[storage].getItem(name) ?? "";
    } catch {
      return "";
    }
  }

  /** Store a text; "" removes it. */
  function write(storage, name, text) {
    try {
      if (text) globalThis[storage].setItem(name, text);
      else globalThis[storage].removeItem(name);
    } catch {
      // Without storage the choice lasts until the page is closed.
    }
  }

  /** Return the first of the browser's languages that the pages have, else the server's. */
  function visitorsLocale() {
    const languages = navigator.languages.map((language) => language.slice(0, 2).toLowerCase());
    return languages.find((language) => ["zh", "en"].includes(language)) ?? root.dataset.locale;
  }

  /** Return the stored choices; the language is the browser's until one is chosen. */
  function stored() {
    const locale = read("localStorage", LOCALE) || visitorsLocale();
    const theme = read("localStorage", THEME);
    return {
      key: read("sessionStorage", KEY) || read("localStorage", KEY),
      locale: locale === "en" ? "en" : "zh",
      theme: ["light", "dark"].includes(theme) ? theme : "auto",
    };
  }

  const chosen = stored();

  /** Set the page's theme in `<html data-theme>`, which is light or dark. */
  function applyTheme() {
    root.dataset.theme = chosen.theme === "auto" ? (dark.matches ? "dark" : "light") : chosen.theme;
  }

  function tell(name) {
    if (name === "theme") applyTheme();
    for (const listener of listeners[name]) listener(chosen[name]);
  }

  function change(name, value) {
    if (chosen[name] === value) return;
    chosen[name] = value;
    tell(name);
  }

  applyTheme();
  dark.addEventListener("change", () => tell("theme"));
  addEventListener("storage", ({ storageArea, key }) => {
    // Without a key, the whole storage was cleared.
    if (storageArea !== globalThis.localStorage || ![KEY, LOCALE, THEME, null].includes(key)) return;
    for (const [name, value] of Object.entries(stored())) change(name, value);
  });

  return {
    /** "zh" or "en". */
    get locale() {
      return chosen.locale;
    },
    set locale(locale) {
      write("localStorage", LOCALE, locale);
      change("locale", locale);
    },

    /** "auto", "light" or "dark". */
    get theme() {
      return chosen.theme;
    },
    set theme(theme) {
      write("localStorage", THEME, theme);
      change("theme", theme);
    },

    /** The API key, "" for none. */
    get key() {
      return chosen.key;
    },

    /** Remember a key for this "tab" or this "device"; the key "" is forgotten by both. */
    keep(key, remember = "tab") {
      write("sessionStorage", KEY, remember === "tab" ? key : "");
      write("localStorage", KEY, remember === "device" ? key : "");
      change("key", key);
    },

    /**
     * Call a function with each new value of "locale", "theme" or "key", also of one chosen in another tab; for "theme"
     * also when the system's has changed.
     */
    on(name, listener) {
      listeners[name].push(listener);
    },
  };
})();
