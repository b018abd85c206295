// The texts that all pages have, and the functions that fill in texts. A page's own texts are in its WORDS.

const SHARED_WORDS = {
  zh: {
    pages: "页面",
    nav_chat: "对话",
    nav_realtime: "实时",
    nav_batch: "批量",
    nav_docs: "文档",
    home: "首页",
    other_language: "English",
    theme_auto: "主题：跟随系统",
    theme_light: "主题：浅色",
    theme_dark: "主题：深色",
    state_connecting: "连接中…",
    state_open: "已连接",
    state_waiting: "连接断开，{seconds} 秒后重连",
    state_auth: "需要密钥",
    state_closed: "已断开",
    key_manage: "API 密钥",
    key_title: "请输入密钥",
    key_note: "密钥由管理员提供，只发送给这个服务。",
    key_label: "密钥",
    key_wrong: "密钥无效或已过期，请检查后重试。",
    key_remember: "记住密钥",
    key_tab: "只在这个标签页里",
    key_device: "在这台设备上",
    key_forget: "忘记密钥",
    key_enter: "进入",
    key_cancel: "取消",
    confirm_no: "不，保留",
    copied: "已复制",
  },
  en: {
    pages: "Pages",
    nav_chat: "Chat",
    nav_realtime: "Live",
    nav_batch: "Batches",
    nav_docs: "Docs",
    home: "Home",
    other_language: "中文",
    theme_auto: "Theme: as the system",
    theme_light: "Theme: light",
    theme_dark: "Theme: dark",
    state_connecting: "Connecting…",
    state_open: "Connected",
    state_waiting: "Cut off, trying again in {seconds} s",
    state_auth: "A key is needed",
    state_closed: "Disconnected",
    key_manage: "API key",
    key_title: "Please enter your key",
    key_note: "An administrator gives you the key; it is sent to this service only.",
    key_label: "Key",
    key_wrong: "The key is wrong or has expired. Please check it and try again.",
    key_remember: "Remember the key",
    key_tab: "in this tab only",
    key_device: "on this device",
    key_forget: "Forget the key",
    key_enter: "Enter",
    key_cancel: "Cancel",
    confirm_no: "No, keep it",
    copied: "Copied",
  },
};

/** Return a text with its gaps, such as {name}, filled; a gap without a value stays. */
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (gap, name) => String(values[name] ?? gap));

/** Return the text of a key in the page's language, with `params` inserted. A page's own text is preferred. */
function word(key, params = {}) {
  const text = WORDS[preferences.locale][key] ?? SHARED_WORDS[preferences.locale][key];
  return typeof text === "string" ? filled(text, params) : text;
}

/** The words that `say` has shown, by the element's id. */
const shownWords = {};

/** Show what `words()` returns in the element `id`, and again when the language changes; "" hides it. */
function say(id, words = () => "") {
  const text = words();
  shownWords[id] = words;
  byId(id).hidden = !text;
  // A screen reader would say the same text again.
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

/** Fill in the text, label, tooltip or placeholder of every element with a text key, and the title of the page. */
function relabel() {
  const root = document.documentElement;
  root.lang = preferences.locale === "zh" ? "zh-CN" : "en";
  document.title = `${root.dataset.app} · ${word("title")}`;
  for (const one of document.querySelectorAll("[data-t]")) one.textContent = one.dataset.t && word(one.dataset.t);
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
  for (const one of document.querySelectorAll("[data-hint]")) one.title = word(one.dataset.hint);
  for (const one of document.querySelectorAll("[data-empty]")) one.placeholder = word(one.dataset.empty);
  for (const [id, words] of Object.entries(shownWords)) say(id, words);
  header.draw();
}

/**
 * Return the sentence of an error in the page's language: of a frame of a socket (`code`, `detail`, `content` or
 * `message`) or of a REST answer (`reason`, `message`). The server's sentence is in the server's language; the other
 * one is found by its code, or by its template if it has gaps. Without a code there is no sentence for people: "".
 * What the realtime socket puts around a sentence is left out.
 */
function sentenceOf(error) {
  const codes = [error.detail, error.code, error.reason].filter((code) => code && typeof code === "string");
  const said = (codes.length && (error.content ?? error.message)) || "";
  const sentence = valuesIn(said, SENTENCES.around)?.sentence ?? said;
  if (!sentence || preferences.locale === document.documentElement.dataset.locale) return sentence;
  const known = codes.map((code) => SENTENCES.codes[code.toLowerCase()]).find(Boolean);
  return known ?? translated(sentence);
}

/** Return a sentence of the server in the other language by its template, what fills its gaps too; others stay. */
function translated(sentence) {
  for (const [template, translation] of SENTENCES.templates) {
    const values = valuesIn(sentence, template);
    if (values) return filled(translation, values);
  }
  return sentence;
}

/** Return what fills the gaps of a template in a sentence, by name; null for a sentence of another template. */
function valuesIn(sentence, template) {
  // Fixed texts and names of gaps in turn.
  const parts = template.split(/\{(\w+)\}/);
  const pattern = parts.map((part, place) => (place % 2 ? "(.*?)" : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")));
  const found = new RegExp(`^${pattern.join("")}$`, "s").exec(sentence);
  return found && Object.fromEntries(found.slice(1).map((value, gap) => [parts[2 * gap + 1], translated(value)]));
}
