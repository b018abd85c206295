"""Parses Dify's stored records: the result of a run, and a message of the conversation's history."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.models import Usage
from services.providers.client.json_fields import count, json_object, mapping, mappings, price, text

#: Matches no nested brackets, so the search stays linear in the text, however many brackets open.
_IMAGE = re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)")


@dataclass(frozen=True, slots=True)
class DifyRun:
    """A chatflow's run, read from its result or from `workflow_finished`.

    `answer` is "" until the run has ended, and may be "" after it. It is the workflow's own output: only the history
    has the text after Dify's moderation.
    """

    status: str = ""
    answer: str = ""
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> DifyRun:
        answer = text(_outputs(result.get("outputs")).get("answer"))
        return cls(text(result.get("status")), answer, Usage(total_tokens=count(result.get("total_tokens"))))


def _outputs(value: Any) -> Mapping[str, Any]:
    """Return the outputs: an object in some Dify versions, a JSON string in others."""
    return (json_object(value) or {}) if isinstance(value, str) else mapping(value)


@dataclass(frozen=True, slots=True)
class DifyMessage:
    """A question's row in the history. Dify inserts it when the run begins and fills it when the run has ended."""

    status: str
    answer: str
    #: Whether Dify has filled the row; the answer may still be empty.
    filled: bool
    usage: Usage = field(default_factory=Usage)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> DifyMessage:
        answer, filled = text(row.get("answer")), _filled(row)
        if not answer and filled:
            answer = _thoughts(row.get("agent_thoughts"))
        return cls(text(row.get("status")), answer, filled or bool(answer), _usage(row))

    def with_images(self, original: str) -> str:
        """Return `original`, the run's own answer, if it differs from the saved one only by images; else the saved one.

        Dify removes images from the saved answer when a run has created files.
        """
        return original if _IMAGE.sub("", original).strip() == self.answer else self.answer


def _filled(row: Mapping[str, Any]) -> bool:
    """Return whether the run has ended: only then does Dify write the latency and the token counts.

    Older versions show neither. There, a row without an answer does not say whether the run has ended.
    """
    latency = row.get("provider_response_latency")
    return count(row.get("answer_tokens")) > 0 or (isinstance(latency, (int, float)) and latency > 0)


def _thoughts(value: Any) -> str:
    """Join the texts of an agent's steps: some runs end with an empty answer and have their text in the thoughts."""
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
