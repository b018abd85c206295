// Swagger UI knows English only, and some of its controls have no name: both are mended whenever it has drawn something.

const SWAGGER_ZH = {
  Authorize: "授权",
  "Available authorizations": "可用的授权方式",
  "Apply credentials": "使用此凭据",
  Authorized: "已授权",
  Logout: "清除凭据",
  Close: "关闭",
  "Name:": "名称：",
  "In:": "位置：",
  "Value:": "值：",
  Servers: "服务器",
  "Try it out": "试用",
  Cancel: "取消",
  Reset: "重置",
  Execute: "发送",
  Clear: "清除",
  Parameters: "参数",
  "No parameters": "没有参数",
  Name: "名称",
  Description: "说明",
  "Request body": "请求体",
  "Send empty value": "发送空值",
  "Example Value": "示例",
  "Edit Value": "编辑",
  Schema: "结构",
  Schemas: "数据结构",
  Example: "示例",
  "Example Description": "示例说明",
  "Examples:": "示例：",
  Responses: "响应",
  "Server response": "服务器的响应",
  "Request URL": "请求地址",
  Code: "状态码",
  Details: "详情",
  Links: "链接",
  "No links": "没有链接",
  "Media type": "媒体类型",
  Controls: "对应请求头",
  "header.": "。",
  "Response body": "响应体",
  "Response headers": "响应头",
  "Response content type": "响应的媒体类型",
  "Headers:": "响应头：",
  Type: "类型",
  Download: "下载",
  Undocumented: "文档之外",
  "Expand all": "全部展开",
  "Collapse all": "全部收起",
};

/** What Swagger UI shows but did not write itself, and what it shows as code. */
const NOT_ITS_WORDS = ".renderedMarkdown, .markdown, .json-schema-2020-12, pre, code, textarea, select, td .parameter__name";
/** The controls without a name, and the key of their name. */
const UNNAMED = {
  ".copy-to-clipboard > button": "copy",
  ".body-param textarea": "body",
  "#servers": "server",
  ".close-modal": "close",
};

/** Keep the words and names in `place` in the page's language; return the function to call when it has changed. */
function mendSwagger(place) {
  const known = new WeakMap();

  function write(node) {
    // A text that we did not write is a new one of Swagger UI.
    if (known.get(node)?.shown !== node.data) known.set(node, { english: node.data });
    const one = known.get(node);
    const chinese = preferences.locale === "zh" && SWAGGER_ZH[one.english.trim()];
    one.shown = chinese || one.english;
    if (node.data !== one.shown) node.data = one.shown;
  }

  function mend() {
    const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) if (!texts.currentNode.parentElement.closest(NOT_ITS_WORDS)) write(texts.currentNode);
    for (const [css, key] of Object.entries(UNNAMED)) {
      for (const one of place.querySelectorAll(css)) one.ariaLabel = word(key);
    }
    for (const row of place.querySelectorAll("[data-param-name]")) {
      for (const field of row.querySelectorAll("input, select, textarea")) field.ariaLabel = row.dataset.paramName;
    }
    // Code may be wider than its box: the arrow keys scroll it.
    for (const code of place.querySelectorAll("pre")) code.tabIndex = 0;
  }

  const watch = new MutationObserver(() => mend());
  watch.observe(place, { subtree: true, childList: true, characterData: true });
  return mend;
}
