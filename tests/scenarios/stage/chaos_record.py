"""The record of one question: longest stall, whether its answer is whole, calls of the provider; and tables of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble
from tests.scenarios.stage.chaos_fleet import Fleet
from tests.scenarios.stage.people import Stored, stored
from tests.support.servers.processes import RedisServer
from utils.stream_utils import render_frame

COLUMNS = (
    *("questions", "stall median", "max", "lost", "doubled", "interrupted", "backwards"),
    *("asked twice", "calls per question"),
)
#: Error codes of answers that were cut off.
CUT_OFF = ("interrupted", "provider_truncated", "provider_timeout", "answer_timeout")


@dataclass(frozen=True)
class Record:
    """One question: what its user saw, and what Redis and the provider have."""

    question: str
    finished: bool
    #: Longest time in seconds without a change of the bubble.
    stall: float
    #: Whether the bubble, the text and the list equal the provider's answer.
    right: bool
    #: Whether the text, or the list that it is made of, is longer than the answer.
    doubled: bool
    #: Whether the text was replaced.
    replaced: bool
    #: Whether it ended with the sentence of an answer that was cut off.
    interrupted: bool
    #: How often the bubble's text became shorter.
    backwards: int
    #: Number of calls of the provider.
    calls: int
    #: The kind of each takeover.
    takeovers: Sequence[str] = ()

    @property
    def lost(self) -> bool:
        return not (self.right or self.doubled)

    def __str__(self) -> str:
        fate = f"lost {self.lost:d}, doubled {self.doubled:d}, replaced {self.replaced:d}, "
        fate += f"interrupted {self.interrupted:d}, backwards {self.backwards}"
        owners = " + ".join(self.takeovers) or "no change of owner"
        return f"stall {self.stall:.1f} s, {fate}, calls {self.calls}, {owners}"


def examine(
    question: str, bubble: Bubble, found: Stored, answer: str, *, calls: int, takeovers: Sequence[str] = ()
) -> Record:
    """Return the record of a question whose answer should be `answer`."""
    whole = answer.encode()
    shown = bubble.finish and bubble.content == render_frame(answer, growing=False)
    right = shown and found.text == found.list_text == whole and found.fields["status"] == "completed"
    doubled = not right and max(len(found.text), len(found.list_text)) > len(whole)
    interrupted = found.fields.get("error_code", "") in CUT_OFF
    fate = (right, doubled, found.fields.get("start") != "0", interrupted, bubble.shrunk)
    return Record(question, bubble.finish, stall(bubble), *fate, calls, tuple(takeovers))


def records_of(asked: Mapping[str, Bubble], fleet: Fleet, redis: RedisServer, dify: MockDify) -> list[Record]:
    """Return the records of these questions, in their order."""
    calls = Counter(request.body["query"] for request in list(dify.requests))
    takeovers = fleet.takeovers()
    return [
        examine(
            question,
            bubble,
            stored(redis, bubble.stream_id),
            dify.expected_answer(question),
            calls=calls[question],
            takeovers=takeovers[bubble.stream_id],
        )
        for question, bubble in asked.items()
    ]


def stall(bubble: Bubble) -> float:
    """Return the longest time in seconds without a change, from the question to the last frame."""
    news = [new.at for old, new in pairwise(bubble.frames) if (old.content, old.finish) != (new.content, new.finish)]
    return max(later - earlier for earlier, later in pairwise([0.0, *news, bubble.last.at]))


def beginnings(answer: str) -> set[str]:
    """Return all contents that a bubble may show of an answer while it grows and at its end."""
    growing = {render_frame(answer[:end], growing=True) for end in range(1, len(answer) + 1)}
    return growing | {render_frame(answer, growing=False)} - {""}


def row(records: Sequence[Record]) -> list[str]:
    stalls, calls = [record.stall for record in records], [record.calls for record in records]
    lost, doubled = sum(record.lost for record in records), sum(record.doubled for record in records)
    figures = [str(len(records)), f"{median(stalls):.1f} s", f"{max(stalls):.1f} s", str(lost), str(doubled)]
    interrupted = sum(record.interrupted for record in records)
    backwards, twice = sum(record.backwards for record in records), sum(count > 1 for count in calls)
    return [*figures, str(interrupted), str(backwards), str(twice), f"{sum(calls) / len(calls):.2f}"]


def table(title: str, rows: Mapping[str, Iterable[Record]]) -> str:
    """Return a Markdown table with a row for each group of records; empty groups are left out."""
    groups = {name: list(records) for name, records in rows.items()}
    cells = [[title, *COLUMNS], *([name, *row(records)] for name, records in groups.items() if records)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *lines = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells)
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])
