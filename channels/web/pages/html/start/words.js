// The texts of the start page in both languages.

const WORDS = {
  zh: {
    title: "首页",
    what: "直接提问，马上得到回答",
    how: "同一个问答服务，可以在企业微信里用，也可以在这里用：打字、说话，或者一次提交一整份问题。",
    chat: "对话",
    chat_for: "输入问题，回答一边生成一边显示；断线会自动接上。",
    realtime: "实时问答",
    realtime_for: "开会或通话时边说边转写，听到问题就回答。",
    batch: "批量提问",
    batch_for: "上传一份表格或文本，得到一张带回答的表。",
    docs: "接口文档",
    docs_for: "给开发者：所有地址、REST 和 WebSocket 的格式，可以直接试。",
    health: "运行状况",
    openapi: "OpenAPI 文档",
  },
  en: {
    title: "Home",
    what: "Ask a question, get an answer",
    how: "One answering service, in WeCom and here: type, speak, or hand in a whole file of questions.",
    chat: "Chat",
    chat_for: "Type a question; the answer shows while it is written, and a lost connection comes back.",
    realtime: "Live answers",
    realtime_for: "Speech becomes a transcript, and the questions in it are answered as they are heard.",
    batch: "Batches",
    batch_for: "A table or text of questions in, a table with their answers out.",
    docs: "API documentation",
    docs_for: "For developers: every address, the formats of REST and WebSocket, and a place to try them.",
    health: "Health",
    openapi: "OpenAPI document",
  },
};
