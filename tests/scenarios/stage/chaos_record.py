"""What a question went through: seconds of stall, whether its answer is whole, what it cost, and a table of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from demo.wecom.simulator import Bubble
from tests.scenarios.stage.people import Stored
from utils.stream_utils import render_frame

COLUMNS = (
    *("questions", "stall median", "max", "lost", "doubled", "interrupted", "backwards"),
    *("asked twice", "calls per question"),
)
#: Codes of answers that end with a sentence about an end that came too soon.
CUT_OFF = ("interrupted", "provider_truncated", "provider_timeout", "answer_timeout")


@dataclass(frozen=True)
class Record:
    """One question, as its person saw it and as Redis and the provider have it."""

    question: str
    finished: bool
    #: Seconds of the longest time without news in the bubble.
    stall: float
    #: The bubble, the text and the list are the provider's answer, byte for byte.
    right: bool
    #: The text, or the list it comes from, has more than the answer.
    doubled: bool
    #: The text began anew.
    replaced: bool
    #: It ended with the sentence of an answer that was cut off.
    interrupted: bool
    #: How often the bubble's text became shorter.
    backwards: int
    #: How often the provider was asked.
    calls: int
    #: Kind of each change of owner.
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
    """Return what became of a question whose answer should be `answer`."""
    whole = answer.encode()
    shown = bubble.finish and bubble.content == render_frame(answer, growing=False)
    right = shown and found.text == found.said == whole and found.fields["status"] == "completed"
    doubled = not right and max(len(found.text), len(found.said)) > len(whole)
    interrupted = found.fields.get("error_code", "") in CUT_OFF
    fate = (right, doubled, found.fields.get("start") != "0", interrupted, bubble.shrunk)
    return Record(question, bubble.finish, stall(bubble), *fate, calls, tuple(takeovers))


def stall(bubble: Bubble) -> float:
    """Return the longest time without news, in seconds, from the question to the last frame."""
    news = [new.at for old, new in pairwise(bubble.frames) if (old.content, old.finish) != (new.content, new.finish)]
    return max(later - earlier for earlier, later in pairwise([0.0, *news, bubble.last.at]))


def beginnings(answer: str) -> set[str]:
    """Return what a bubble may show of an answer, at any moment."""
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
    """Return a Markdown table, a line per group of records; groups without any are left out."""
    groups = {name: list(records) for name, records in rows.items()}
    cells = [[title, *COLUMNS], *([name, *row(records)] for name, records in groups.items() if records)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *lines = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells)
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines])
