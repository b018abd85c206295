"""DIFY_INPUTS: the template of what an app is told about the person who asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from services.errors import SettingsError
from services.models import Identity, Query, UserInfo
from services.providers.dify.inputs import InputsTemplate, time_info

SATURDAY = datetime(2026, 11, 21, 10, 30, 5, tzinfo=UTC)
LI = Identity("cached", UserInfo("u01", "李雷", "", "男"), token="fake-token")


def template(inputs: Mapping[str, Any]) -> InputsTemplate:
    return InputsTemplate(inputs, clock=SATURDAY.timestamp, timezone=UTC)


def test_placeholders_become_the_person() -> None:
    """Every placeholder is filled, also several within one value."""
    inputs = template({"who": "{user_code}/{user_name}", "gender": "{gender}", "token": "{token}", "t": "{time_info}"})

    filled = inputs.fill(Query("q", "u01", identity=LI))

    assert filled["who"] == "u01/李雷"
    assert filled["gender"] == "男"
    assert filled["token"] == "fake-token"
    assert json.loads(filled["t"])["当前日期"] == "2026-11-21"


def test_nothing_but_placeholders_is_formatted() -> None:
    """Literal braces, format specs and values that are no strings stay as the operator wrote them."""
    written = {"json": '{"a": 1}', "open": "{", "spec": "{0} {user_code!r} {}", "number": 3}

    assert template(written).fill(Query("q", "u01")) == written


def test_what_a_person_is_called_is_not_a_template() -> None:
    """A name that looks like a placeholder is not filled a second time."""
    sly = Identity("cached", UserInfo("u01", "{token}"), token="fake-token")

    assert template({"n": "{user_name}"}).fill(Query("q", "u01", identity=sly)) == {"n": "{token}"}


def test_without_a_user_record_the_user_id_stands_in() -> None:
    """Where authentication knows no record, user_code is the id of who asks, the rest is empty."""
    filled = template({"a": "{user_code}", "b": "{user_name}", "c": "{token}"}).fill(Query("q", "wx_42"))

    assert filled == {"a": "wx_42", "b": "", "c": ""}


def test_placeholders_inside_lists_and_objects_are_filled() -> None:
    """An app's inputs may be nested; what the settings accept is filled."""
    inputs = template({"a": {"b": "{user_code}"}, "l": ["{user_code}", 1]})

    assert inputs.fill(Query("q", "u01")) == {"a": {"b": "u01"}, "l": ["u01", 1]}


def test_the_question_own_inputs_win() -> None:
    """What a question brings goes over the template."""
    inputs = template({"lang": "zh", "role": "all"})

    assert inputs.fill(Query("q", "u", inputs={"lang": "en"})) == {"lang": "en", "role": "all"}


def test_nobody_says_who_asks_but_we() -> None:
    """What the template fills in from the person is no caller's to choose, nested or not."""
    inputs = template({"userCode": "{user_code}", "who": {"name": ["{user_name}"]}, "lang": "zh"})

    filled = inputs.fill(Query("q", "u01", inputs={"userCode": "boss", "who": "boss", "lang": "en", "more": 1}))

    assert filled == {"userCode": "u01", "who": {"name": [""]}, "lang": "en", "more": 1}


def test_a_template_tells_its_names() -> None:
    """Every question carries them."""
    inputs = template({"lang": "zh", "role": "all"})

    assert inputs.names == {"lang", "role"}


def test_an_unknown_placeholder_stops_the_start() -> None:
    """A misspelt name is told at construction, with the names there are."""
    with pytest.raises(SettingsError, match=r"DIFY_INPUTS.*\{usercode\}.*\{user_code\}"):
        template({"a": "{usercode}"})


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
    """The hours change as the original's did."""
    told = json.loads(time_info(SATURDAY.replace(hour=hour)))

    assert (told["时间段"], told["是否白天"]) == (part, daylight)


def test_time_info_has_the_original_keys() -> None:
    """The six keys that the original's prompts read."""
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
    """A season is three months, winter begins in December."""
    assert json.loads(time_info(SATURDAY.replace(month=month, day=1)))["季节"] == season
