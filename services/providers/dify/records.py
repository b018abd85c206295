"""What Dify keeps: the result of a run, and a message of the history."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.models import Usage
from services.providers.client.json_fields import count, mapping, mappings, price, text

#: Without brackets within brackets: however often one opens, the text is searched once.
_IMAGE = re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)")


@dataclass(frozen=True, slots=True)
class DifyRun:
    """A chatflow's run, from its result or from `workflow_finished`; `answer` is "" until it has ended, if not after.

    The answer is the workflow's own: what Dify's moderation made of it is in the history alone.
    """

    status: str = ""
    answer: str = ""
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> DifyRun:
        answer = text(_outputs(result.get("outputs")).get("answer"))
        return cls(text(result.get("status")), answer, Usage(total_tokens=count(result.get("total_tokens"))))


def _outputs(value: Any) -> Mapping[str, Any]:
    """Return the outputs, an object in some versions and its JSON in others."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    return mapping(value)


@dataclass(frozen=True, slots=True)
class DifyMessage:
    """A question's row in the history. Dify writes it when the run begins, and fills it when it has ended."""

    status: str
    answer: str
    #: Dify has filled the row, be it without a text.
    filled: bool
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> DifyMessage:
        answer, filled = text(row.get("answer")), _filled(row)
        if not answer and filled:
            answer = _thoughts(row.get("agent_thoughts"))
        return cls(text(row.get("status")), answer, filled or bool(answer), _usage(row))

    def with_images(self, original: str) -> str:
        """Return the answer; with its images where nothing but they make the run's own answer differ.

        Dify takes images out of what it saves where a run has made files.
        """
        return original if _IMAGE.sub("", original).strip() == self.answer else self.answer


def _filled(row: Mapping[str, Any]) -> bool:
    """Tell whether the run has ended: only then Dify writes how long it took and what it cost.

    Older versions do not show either; there a row without an answer tells nothing.
    """
    latency = row.get("provider_response_latency")
    return count(row.get("answer_tokens")) > 0 or (isinstance(latency, (int, float)) and latency > 0)


def _thoughts(value: Any) -> str:
    """Return what an agent said step by step: some runs end with an empty answer, their text in the thoughts."""
    thoughts = sorted(mappings(value), key=lambda each: count(each.get("position")))
    return "\n".join(said for each in thoughts if (said := text(each.get("thought"))))


def _usage(row: Mapping[str, Any]) -> Usage:
    prompt, completion = count(row.get("message_tokens")), count(row.get("answer_tokens"))
    return Usage(
        total_tokens=count(row.get("total_tokens")) or prompt + completion,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_price=price(row.get("total_price")),
        currency=text(row.get("currency")),
        sources=tuple(mappings(row.get("retriever_resources"))),
    )
