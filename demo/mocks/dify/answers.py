"""The mock Dify's answers: a small company handbook in Markdown, and a general answer to any other question.

An English question gets them in English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from demo.mocks.dify.features.files import signed

#: The card of `with_card`: the key of a button is the question that a click asks.
TOPICS = {
    "card_type": "button_interaction",
    "main_title": {"title": "常见问题", "desc": "点一下就能问"},
    "horizontal_content_list": [{"keyname": "部门", "value": "人力资源"}],
    "button_list": [
        {"text": "年假", "key": "年假怎么申请"},
        {"text": "报销", "key": "报销需要哪些材料", "style": 1},
    ],
}
TOPICS_EN = {
    "card_type": "button_interaction",
    "main_title": {"title": "Asked often", "desc": "One click asks"},
    "horizontal_content_list": [{"keyname": "Department", "value": "Human resources"}],
    "button_list": [
        {"text": "Leave", "key": "How do I ask for annual leave?"},
        {"text": "Expenses", "key": "What does an expense claim need?", "style": 1},
    ],
}
_CHINESE, _LATIN = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[A-Za-z]")
_MARKER = re.compile(r"\[\[([\w-]+)\]\]")

_ANNUAL_LEAVE = """**年假申请**分四步，全部在线完成：

1. 打开 OA 系统，进入「人事 → 假期管理 → 新建申请」。
2. 假期类型选择「年假」，填写起止日期；支持按**半天**申请。
3. 选择审批人：
   - 3 天以内：直属主管
   - 3 天以上：直属主管 + 部门负责人
4. 提交后会在企业微信收到审批结果，一般 1 个工作日内完成 ✅

> 年假天数：工龄满 1 年 5 天，满 10 年 10 天，满 20 年 15 天。
> 当年未休完的年假可顺延至次年 3 月 31 日。

还需要我帮你查一下剩余天数吗？"""

_EXPENSES = """报销请按下面的顺序准备：

- **发票**：电子发票 PDF 原件，抬头与税号须与公司一致
- **明细**：出差报销附行程单，招待报销附参加人员名单
- **期限**：费用发生后 30 天内提交

操作路径：

```
OA → 财务 → 费用报销 → 新建 → 上传发票
```

单笔 5000 元以上需要部门负责人加签；审批通过后 5 个工作日内到账 💰"""

_OPENING_HOURS = "周一至周五 9:00-18:00 🙂"

#: The answer to 我是谁 and Who am I; the mock puts the request's inputs in.
_WHO = "应用收到的 inputs：\n\n{inputs}"
_WHO_EN = "The inputs that the app received:\n\n{inputs}"

_ANNUAL_LEAVE_EN = """**Annual leave** takes four steps, all of them online:

1. Open the OA: “People → Leave → New request”.
2. Choose “Annual leave” and its first and last day; **half days** count.
3. Choose who approves it:
   - up to 3 days: your manager
   - more than 3 days: your manager and the head of your department
4. The decision comes in WeCom, as a rule within one working day ✅

> 5 days after 1 year of service, 10 after 10 years, 15 after 20 years.
> Days that are left may be taken until 31 March of the next year.

Shall I look up how many days you have left?"""

_EXPENSES_EN = """An expense claim needs, in this order:

- **Invoices** as PDF files, with the company's name and tax number
- **Details**: the itinerary of a journey, the names of the guests of a meal
- **In time**: within 30 days after you have paid

Where to hand it in:

```
OA → Finance → Expenses → New → Upload invoices
```

Above ¥5,000 the head of your department signs as well; the money arrives 5 working days after the approval 💰"""

#: By a word of the question, in small letters.
_HANDBOOK = (
    ("年假", _ANNUAL_LEAVE),
    ("报销", _EXPENSES),
    ("营业时间", _OPENING_HOURS),
    ("我是谁", _WHO),
    ("who am i", _WHO_EN),
    ("leave", _ANNUAL_LEAVE_EN),
    ("expense", _EXPENSES_EN),
    ("opening hours", "Monday to Friday, 9:00 to 18:00 🙂"),
)

_ANYTHING = """关于「{question}」，我在知识库里找到了这些信息：

1. **相关制度**：请以《员工手册》最新版本为准。
2. **办理入口**：OA 系统首页的「服务大厅」，可以按关键字搜索。
3. **联系人**：
   - 人事问题：人力资源部服务台，分机 8001
   - 系统问题：IT 服务台，分机 8002

这是演示用的模拟回答，接入真实的 Dify 应用后，会由你的知识库来回答 😊"""

_ANYTHING_EN = """This is what the knowledge base has about “{question}”:

1. **The rules** are those of the latest employee handbook.
2. **Where**: “Services” on the first page of the OA, which you can search.
3. **Whom to ask**:
   - people and contracts: the HR desk, extension 8001
   - computers: the IT desk, extension 8002

This is a mock answer for the demo; your own Dify app will answer from your knowledge base 😊"""


def whole_handbook(question: str) -> str:
    """Return an answer of some 28 kB, larger than a frame of WeCom: all chapters, each with a table and code."""
    return _chapters(60, question)


def whole_library(question: str) -> str:
    """Return an answer of some 57 kB, larger than a frame and a late message of WeCom together."""
    return _chapters(120, question)


def _chapters(count: int, question: str) -> str:
    chapter = _CHAPTER if is_chinese(question) else _CHAPTER_EN
    return "\n\n".join(chapter.replace("{n}", f"{number}") for number in range(1, count + 1))


_CHAPTER = """## 第 {n} 章

年假、病假、出差与报销都在 OA 系统办理，纸质单据从本章起不再受理；例外情况请联系人力资源部服务台，分机 8001。

| 事项 | 入口 | 时限 |
|---|---|---|
| 年假 | 人事 → 假期管理 → 新建申请 | 提前三个工作日 |
| 报销 | 财务 → 费用报销 → 新建 | 费用发生后 30 天内 |

```python
def chapter_{n}(days: int) -> str:
    return "直属主管" if days <= 3 else "部门负责人"
```"""

#: As long as a Chinese chapter, in bytes.
_CHAPTER_EN = """## Chapter {n}

Leave, sickness, journeys and expenses are requested in the OA. From this chapter on paper is no longer taken; for an
exception ask the HR desk, extension 8001.

| Subject | Where | When |
|---|---|---|
| Annual leave | People → Leave → New request | three working days before |
| Expenses | Finance → Expenses → New | within 30 days |

```python
def chapter_{n}(days: int) -> str:
    return "your manager" if days <= 3 else "the head of your department"
```"""


def drawings(question: str) -> str:
    """Return an answer with pictures and a file behind signed addresses, one of a format that WeCom does not take."""
    house, photo, report = signed("house.webp"), signed("photo"), signed("report.pdf")
    if not is_chinese(question):
        return f"""Here is your house:

![A house]({house})

A photo by day: ![A photo]({photo})

The whole story is in the [annual report]({report})."""
    return f"""画好了，这是一座房子：

![房子]({house})

白天的照片：![照片]({photo})

完整说明在 [年度报告]({report}) 里。"""


def formatted(question: str) -> str:
    """Return an answer with thinking, a citation, a table, tasks, a formula and code."""
    return _FORMATTED if is_chinese(question) else _FORMATTED_EN


_FORMATTED = r"""<think>
先查制度，再按工龄算天数。
</think>

## 年假天数

**注意：**试用期内不计；入职满一年起算【1】。
全文见 https://example.com/leave 。

| 工龄 | 天数 |
|:--|--:|
| 1–9 年 | 5 |
| 10–19 年<br>（含中断） | 10 |

- [x] 已转正
- [ ] 提前三个工作日申请

当年入职的按月折算：

$$\text{天数} = 5 \times \frac{\text{剩余月数}}{12}$$

```python
def days(years: int) -> int:
    return 10 if years >= 10 else 5  # 天
```"""

_FORMATTED_EN = r"""<think>
The rules first, then the days by years of service.
</think>

## Days of annual leave

**Note:** not during probation; they count after one year of service [1].
All of it is at https://example.com/leave .

| Years of service | Days |
|:--|--:|
| 1–9 | 5 |
| 10–19<br>(with interruptions) | 10 |

- [x] Probation is over
- [ ] Asked three working days before

In the first year they are counted by months:

$$\text{days} = 5 \times \frac{\text{months left}}{12}$$

```python
def days(years: int) -> int:
    return 10 if years >= 10 else 5  # days
```"""


def with_card(question: str) -> str:
    """Return an answer with a template card of the app's own."""
    topics, before, after = TOPICS, "您想了解哪一项？", "也可以直接输入问题。"
    if not is_chinese(question):
        topics, before, after = TOPICS_EN, "What would you like to know?", "You can also type a question."
    return f"{before}\n\n```wecom-card\n{json.dumps(topics, ensure_ascii=False, indent=2)}\n```\n\n{after}"


def echo(question: str) -> str:
    """Return the question itself, so that a test decides about the answer."""
    return _MARKER.sub("", question).strip()


def marker(question: str) -> str:
    """Return the script that a question names as `[[script]]`; "" if it names none."""
    found = _MARKER.search(question)
    return found[1] if found else ""


def answer_to(question: str) -> str:
    """Return the handbook's answer to a question, without its marker `[[script]]` and without what it quotes."""
    plain = _MARKER.sub("", question).strip()
    plain = "\n".join(line for line in plain.splitlines() if not line.startswith(">")).strip() or plain
    anything = _ANYTHING if is_chinese(plain) else _ANYTHING_EN
    known = next((answer for word, answer in _HANDBOOK if word in plain.lower()), anything)
    return known.replace("{question}", plain)


def is_chinese(text: str) -> bool:
    """Return whether a text, without its marker, has a Chinese character, or no letter that could be English."""
    plain = _MARKER.sub("", text)
    return bool(_CHINESE.search(plain)) or not _LATIN.search(plain)


def with_inputs(answer: str, inputs: Mapping[str, Any]) -> str:
    """Return an answer with the inputs of its request, one a line, where it asks for them."""
    listed = "\n".join(f"- {name}：{value}" for name, value in inputs.items())
    return answer.replace("{inputs}", listed or "（无）")
