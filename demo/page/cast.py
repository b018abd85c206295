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


PEOPLE = (
    Choice("zhangsan", "张三", "Zhang San", "已知用户", "known user"),
    Choice("lisi", "李四", "Li Si", "未知用户", "unknown user"),
    Choice("wangwu", "王五", "Wang Wu", "令牌已过期", "token expired"),
)

DIFY_MODES = (
    Choice("normal", "正常", "Normal", "边写边答", "streams an answer"),
    Choice("steps", "分步", "Steps", "先显示正在执行的步骤", "names the running step"),
    Choice("slow", "慢", "Slow", "字一个个来", "drips an answer"),
    Choice("long", "长", "Long", "一条消息装不下", "needs a second message"),
    Choice("pictures", "画图", "Pictures", "带图片和文件", "draws, and links a file"),
    Choice("form", "反问", "Asks back", "回复序号后继续", "reply with a number"),
    Choice("error", "出错", "Error", "返回错误", "returns an error"),
    Choice("silent", "沉默", "Silent", "一直不说话", "never says a word"),
)
