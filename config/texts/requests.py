"""The sentences about wrong requests: written in English where they arise, and translated when they are shown.

They name fields, limits and headers to programmers, so `TEXTS_FILE` does not replace them. In a template `{name}` is a
part that stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

#: Chinese by English. The first template that fits counts. Those of single fields are pydantic's.
ZH_REQUESTS: Mapping[str, str] = {
    "Send the body as application/json.": "请以 application/json 发送请求体。",
    "The body is not JSON.": "请求体不是 JSON。",
    "The body broke off.": "请求体不完整。",
    "The body is too large: {bytes} bytes are taken at most.": "请求体过大：最多 {bytes} 字节。",
    "Too many large bodies are being received. Send it again later.": "正在接收的大请求体过多，请稍后重发。",
    "The form is broken.": "表单格式有误。",
    "Show an API key: Authorization: Bearer, or X-API-Key.": "请提供 API 密钥：Authorization: Bearer 或 X-API-Key。",
    "The credential is not, or no longer, valid.": "凭据无效或已失效。",
    "Too many wrong credentials came from this address.": "来自该地址的错误凭据过多。",
    "The credential cannot be checked now.": "暂时无法校验凭据。",
    "Some fields are wrong.": "部分字段有误。",
    "This server has another name.": "服务器名称不符。",
    "Pages of this origin may not ask here.": "不允许该来源的页面在此提问。",
    "Pages of this origin may not open sockets here.": "不允许该来源的页面在此打开 WebSocket。",
    "This address speaks WebSocket only.": "该地址只接受 WebSocket。",
    "A client id has 1 to 64 letters, digits, '.', '_' and '-'.": "客户端标识应为 1 到 64 个字母、数字或 . _ -。",
    "Too many requests from this address.": "来自该地址的请求过多。",
    "This process is starting or leaving; another one answers.": "本进程正在启动或退出，请重新连接。",
    "There are too many open sockets.": "打开的 WebSocket 过多。",
    "There is no such model; GET /v1/models lists those there are.": "没有这个模型；GET /v1/models 列出可用的模型。",
    "Another request was sent with this Idempotency-Key.": "该 Idempotency-Key 已用于另一个请求。",
    "An Idempotency-Key has 1 to 255 printable ASCII characters.": (
        "Idempotency-Key 应为 1 到 255 个可打印的 ASCII 字符。"
    ),
    "The messages before the question are too long: {bytes} bytes are taken at most.": (
        "问题之前的消息过长：最多 {bytes} 字节。"
    ),
    "The messages are too long: {bytes} bytes are taken at most, without pictures.": (
        "消息过长：除图片外最多 {bytes} 字节。"
    ),
    "The last message has to be the user's question.": "最后一条消息应是用户的问题。",
    "The question is empty.": "问题为空。",
    "Only one choice is made: n has to be 1.": "只生成一个回答：n 应为 1。",
    "No tools are called here: tool_choice has to be auto or none.": "这里不调用工具：tool_choice 应为 auto 或 none。",
    "Answers are text: response_format has to be text.": "回答是文本：response_format 应为 text。",
    "It differs from the header X-Conversation-Id.": "与请求头 X-Conversation-Id 不同。",
    "A conversation has 1 to {most} letters, digits, '.', '_' and '-'.": (
        "会话名应为 1 到 {most} 个字母、数字或 . _ -。"
    ),
    "Only text and pictures are taken in a question.": "问题只能有文字和图片。",
    "A question has {most} pictures at most.": "一个问题最多 {most} 张图片。",
    "The pictures are too large: {bytes} bytes are taken at most in one question.": (
        "图片过大：一个问题最多 {bytes} 字节。"
    ),
    "A picture is an https address of {most} characters at most, or a data: URL.": (
        "图片应为最多 {most} 个字符的 https 地址，或 data: URL。"
    ),
    "It is no data: URL with base64.": "不是带 base64 的 data: URL。",
    "It is no picture.": "不是图片。",
    "Not Found": "没有这个地址。",
    "Method Not Allowed": "该地址不支持这个方法。",
    "Internal Server Error": "服务器内部错误。",
    "An old or locked workbook: save it as .xlsx without a password.": (
        "旧格式或有密码的工作簿：请另存为没有密码的 .xlsx。"
    ),
    "The file's name has to end in .txt, .csv, .tsv or .xlsx.": "文件名应以 .txt、.csv、.tsv 或 .xlsx 结尾。",
    "The workbook has no sheet of this name to be seen.": "工作簿里没有这个名称的可见工作表。",
    "It unpacks to more than is taken.": "文件解压后过大。",
    "It is no readable workbook.": "无法读取这个工作簿。",
    "Line {number} is no CSV: are all quotes closed?": "第 {number} 行不符合 CSV 格式：引号是否都成对？",
    "Its characters are neither UTF-8 nor UTF-16 nor GBK: save it as UTF-8.": (
        "字符编码不是 UTF-8、UTF-16 或 GBK：请另存为 UTF-8。"
    ),
    "Reading it takes more time or memory than there is for it.": "文件过于复杂，读取所需的时间或内存超出上限。",
    "There is no text in it.": "文件里没有文字。",
    "There is no text in it: {count} formulas have no value, so open and save it in Excel.": (
        "文件里没有文字：{count} 个公式没有结果，请用 Excel 打开并保存。"
    ),
    "Row {number} has more than {most} characters.": "第 {number} 行超过 {most} 个字符。",
    "Row {number} has more than {most} bytes beside its question.": "第 {number} 行除问题外超过 {most} 字节。",
    "Row {number} has an id of more than {most} characters.": "第 {number} 行的编号超过 {most} 个字符。",
    "{count} texts of {bytes} bytes are taken at most.": "最多 {count} 个问题，共 {bytes} 字节。",
    "Which column has the questions? Call it 问题 or question, or choose one of these: {columns}.": (
        "哪一列是问题？请将列名改为“问题”或 question，或从这些列中选择：{columns}。"
    ),
    "There is no such column. The columns: {columns}.": "没有这一列。现有的列：{columns}。",
    "Too many files are being read.": "正在读取的文件过多。",
    "These results are too long for one page.": "这些结果太长，一页放不下。",
    "at most {most} results are rendered at once": "一次最多渲染 {most} 个结果",
    "a download has all results, and no pages": "下载包含全部结果，不分页",
    "only a workbook has it": "只用于 Excel 工作簿",
    "is empty": "为空",
    "is longer than {most} bytes": "超过 {most} 字节",
    "was given more than once": "出现了多次",
    "is not the `next` of a page": "不是某一页的 `next`",
    "has too many sums: ask for fewer days or dimensions, or take the file": "合计太多：请减少天数或维度，或者下载文件",
    "Value error, a date, such as 2026-11-24, or a time with its zone, such as 2026-11-24T08:00:00+08:00": (
        "应为日期，如 2026-11-24，或带时区的时间，如 2026-11-24T08:00:00+08:00"
    ),
    "One file is needed, under this name": "需要一个以此为名的文件",
    "has no name": "没有名称",
    "has more than {values} values, or more than {members} in an object": (
        "值超过 {values} 个，或某个对象的成员超过 {members} 个"
    ),
    "is not base64": "不是 base64",
    "either this or chatid has to be given": "应给出它或 chatid",
    "either this or file has to be given": "应给出它或 file",
    "is the id of no event": "不是任何事件的编号",
    "differs from the header Idempotency-Key": "与请求头 Idempotency-Key 不同",
    "1 to 64 visible ASCII characters are taken": "应为 1 到 64 个可见的 ASCII 字符",
    "22 to 64 letters, digits, '_' and '-' are taken": "应为 22 到 64 个字母、数字、_ 或 -",
    "1 to {most} characters are taken": "应为 1 到 {most} 个字符",
    "Input is not valid": "值无效",
    "Field required": "缺少该字段",
    "Extra inputs are not permitted": "没有这个字段",
    "String should have at least {least} character{s}": "至少 {least} 个字符",
    "String should have at most {most} character{s}": "最多 {most} 个字符",
    "String should match pattern {pattern}": "应符合格式 {pattern}",
    "{kind} should have at least {least} item{s} after validation, not {given}": "至少 {least} 项，而不是 {given} 项",
    "{kind} should have at most {most} item{s} after validation, not {given}": "最多 {most} 项，而不是 {given} 项",
    "Input should be a valid integer{why}": "应为整数",
    "Unable to parse input string as an integer, exceeded maximum size": "整数过大",
    "Input should be a valid number{why}": "应为数字",
    "Input should be a finite number": "应为有限的数字",
    "Input should be a valid boolean{why}": "应为 true 或 false",
    "Input should be a valid string{why}": "应为字符串",
    "Input should be a valid {array}": "应为数组",
    "Input should be an object": "应为对象",
    "Input should be greater than or equal to {least}": "应大于或等于 {least}",
    "Input should be greater than {least}": "应大于 {least}",
    "Input should be less than or equal to {most}": "应小于或等于 {most}",
    "Input should be less than {most}": "应小于 {most}",
    "Value error, either texts or items is needed": "texts 和 items 应有且只有一个",
    "Value error, {problem}": "值有误：{problem}",
    "Input should be {one} or {other}": "应为 {one} 或 {other}",
    "Input should be {value}": "应为 {value}",
}


def in_chinese(sentence: str) -> str:
    """Translate a sentence about a request; an unknown one is returned as it is."""
    for pattern, chinese in _templates():
        if found := pattern.fullmatch(sentence):
            return chinese.format(**found.groupdict())
    return sentence


@cache
def _templates() -> Sequence[tuple[re.Pattern[str], str]]:
    return [(_pattern(english), chinese) for english, chinese in ZH_REQUESTS.items()]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(f"(?P<{part}>.*?)" if place % 2 else re.escape(part) for place, part in enumerate(parts)), re.DOTALL
    )
