"""The users of the demo and the modes of its mock Dify, for the page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """One entry of a selector: its `id` in requests and options, and its labels in two languages."""

    id: str
    zh: str
    en: str
    zh_note: str
    en_note: str


#: The group's id, and how people there mention the bot: WeCom sends bots nothing else of a group.
GROUP_CHAT, MENTION = "wrDEMO", "@来宝助手"

PEOPLE = (
    Choice("zhangsan", "张三", "Zhang San", "已知用户", "known user"),
    Choice("lisi", "李四", "Li Si", "未知用户", "unknown user"),
    Choice("wangwu", "王五", "Wang Wu", "令牌已过期", "token expired"),
    Choice("group", "张三（群里）", "Zhang San in a group", "@ 机器人提问", "mentions the bot"),
)

DIFY_MODES = (
    Choice("normal", "正常", "Normal", "边写边答", "streams an answer"),
    Choice("steps", "分步", "Steps", "先显示正在执行的步骤", "names the running step"),
    Choice("slow", "慢", "Slow", "字一个个来", "drips an answer"),
    Choice("late", "超时", "Late", "超过气泡的时限 20 秒", "outlasts its bubble: 20 s here"),
    Choice("long", "长", "Long", "一条消息装不下", "needs a second message"),
    Choice("formatted", "排版", "Formatted", "表格、代码、公式、思考", "table, code, formula, thinking"),
    Choice("pictures", "画图", "Pictures", "带图片和文件", "draws, and links a file"),
    Choice("form", "反问", "Asks back", "点选项或回复序号", "choose, or reply with a number"),
    Choice("card", "卡片", "Card", "带按钮的卡片", "a card with buttons"),
    Choice("error", "出错", "Error", "返回错误", "returns an error"),
    Choice("silent", "沉默", "Silent", "一直不说话", "never says a word"),
)


def place_of(choice: str) -> tuple[str, str]:
    """Return the userid of an entry of `PEOPLE`, and the id of the group that they write in, "" for the single chat."""
    return ("zhangsan", GROUP_CHAT) if choice == "group" else (choice, "")
