// The texts of the batch page in both languages; the server's messages come in the server's language.

const WORDS = {
  zh: {
    title: "批量提问",
    connecting: "连接中…",
    open: "已连接",
    waiting: "连不上服务，{seconds} 秒后重试",
    auth: "需要密钥",
    closed: "没有批量处理",
    keyTitle: "请输入密钥",
    keyNote: "这个服务需要密钥才能使用。密钥只保存在这个标签页里。",
    keyWrong: "密钥无效或已过期，请检查后重试。",
    keyLabel: "密钥",
    unlock: "进入",
    newTask: "新任务",
    questions: "每行一个问题",
    questionsHint: "年假有几天？\n报销需要哪些材料？",
    counted: "{count} 个问题",
    unvalued: "文件里有 {count} 个公式没有结果，没有提问：请用 Excel 打开并保存后再上传。",
    choose: "选择文件",
    chooseHint: "或把 .txt、.csv、.xlsx 文件拖到这里",
    forget: "不用这个文件",
    name: "任务名称（可不填）",
    untitled: "任务 {time}",
    start: "开始",
    starting: "正在提交…",
    tooLarge: "文件太大，服务没有接受。",
    broken: "没有连上服务，请再试一次；不会重复提交。",
    noFile: "只能使用 .txt、.csv、.tsv 或 .xlsx 文件。",
    pause: "暂停",
    resume: "继续",
    cancel: "取消任务",
    cancelConfirm: "取消这个任务？已经得到的回答会保留。",
    csv: "下载 CSV",
    jsonl: "下载 JSONL",
    downloading: "正在下载…",
    number: "序号",
    question: "问题",
    status: "状态",
    answer: "回答",
    earlier: "上一页",
    later: "下一页",
    place: "第 {first}–{last} 个，共 {total} 个",
    tasks: "我的任务",
    none: "还没有任务。",
    done: "已处理 {done}/{total}",
    failures: "失败 {count}",
    cancellations: "取消 {count}",
    runs: "进行中 {count}",
    rate: "每秒 {rate} 个",
    left: "约 {time}后完成",
    seconds: "{n} 秒",
    minutes: "{n} 分钟",
    hours: "{n} 小时",
    is_pending: "等待中",
    is_running: "进行中",
    is_paused: "已暂停",
    is_completed: "已完成",
    is_failed: "失败",
    is_cancelled: "已取消",
    told: "{name}：{status}",
  },
  en: {
    title: "Batches",
    connecting: "Connecting…",
    open: "Connected",
    waiting: "No connection, trying again in {seconds} s",
    auth: "A key is needed",
    closed: "No batches here",
    keyTitle: "Please enter your key",
    keyNote: "This service asks for a key. It is kept in this tab only.",
    keyWrong: "The key is wrong or has expired. Please check it and try again.",
    keyLabel: "Key",
    unlock: "Enter",
    newTask: "New task",
    questions: "One question per line",
    questionsHint: "How many days of leave do I have?\nWhat do I need for expenses?",
    counted: "{count} questions",
    unvalued: "{count} formulas of the file have no value and are not asked: open and save it in Excel, then upload it again.",
    choose: "Choose a file",
    chooseHint: "or drop a .txt, .csv or .xlsx here",
    forget: "Without this file",
    name: "Name of the task (optional)",
    untitled: "Task {time}",
    start: "Start",
    starting: "Submitting…",
    tooLarge: "The file is too large for the service.",
    broken: "There was no connection. Please try again; nothing is submitted twice.",
    noFile: "Only .txt, .csv, .tsv and .xlsx files can be read.",
    pause: "Pause",
    resume: "Go on",
    cancel: "Cancel the task",
    cancelConfirm: "Cancel this task? The answers so far stay.",
    csv: "Download CSV",
    jsonl: "Download JSONL",
    downloading: "Downloading…",
    number: "No.",
    question: "Question",
    status: "Status",
    answer: "Answer",
    earlier: "Previous",
    later: "Next",
    place: "{first}–{last} of {total}",
    tasks: "My tasks",
    none: "There are no tasks yet.",
    done: "{done} of {total} done",
    failures: "{count} failed",
    cancellations: "{count} cancelled",
    runs: "{count} running",
    rate: "{rate} per second",
    left: "about {time} left",
    seconds: "{n} s",
    minutes: "{n} min",
    hours: "{n} h",
    is_pending: "Waiting",
    is_running: "Running",
    is_paused: "Paused",
    is_completed: "Completed",
    is_failed: "Failed",
    is_cancelled: "Cancelled",
    told: "{name}: {status}",
  },
};

let locale = "zh";

/** Set an element's text if it differs. */
function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** Return the page's language as a BCP 47 tag. */
const language = () => (locale === "zh" ? "zh-CN" : "en");

/** Return the text of a key in the page's language, with `params` inserted. */
function word(key, params = {}) {
  return WORDS[locale][key].replace(/\{(\w+)\}/g, (_, name) => String(params[name]));
}

/** Fill in the text of every element with a text key. */
function relabel() {
  document.documentElement.lang = language();
  for (const one of document.querySelectorAll("[data-t]")) one.textContent = word(one.dataset.t);
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
}

/** Format a remaining time for people. */
function timeLeft(seconds) {
  if (seconds < 90) return word("seconds", { n: Math.max(1, Math.round(seconds)) });
  if (seconds < 5400) return word("minutes", { n: Math.round(seconds / 60) });
  return word("hours", { n: Math.round(seconds / 360) / 10 });
}
