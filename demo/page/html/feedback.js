"use strict";

// The thumbs below a finished bubble, as WeCom shows them where the first frame had a feedback.id.

const FEEDBACK_WORDS = {
  zh: {
    accurate: "准确",
    inaccurate: "不准确",
    withdraw: "撤回评价",
    reasons: ["与问题无关", "回答不完整", "内容有误", "数据分析有误"],
    content: "说说哪里不对（可不填）",
    send: "提交",
    taken: "已评价",
    withdrawn: "评价已撤回",
  },
  en: {
    accurate: "Accurate",
    inaccurate: "Inaccurate",
    withdraw: "Withdraw",
    reasons: ["Unrelated", "Incomplete", "Wrong content", "Wrong data analysis"],
    content: "What is wrong (optional)",
    send: "Submit",
    taken: "rated",
    withdrawn: "rating withdrawn",
  },
};

function feedbackButton(label, text, pressed) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", textContent: text, title: label });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", pressed);
  return button;
}

/** The form for what is wrong: reasons and words. */
function feedbackForm(words, submit) {
  const form = document.createElement("form");
  form.hidden = true;
  form.className = "reasons";
  const boxes = words.reasons.map((reason, index) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: String(index + 1) });
    label.append(box, ` ${reason}`);
    form.append(label);
    return box;
  });
  const content = Object.assign(document.createElement("input"), { type: "text", maxLength: 500 });
  content.placeholder = words.content;
  content.setAttribute("aria-label", words.content);
  const send = Object.assign(document.createElement("button"), { type: "submit", textContent: words.send });
  form.append(content, send);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.hidden = true;
    submit(
      content.value,
      boxes.filter((box) => box.checked).map((box) => Number(box.value)),
    );
  });
  return form;
}

/** Return a row of thumbs; `rate(rating, content, reasons)` sends what was pressed, and throws where that fails. */
function feedbackRow(language, rate) {
  const words = FEEDBACK_WORDS[language];
  const row = document.createElement("div");
  row.className = "thumbs";
  const state = document.createElement("span");
  state.setAttribute("role", "status");
  const say = async (rating, content = "", reasons = []) => {
    if (!(await rate(rating, content, reasons))) return;
    up.setAttribute("aria-pressed", String(rating === "accurate"));
    down.setAttribute("aria-pressed", String(rating === "inaccurate"));
    withdraw.hidden = rating === "withdrawn";
    state.textContent = rating === "withdrawn" ? words.withdrawn : words.taken;
  };
  const form = feedbackForm(words, (content, reasons) => say("inaccurate", content, reasons));
  const up = feedbackButton(words.accurate, "👍", () => say("accurate"));
  const down = feedbackButton(words.inaccurate, "👎", () => {
    form.hidden = !form.hidden;
    if (form.hidden) return;
    form.scrollIntoView({ block: "nearest" });
    form.elements[0].focus({ preventScroll: true });
  });
  const withdraw = feedbackButton(words.withdraw, words.withdraw, () => say("withdrawn"));
  withdraw.hidden = true;
  row.append(up, down, withdraw, state, form);
  return row;
}
