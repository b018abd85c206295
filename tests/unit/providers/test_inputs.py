"""DIFY_INPUTS and CUSTOM_RAG_INPUTS: the template of the inputs, filled with the user's data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from services.models import Asker, Identity, Query, UserInfo
from services.providers.client.inputs import InputsTemplate, time_info

SATURDAY = datetime(2026, 11, 21, 10, 30, 5, tzinfo=UTC)
LI = Identity("cached", UserInfo("u01", "李雷", "", "男"), token="fake-token")


def template(inputs: Mapping[str, Any]) -> InputsTemplate:
    return InputsTemplate(inputs, clock=SATURDAY.timestamp, timezone=UTC)


def test_placeholders_are_filled_with_the_users_data() -> None:
    """Every placeholder is filled, also several within one value."""
    inputs = template({"who": "{user_code}/{user_name}", "gender": "{gender}", "token": "{token}", "t": "{time_info}"})

    filled = inputs.fill(Query("q", "u01", identity=LI))

    assert filled["who"] == "u01/李雷"
    assert filled["gender"] == "男"
    assert filled["token"] == "fake-token"
    assert json.loads(filled["t"])["当前日期"] == "2026-11-21"


def test_who_asks_where_is_filled() -> None:
    """The facts of the message and of WeCom's directory have placeholders too; unknown ones are empty."""
    names = ("userid", "name", "department", "chatid", "chattype", "bot", "msgid", "channel")
    inputs = template({name: f"<{{{name}}}>" for name in names})
    asker = Asker("zhangsan", "张三", "研发部, 来宝组", "wr1", "group", "hr", "m-1")

    filled = inputs.fill(Query("q", "zhangsan", asker=asker, channel="wecom"))

    given = ("zhangsan", "张三", "研发部, 来宝组", "wr1", "group", "hr", "m-1", "wecom")
    assert list(filled.values()) == [f"<{value}>" for value in given]
    assert inputs.fill(Query("q", ""))["department"] == "<>"


LITERAL = {"json": '{"a": 1}', "open": "{", "spec": "{0} {user_code!r} {}", "number": 3}
NAMED_AS_A_PLACEHOLDER = Identity("cached", UserInfo("u01", "{token}"), token="fake-token")


@pytest.mark.parametrize(
    ("inputs", "query", "filled"),
    [
        (LITERAL, Query("q", "u01"), LITERAL),
        ({"n": "{user_name}"}, Query("q", "u01", identity=NAMED_AS_A_PLACEHOLDER), {"n": "{token}"}),
        (
            {"a": "{user_code}", "b": "{user_name}", "c": "{token}"},
            Query("q", "wx_42"),
            {"a": "wx_42", "b": "", "c": ""},
        ),
        (
            {"a": {"b": "{user_code}"}, "l": ["{user_code}", 1]},
            Query("q", "u01"),
            {"a": {"b": "u01"}, "l": ["u01", 1]},
        ),
    ],
    ids=["nothing but placeholders", "a name is no template", "no user record", "lists and objects"],
)
def test_placeholders_are_filled_wherever_they_are(inputs: Any, query: Query, filled: Any) -> None:
    """Braces, format specs and values other than strings stay; without a record `user_code` is the user's id."""
    assert template(inputs).fill(query) == filled


@pytest.mark.parametrize(
    ("inputs", "query", "filled"),
    [
        (
            {"lang": "zh", "role": "all"},
            Query("q", "u", inputs={"lang": "en"}),
            {"lang": "en", "role": "all"},
        ),
        (
            {"userCode": "{user_code}", "who": {"name": ["{user_name}"]}, "lang": "zh"},
            Query("q", "u01", inputs={"userCode": "boss", "who": "boss", "lang": "en", "more": 1}),
            {"userCode": "u01", "who": {"name": [""]}, "lang": "en", "more": 1},
        ),
        (
            {"who": "{name}", "department": "{department}"},
            Query("q", "li", inputs={"who": "boss", "department": "board"}, asker=Asker("li", "李雷", "研发部")),
            {"who": "李雷", "department": "研发部"},
        ),
    ],
    ids=["constants", "the user's data", "who asks"],
)
def test_a_question_overrides_constants_only(inputs: Any, query: Query, filled: Any) -> None:
    """A caller cannot replace what the template fills with the user's data, nested or not, or pass another's name."""
    assert template(inputs).fill(query) == filled


def test_a_template_knows_the_names_of_its_inputs() -> None:
    """Every question carries these inputs."""
    assert template({"lang": "zh", "role": "all"}).names == {"lang", "role"}


@pytest.mark.parametrize(
    ("hour", "part", "daylight"),
    [
        (4, "深夜", False),
        (5, "上午", False),
        (6, "上午", True),
        (12, "下午", True),
        (18, "晚上", False),
        (21, "晚上", False),
        (22, "深夜", False),
    ],
)
def test_time_info_names_the_part_of_the_day(hour: int, part: str, daylight: bool) -> None:
    """The hours of the parts are those of the original."""
    info = json.loads(time_info(SATURDAY.replace(hour=hour)))

    assert (info["时间段"], info["是否白天"]) == (part, daylight)


def test_time_info_has_the_original_keys() -> None:
    """The six keys that the prompts of existing apps read."""
    assert json.loads(time_info(SATURDAY)) == {
        "当前日期": "2026-11-21",
        "星期": "星期六",
        "当前时间": "10:30:05",
        "时间段": "上午",
        "是否白天": True,
        "季节": "秋季",
    }


@pytest.mark.parametrize(("month", "season"), [(2, "冬季"), (3, "春季"), (6, "夏季"), (9, "秋季"), (12, "冬季")])
def test_time_info_names_the_season(month: int, season: str) -> None:
    """A season has three months; winter begins in December."""
    assert json.loads(time_info(SATURDAY.replace(month=month, day=1)))["季节"] == season
