"""Builds a question's inputs from the template DIFY_INPUTS or CUSTOM_RAG_INPUTS and the asker."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Any

from services.models import Query, UserInfo

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: Placeholders that have the name of a field of `Asker`.
_OF_ASKER = ("userid", "name", "department", "chatid", "chattype", "bot", "msgid")
_WEEKDAYS = "一二三四五六日"


class InputsTemplate:
    """A mapping whose string values may hold placeholders.

    `{user_code} {user_name} {gender} {token}` are of the user record, `{userid} {name} {department} {chatid}
    {chattype} {bot} {msgid}` of WeCom's message and directory, `{channel}` of the question, `{time_info}` is the time.
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.time,
        timezone: tzinfo | None = None,
    ) -> None:
        """`timezone` None means the server's local time."""
        self._template = dict(template)
        #: Inputs with a placeholder, so about the person or the time. A question must not override them.
        self._personal = {name for name, value in template.items() if _PLACEHOLDER.search(json.dumps(value))}
        self._clock = clock
        self._timezone = timezone

    @property
    def names(self) -> frozenset[str]:
        """The names of the inputs that are sent with every question."""
        return frozenset(self._template)

    def missing(self, form: Any) -> list[str]:
        """Return the names of inputs that the app's `user_input_form` requires and the template lacks."""
        required = [str(field.get("variable")) for _, field in _fields(form) if field.get("required")]
        return [name for name in required if name not in self._template]

    def wrong(self, form: Any) -> list[str]:
        """Describe fixed values that a select of `user_input_form` lacks; the app rejects every question with one."""
        offered = {str(field.get("variable")): _options(field) for kind, field in _fields(form) if kind == "select"}
        fixed = sorted(offered.keys() & self._template.keys() - self._personal)
        return [
            f"{name} is {self._template[name]!r}, expected one of {', '.join(map(repr, offered[name]))}"
            for name in fixed
            if self._template[name] not in offered[name]
        ]

    def fill(self, query: Query) -> dict[str, Any]:
        """Return a question's inputs. Its own inputs override the template's, except those with placeholders."""
        if not self._template:
            return dict(query.inputs)
        values = self._values(query)
        filled = {name: _filled(value, values) for name, value in self._template.items()}
        own = {name: value for name, value in query.inputs.items() if name not in self._personal}
        return filled | own

    def _values(self, query: Query) -> Mapping[str, str]:
        user = query.identity.user or UserInfo(query.user)
        return {
            "user_code": user.user_code,
            "user_name": user.user_name,
            "gender": user.gender,
            "token": query.identity.token,
            "time_info": time_info(datetime.fromtimestamp(self._clock(), self._timezone)),
            "channel": query.channel,
            **{name: getattr(query.asker, name) for name in _OF_ASKER},
        }


def _fields(form: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and the definition of each field of a form."""
    for item in form if isinstance(form, list) else ():
        for kind, field in item.items() if isinstance(item, dict) else ():
            if isinstance(field, dict):
                yield kind, field


def _options(select: Mapping[str, Any]) -> list[Any]:
    options = select.get("options")
    # Dify accepts an empty value for a select that is not required.
    return (list(options) if isinstance(options, list) else []) + ([] if select.get("required") else [""])


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, values) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    # Not str.format: other braces in the operator's text must stay as they are.
    return _PLACEHOLDER.sub(lambda match: values[match[1]], value) if isinstance(value, str) else value


def time_info(now: datetime) -> str:
    """Return the time as a JSON string, with the Chinese keys that the original system's prompts expect."""
    return json.dumps(
        {
            "当前日期": f"{now:%Y-%m-%d}",
            "星期": f"星期{_WEEKDAYS[now.weekday()]}",
            "当前时间": f"{now:%H:%M:%S}",
            "时间段": _part_of_day(now.hour),
            "是否白天": 6 <= now.hour < 18,
            "季节": "冬春夏秋"[now.month % 12 // 3] + "季",
        },
        ensure_ascii=False,
    )


def _part_of_day(hour: int) -> str:
    for name, start, end in (("上午", 5, 12), ("下午", 12, 18), ("晚上", 18, 22)):
        if start <= hour < end:
            return name
    return "深夜"
