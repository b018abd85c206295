"""What holds of a realtime session whatever is said, and however its answers come, grow, fail and are given up."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from channels.web.pages.docs import FRAMES
from services.realtime.effects import Frame, SessionAnswer
from services.realtime.session import MOST
from tests.support.properties import examples
from tests.support.sockets.realtime_desk import Desk, stages

TEXTS = st.sampled_from(["好。", "年假有几天？", "我发烧了。能打疫苗吗？", "……", " ", "hello"]) | st.text(max_size=8)
SESSION = st.fixed_dictionaries({}, optional={"session_id": st.sampled_from(["s1", "s2", "", None, 7])})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


def message(kind: str, **members: Any) -> st.SearchStrategy[tuple[str, Any]]:
    own = st.fixed_dictionaries({"type": st.just(kind), **members})
    return st.tuples(st.just("message"), st.builds(lambda one, session: {**one, **session}, own, SESSION))


FINAL = message("asr_chunk", text=TEXTS, is_final=st.just(True))
CONTROL = message("control", action=st.sampled_from(["pause", "resume", "stop", "instant_query", "instant_query", "?"]))
RESUME = message("resume", stream_id=st.sampled_from(["a", "b", "stream1"]), cursor=st.integers(0, 3))
OTHER = message("asr_chunk", text=TEXTS) | message("keepalive") | message("ping", timestamp=JSON)
LEAVES = message("control", action=st.just("stop"), close=st.just(True))
ODD = st.tuples(
    st.just("message"), JSON | st.dictionaries(st.sampled_from(["type", "text", "action"]), JSON | st.just("control"))
)
NEWS = st.tuples(st.just("grow"), st.lists(st.text(min_size=1, max_size=4), max_size=3))
RESET = st.tuples(st.just("reset"), st.lists(st.text(min_size=1, max_size=4), max_size=2))
END = st.tuples(st.just("end"), st.sampled_from(["completed", "completed", "error", "cancelled", "failed"]))
REFUSAL = st.tuples(st.just("refusal"), st.sampled_from(["rate_limited", "store_unavailable"]))
STEPS = st.lists(
    FINAL | FINAL | CONTROL | RESUME | OTHER | LEAVES | ODD | NEWS | NEWS | RESET | END | REFUSAL, max_size=40
)

SCHEMA = json.loads(FRAMES.read_text("utf-8"))
FRAME = Draft202012Validator({"$ref": "#/$defs/realtime.server", "$defs": SCHEMA["$defs"]})
#: Frames that may name a stream and are none of its turn's.
BESIDE = ("error", "queued")


class World(Desk):
    """A desk whose answers do what the test says; remembers what each of them said."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[SessionAnswer] = []
        self.said: dict[str, str] = defaultdict(str)
        self.acked: list[tuple[str, list[Frame]]] = []
        self.places: dict[SessionAnswer, int] = defaultdict(int)

    def step(self, what: str, value: Any) -> None:
        match what:
            case "message":
                self.message(value)
            case "grow" | "reset":
                self.news(value, reset=what == "reset")
            case "end":
                self.end(value)
            case "refusal":
                self.refusals.append(value)

    def message(self, value: Any) -> None:
        over = self.close is not None
        frames = self.sends(value)
        if not over and isinstance(value, dict) and isinstance(value.get("type"), str):
            self.acked.append((value["type"], frames))

    def turn(self) -> SessionAnswer | None:
        """Let the first in the line begin, if it has not."""
        if self.line and not self.line[0].begun:
            self.begins()
        return self.line[0] if self.line else None

    def news(self, pieces: list[str], *, reset: bool) -> None:
        if answer := self.turn():
            place = self.places[answer]
            self.grows(*pieces, first=0 if reset else place, cursor=place, reset=reset)
            self.places[answer] = place + len(pieces)

    def end(self, how: str) -> None:
        if answer := self.turn():
            if how == "failed":
                self.line.pop(0)
                self.does(self.session.failed(answer, "stream_unknown"))
            else:
                self.ends(how, code="provider_error" if how == "error" else "")  # type: ignore[arg-type]

    def finish(self) -> None:
        while self.line:
            self.end("completed")


def played(steps: list[tuple[str, Any]]) -> World:
    world = World()
    world.does(world.session.open())
    for what, value in steps:
        world.step(what, value)
    world.finish()
    return world


def turns(frames: list[Frame]) -> list[list[Frame]]:
    """Return the frames that name a stream, one list for each time that one was shown."""
    shown: dict[str, list[Frame]] = {}
    ended: list[list[Frame]] = []
    for frame in frames:
        if frame["type"] in BESIDE or "stream_id" not in frame:
            continue
        shown.setdefault(frame["stream_id"], []).append(frame)
        if frame.get("final"):
            ended.append(shown.pop(frame["stream_id"]))
    return [*ended, *shown.values()]


@settings(max_examples=examples(150))
@given(STEPS)
def test_every_frame_is_one_of_the_published_ones(steps: list[tuple[str, Any]]) -> None:
    """The schema knows them all; each has a session, and can be sent."""
    world = played(steps)

    for frame in world.frames:
        assert frame["session_id"] in ("s1", "s2")
        FRAME.validate(json.loads(json.dumps(frame)))


@settings(max_examples=examples(150))
@given(STEPS)
def test_every_answer_that_begins_has_exactly_one_end(steps: list[tuple[str, Any]]) -> None:
    """Its status, its pieces numbered from 0 on, then one final frame, and nothing after it."""
    for shown in turns(played(steps).frames):
        answers = [frame for frame in shown if frame["type"] == "answer"]
        first = next(frame for frame in shown if frame["type"] != "status")
        assert shown[0]["type"] == "status"
        assert [frame["final"] for frame in answers].count(True) == 1
        assert shown[-1]["final"] is True
        assert first["type"] == "reset" or first["stream_index"] == 0
        for before, after in pairwise(frame for frame in shown if frame["type"] != "status"):
            if after["type"] == "answer":
                assert after["stream_index"] == (0 if before["type"] == "reset" else before["stream_index"] + 1)
                assert after["cursor"] >= before["cursor"]


@settings(max_examples=examples(150))
@given(STEPS)
def test_every_question_is_answered_or_given_up_for_all_to_see(steps: list[tuple[str, Any]]) -> None:
    """Each stream that was asked for has its final frame, or was cancelled, waiting, by an interrupting."""
    world = played(steps)
    finals = [frame["stream_id"] for frame in world.frames if frame.get("final")]
    asked = [f"stream{number}" for number in range(1, len(world.asked) + 1)]
    unseen = [stream_id for stream_id in asked if stream_id not in finals]

    event(f"{len(asked)} asked, {len(unseen)} given up unseen")
    assert set(unseen) <= set(world.cancelled)
    assert not unseen or "interrupting" in stages(world.frames)
    assert world.session.unfinished == ()


@settings(max_examples=examples(150))
@given(STEPS)
def test_one_answer_is_shown_at_a_time(steps: list[tuple[str, Any]]) -> None:
    """Between an answer's first frame and its last there is no other's."""
    open_stream = ""
    for frame in played(steps).frames:
        if frame["type"] in BESIDE or "stream_id" not in frame:
            continue
        assert open_stream in ("", frame["stream_id"])
        open_stream = "" if frame.get("final") else frame["stream_id"]


@settings(max_examples=examples(150))
@given(STEPS)
def test_stages_follow_each_other_as_they_may(steps: list[tuple[str, Any]]) -> None:
    """A question's stages come together; after its answer comes idle, unless it was interrupted; closed is last."""
    world = played(steps)
    words = stages(world.frames)
    interrupted = False

    assert "closed" not in words[:-1]
    for before, after in pairwise(words):
        interrupted = before == "interrupting" or (interrupted and before == "final CANCELLED")
        if before in ("analyzing", "instant_query"):
            assert after == "querying_rag"
        if before.startswith("final") and not interrupted:
            assert after == "idle"


@settings(max_examples=examples(150))
@given(STEPS)
def test_every_message_with_a_type_is_acknowledged_once_and_first(steps: list[tuple[str, Any]]) -> None:
    """Whatever becomes of it."""
    for kind, frames in played(steps).acked:
        assert [frame["type"] for frame in frames].count("ack") == 1
        assert frames[0]["received_type"] == kind[:64]


@settings(max_examples=examples(100))
@given(STEPS)
def test_few_answers_are_unfinished_and_little_is_asked(steps: list[tuple[str, Any]]) -> None:
    """However much is said."""
    world = World()
    for what, value in steps:
        world.step(what, value)
        assert len(world.session.unfinished) <= MOST


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.booleans(), st.lists(st.text(min_size=1), max_size=4)), max_size=6))
def test_what_a_client_puts_together_is_the_answer(news: list[tuple[bool, list[str]]]) -> None:
    """Its pieces since the last reset are the text, byte for byte."""
    world, text = World(), ""
    world.asks()
    for reset, pieces in news:
        world.news(pieces, reset=reset)
        text = ("" if reset else text) + "".join(pieces)
    world.end("completed")

    shown = ""
    for frame in world.frames:
        shown = "" if frame["type"] == "reset" else shown + frame.get("content", "")
    assert shown.encode("utf-8", "surrogatepass") == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("between", ["stop", "instant_query"])
def test_a_stream_that_comes_too_late_is_cancelled(between: str) -> None:
    """Its question was given up while it was being put."""
    world = World()
    effects = world.session.received({"type": "asr_chunk", "text": "几天？", "is_final": True})
    world.controls(between)

    world.does(effects)
    world.finish()

    late = world.asked.index(("几天？", "s1"), 1 if between == "instant_query" else 0) + 1
    assert f"stream{late}" in world.cancelled
    assert world.session.unfinished == ()
