"use strict";

// WeCom polls about once a second, for six minutes at most.
const POLL_MS = 1000;
const POLL_LIMIT_MS = 360_000;
const FAILURES_BEFORE_GIVING_UP = 5;
const ROWS_SHOWN = 60;

const WORDS = {
  zh: {
    theme_auto: "主题：跟随系统",
    theme_light: "主题：浅色",
    theme_dark: "主题：深色",
    lead: "这一页扮演企业微信：加密、回调、每秒轮询一次，都和真的一样。",
    leadSocket: "这一页扮演企业微信的长连接：网关自己连上来，回答一帧帧推过来，不需要公网地址。",
    people: "你是谁",
    modes: "Dify 的表现",
    real: "回答来自真实的 Dify 应用。",
    bot: "来宝助手",
    simulated: "机器人 · 模拟的企业微信",
    chat: "聊天记录",
    question: "输入问题，按回车发送",
    send: "发送",
    frames: "收到的帧",
    framesNote: "每一次回调的回复，最新的在上面。",
    colQuestion: "问题",
    colAt: "第几秒",
    colBytes: "字节",
    colMs: "毫秒",
    writing: "回答中",
    finished: "已结束",
    picture: "回答中的图片",
    joined: "进入了会话",
    seconds: "秒",
    framesUnit: "帧",
    late: "后续消息（response_url）",
    further: "后续消息",
    pushed: "主动推送",
    push: "推送",
    reminder: "**提醒**：下午三点开会。",
    framesNoteSocket: "气泡每秒的样子，最新的在上面。",
    gaveUp: "六分钟到了，企业微信不再轮询。",
    refused: "网关拒绝了回调",
    unreachable: "网关没有应答",
    rule_broken: "网关的回复不合企业微信的规则",
    bad_request: "请求不正确",
    offline: "演示程序已经停止",
    media: "发送其他消息",
    kinds: { photo: "图片", file: "文件", video: "视频", voice: "语音", quote: "引用图片" },
    card: "卡片",
    clip: "视频.mp4",
    spoken: "（语音）年假怎么申请",
    sheet: "年假天数.csv",
    quoted: "引用：这是去年的统计",
    suggestions: ["年假怎么申请", "报销需要哪些材料", "我是谁", "新对话", "停止", "帮助"],
  },
  en: {
    theme_auto: "Theme: as the system",
    theme_light: "Theme: light",
    theme_dark: "Theme: dark",
    lead: "This page plays WeCom: it encrypts, calls back and polls once a second, as the real one does.",
    leadSocket: "This page plays WeCom's long connection: the gateway connects by itself and pushes the frames of its answers, without a public address.",
    people: "Who you are",
    modes: "What Dify does",
    real: "A real Dify app answers.",
    bot: "Laibao assistant",
    simulated: "Bot · simulated WeCom",
    chat: "Chat",
    question: "Type a question, press Enter",
    send: "Send",
    frames: "Frames received",
    framesNote: "Every reply to a callback, the latest on top.",
    colQuestion: "Question",
    colAt: "Second",
    colBytes: "Bytes",
    colMs: "ms",
    writing: "answering",
    finished: "finished",
    picture: "picture of the answer",
    joined: "opened the chat",
    seconds: "s",
    framesUnit: "frames",
    late: "Further message (response_url)",
    further: "Further message",
    pushed: "Pushed message",
    push: "Push",
    reminder: "**Reminder**: the meeting is at three.",
    framesNoteSocket: "The bubble second by second, the latest on top.",
    gaveUp: "Six minutes are over: WeCom polls no more.",
    refused: "The gateway refused the callback",
    unreachable: "The gateway did not answer",
    rule_broken: "The gateway's reply breaks WeCom's rules",
    bad_request: "Bad request",
    offline: "The demo has stopped",
    media: "Send another kind of message",
    kinds: { photo: "Picture", file: "File", video: "Video", voice: "Voice", quote: "Quote a picture" },
    card: "Card",
    clip: "video.mp4",
    spoken: "(voice) 年假怎么申请",
    sheet: "年假天数.csv",
    quoted: "Quote: 这是去年的统计",
    suggestions: ["How do I ask for annual leave", "What does an expense claim need", "Who am I", "/reset", "/stop", "/help"],
  },
};

const chat = byId("chat");
let choices = { people: [], modes: [], connection: "callback" };
let asked = 0;

const overSocket = () => choices.connection === "websocket";
const word = (key) => (overSocket() && WORDS[preferences.locale][`${key}Socket`]) || WORDS[preferences.locale][key];
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`)?.value ?? "";
const person = (id) => choices.people.find((one) => one.id === id);

class Refusal extends Error {
  constructor(key, detail = "") {
    super(detail);
    this.key = key;
  }
}

async function post(path, body) {
  const reply = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  }).catch(() => {
    throw new Refusal("offline");
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Refusal(answer.error, answer.detail);
  return answer;
}

function append(line) {
  const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
  byId("lines").append(line);
  if (atEnd) chat.scrollTop = chat.scrollHeight;
}

function note(text, className = "note") {
  append(element("li", className, text));
}

function complain(error) {
  const detail = error.message ? ` (${error.message})` : "";
  note(`${word(error.key) ?? word("bad_request")}${detail}`, "note failure");
}

function avatar(who) {
  const made = element("span", `avatar ${who?.id ?? "bot"}`, who ? who[preferences.locale].at(0) : "宝");
  made.setAttribute("aria-hidden", "true");
  return made;
}

function addQuestion(text, who, kind) {
  const line = element("li", "line mine");
  const bubble = element("div", "bubble");
  bubble.append(...shownMedia(kind), text || (kind === "voice" ? word("spoken") : ""));
  line.append(bubble, avatar(who));
  append(line);
  chat.scrollTop = chat.scrollHeight;
}

/** A picture of a finished frame, from the reply's bytes. */
function picture(url) {
  const shown = element("img");
  shown.src = url;
  shown.alt = word("picture");
  return shown;
}

/** What a message has beside its words: a picture, a file, or a quote of a picture. */
function shownMedia(kind) {
  if (kind === "file") return [element("div", "attached", `📄 ${word("sheet")}`)];
  if (kind === "video") return [element("div", "attached", `🎬 ${word("clip")}`)];
  if (kind !== "photo" && kind !== "quote") return [];
  const picture = element("img", "attached");
  Object.assign(picture, { src: "photo.png", alt: word("kinds").photo });
  if (kind === "photo") return [picture];
  const quote = element("blockquote", "", word("quoted"));
  quote.append(picture);
  return [quote];
}

/** The bot's bubble: `show` draws a frame into it. */
function addAnswer(number) {
  const line = element("li", "line theirs");
  const column = element("div", "column");
  const bubble = element("div", "bubble");
  const text = element("div", "text");
  const pictures = element("div", "pictures");
  const meta = element("div", "meta");
  let frames = 0;
  const broken = new Set();
  bubble.append(text, pictures);
  column.append(bubble, meta);
  line.append(avatar(), column);
  append(line);
  /** Show a rule that a frame breaks in red below the bubble, once. */
  function complainHere(rule) {
    if (broken.has(rule)) return;
    broken.add(rule);
    bubble.classList.add("broken");
    column.append(element("div", "meta failure rule", `${word("rule_broken")}: ${rule}`));
  }
  return {
    show(frame) {
      const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
      frames += 1;
      showHtml(text, frame.html);
      pictures.replaceChildren(...frame.pictures.map(picture));
      bubble.setAttribute("aria-busy", String(!frame.finish));
      line.dataset.state = frame.finish ? "finished" : "writing";
      const state = word(line.dataset.state);
      meta.textContent = `${state} · ${frames} ${word("framesUnit")} · ${frame.at.toFixed(1)} ${word("seconds")}`;
      addRow(number, frame);
      frame.broken.forEach(complainHere);
      if (atEnd) chat.scrollTop = chat.scrollHeight;
    },
    showLate(message) {
      showMessage(column, message, word(overSocket() ? "further" : "late"));
    },
    /** Show the bubble's card below it, or what it became. */
    showCard(key, card, broken = []) {
      const click = async (button, selected) => {
        try {
          const clicked = await post("/click", { bubble: key, button, selected });
          if (clicked.card) this.showCard(key, clicked.card, clicked.broken);
          await awaitLate(clicked.click, this);
        } catch (error) {
          complain(error);
        }
      };
      const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
      const box = cardBox(card, word("card"), click, ask);
      const before = column.querySelector(".card");
      if (before) before.replaceWith(box);
      else meta.after(box);
      broken.forEach(complainHere);
      if (atEnd) chat.scrollTop = chat.scrollHeight;
    },
    /** Show thumbs below the finished bubble. */
    showThumbs(key) {
      const send = (rating, content, reasons) =>
        post("/rate", { bubble: key, rating, content, reasons }).then(() => true, complain);
      const atEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
      column.append(feedbackRow(preferences.locale, send));
      if (atEnd) chat.scrollTop = chat.scrollHeight;
    },
    stop() {
      if (line.dataset.state === "finished") return;
      bubble.setAttribute("aria-busy", "false");
      line.dataset.state = "stopped";
    },
  };
}

function addRow(number, frame) {
  const row = element("tr", frame.finish ? "finish" : "");
  const cells = [`#${number}`, frame.at.toFixed(1), String(frame.finish), frame.empty ? "–" : frame.bytes, overSocket() ? "–" : frame.ms];
  row.append(...cells.map((cell) => element("td", "", String(cell))));
  byId("rows").prepend(row);
  while (byId("rows").rows.length > ROWS_SHOWN) byId("rows").lastElementChild.remove();
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Poll as WeCom does until the answer is finished. */
async function follow(key, answer) {
  const end = Date.now() + POLL_LIMIT_MS;
  let failures = 0;
  while (Date.now() < end) {
    await pause(POLL_MS);
    try {
      const { frame } = await post("/poll", { bubble: key });
      failures = 0;
      answer.show(frame);
      if (frame.finish) return frame;
    } catch (error) {
      failures += 1;
      if (failures === FAILURES_BEFORE_GIVING_UP) throw error;
    }
  }
  note(word("gaveUp"), "note failure");
  return null;
}

async function ask(text, kind = "") {
  const user = chosen("user");
  asked += 1;
  const number = asked;
  addQuestion(user === "group" && text ? `@${word("bot")} ${text}` : text, person(user), kind);
  let answer = null;
  try {
    const sent = await post(kind ? "/media" : "/send", { user, text, kind, mode: chosen("mode") });
    answer = addAnswer(number);
    answer.show(sent.frame);
    const last = sent.frame.finish ? sent.frame : await follow(sent.bubble, answer);
    if (last?.card) answer.showCard(sent.bubble, last.card);
    if (last && sent.rateable) answer.showThumbs(sent.bubble);
    if (last && (overSocket() || last.html.includes("(1/2)"))) awaitLate(sent.bubble, answer);
  } catch (error) {
    complain(error);
  } finally {
    answer?.stop();
  }
}

async function enter() {
  const who = person(chosen("user"));
  note(`${who[preferences.locale]} ${word("joined")}`);
  try {
    const { html } = await post("/enter", { user: who.id });
    if (!html) return;
    const line = element("li", "line theirs");
    const bubble = element("div", "bubble");
    showHtml(bubble, html);
    line.append(avatar(), bubble);
    append(line);
  } catch (error) {
    complain(error);
  }
}

function addChoices(box, name, entries, changed) {
  entries.forEach((entry, index) => {
    const label = element("label", "choice");
    const radio = element("input");
    Object.assign(radio, { type: "radio", name, value: entry.id, checked: index === 0 });
    radio.addEventListener("change", changed);
    const words = element("span", "words");
    words.append(element("b"), element("small"));
    label.append(radio, words);
    box.append(label);
  });
}

function relabel(name, entries) {
  for (const entry of entries) {
    const words = document.querySelector(`input[name=${name}][value=${entry.id}] + .words`);
    words.children[0].textContent = entry[preferences.locale];
    words.children[1].textContent = entry[`${preferences.locale}_note`];
  }
}

function suggest() {
  const buttons = word("suggestions").map((text) => {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => ask(text));
    return button;
  });
  byId("suggestions").replaceChildren(...buttons);
}

/** A button for each other kind of message; what was typed goes along. */
function offerMedia() {
  const buttons = Object.entries(word("kinds")).map(([kind, label]) => {
    const button = element("button", "", label);
    Object.assign(button, { type: "button", name: kind });
    button.addEventListener("click", () => {
      const text = byId("question").value.trim();
      byId("question").value = "";
      ask(text, kind);
    });
    return button;
  });
  if (overSocket()) buttons.push(pushButton());
  byId("media").replaceChildren(...buttons);
}

function pushButton() {
  const button = element("button", "", word("push"));
  Object.assign(button, { type: "button", name: "push" });
  button.addEventListener("click", push);
  return button;
}

const THEMES = ["auto", "light", "dark"];

function drawTheme() {
  const words = word(`theme_${preferences.theme}`);
  Object.assign(byId("theme"), { title: words, ariaLabel: words });
  byId("theme").replaceChildren(icon(preferences.theme));
}

/** Show the page's texts in the chosen language. */
function speak() {
  const inEnglish = preferences.locale === "en";
  document.documentElement.lang = inEnglish ? "en" : "zh-CN";
  document.querySelectorAll("[data-t]").forEach((one) => (one.textContent = word(one.dataset.t)));
  document.querySelectorAll("[data-label]").forEach((one) => one.setAttribute("aria-label", word(one.dataset.label)));
  byId("question").placeholder = word("question");
  const other = byId("language");
  other.textContent = inEnglish ? "中文" : "English";
  other.lang = inEnglish ? "zh-CN" : "en";
  drawTheme();
  relabel("user", choices.people);
  relabel("mode", choices.modes);
  suggest();
  offerMedia();
}

async function start() {
  choices = await (await fetch("/choices")).json();
  addChoices(byId("people"), "user", choices.people, enter);
  addChoices(byId("modes"), "mode", choices.modes, () => byId("question").focus());
  byId("modes").hidden = choices.modes.length === 0;
  byId("real").hidden = choices.modes.length > 0;
  byId("frames").open = window.matchMedia("(min-width: 1000px)").matches;
  preferences.on("locale", speak);
  preferences.on("theme", drawTheme);
  byId("theme").addEventListener("click", () => {
    preferences.theme = THEMES[(THEMES.indexOf(preferences.theme) + 1) % THEMES.length];
  });
  byId("language").addEventListener("click", () => (preferences.locale = preferences.locale === "zh" ? "en" : "zh"));
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("question").value.trim();
    byId("question").value = "";
    if (text) ask(text);
  });
  speak();
  // Until here the browser itself would have sent the form, and loaded the page again.
  byId("composer").querySelectorAll(":disabled").forEach((one) => (one.disabled = false));
  await enter();
  if (overSocket()) awaitPushes();
}

start();
