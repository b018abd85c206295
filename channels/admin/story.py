"""The story of one question, step by step: what the log and the stream in Redis know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from channels.web.rest import RestModel
from services.streams.records import Chunk
from services.usage.log_store import Row, SaidOf

Event = Literal[
    "asked", "authenticated", "waited", "provider_asked", "first_text", "taken_over", "ended", "late_message", "rated"
]


class StoryStep(RestModel):
    """One step; the time of some is not known."""

    event: Event
    time: str | None
    seconds: float | None = Field(description="Since the question.")
    detail: str = Field(
        description="The channel of `asked`, the state of `authenticated` and `late_message`, the app of "
        "`provider_asked`, the outcome of `ended`, the rating of `rated`."
    )
    count: int | None = Field(description="How often, of `provider_asked` and `taken_over`.")


class Story(RestModel):
    """The steps of one question in their order."""

    stream_id: str
    in_log: bool = Field(description="Whether the question log has it.")
    in_redis: bool | None = Field(description="Whether its stream has not expired; null while Redis is away.")
    steps: list[StoryStep]


def steps(
    logged: tuple[Row, SaidOf] | None, fields: Mapping[str, str], chunks: Sequence[Chunk], zone: ZoneInfo
) -> Iterator[dict[str, Any]]:
    """Yield the steps of a question that the log or Redis has; `fields` and `chunks` are empty without its stream."""
    row, said = logged or (None, SaidOf())
    asked: datetime = row["time"] if row else datetime.fromisoformat(fields["created_time"])

    def step(event: Event, detail: str = "", *, at: datetime | None = None, count: int | None = None) -> dict[str, Any]:
        time = at.astimezone(zone).isoformat(timespec="milliseconds") if at else None
        seconds = round(max(0.0, (at - asked).total_seconds()), 3) if at else None
        return {"event": event, "time": time, "seconds": seconds, "detail": detail, "count": count}

    yield step("asked", row["channel"] if row else "", at=asked)
    if state := fields.get("auth_state"):
        yield step("authenticated", state)
    if "waiting" in fields:
        yield step("waited", "waiting" if fields["waiting"] else "")
    if asks := row["asks"] if row else int(fields.get("asks") or 0):
        yield step("provider_asked", row["provider"] if row else fields.get("provider", ""), count=asks)
    first, end = _times(row, asked, fields, chunks)
    if first:
        yield step("first_text", at=first)
    if takeovers := row["takeovers"] if row else int(fields.get("takeovers") or 0):
        yield step("taken_over", count=takeovers)
    if (outcome := row["outcome"] if row else fields.get("error_code") or fields["status"]) != "processing":
        yield step("ended", outcome, at=end)
    if delivered := fields.get("delivered", "").partition(" ")[0]:
        yield step("late_message", delivered)
    if said.rating:
        yield step("rated", said.rating, at=said.at)


def _times(
    row: Row | None, asked: datetime, fields: Mapping[str, str], chunks: Sequence[Chunk]
) -> tuple[datetime | None, datetime | None]:
    """Return when the first text came and when the answer ended, None where that has not happened."""
    if row:
        first = row["first_text_seconds"]
        return (asked + timedelta(seconds=first) if first is not None else None), asked + timedelta(
            seconds=row["seconds"]
        )
    texts = [chunk.timestamp for chunk in chunks if chunk.content and not chunk.is_error]
    is_over = fields["status"] != "processing" and chunks
    return (
        datetime.fromisoformat(texts[0]) if texts else None,
        datetime.fromisoformat(chunks[-1].timestamp) if is_over else None,
    )
