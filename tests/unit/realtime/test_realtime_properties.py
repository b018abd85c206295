"""Properties of a realtime session that hold for any messages, and for answers that grow, fail and are cancelled."""

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
from services.realtime.answers import MOST
from services.realtime.effects import Frame, SessionAnswer
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
#: Messages that get no reply, or an error, after their ack.
BARE = st.sampled_from(["pong", "auth", "subscribe", "unsubscribe", "dance", "", "x" * 100]).flatmap(message)
STOP = message("control", action=st.just("stop"), close=st.just(True))
ODD = st.tuples(
    st.just("message"), JSON | st.dictionaries(st.sampled_from(["type", "text", "action"]), JSON | st.just("control"))
)
GROW = st.tuples(st.just("grow"), st.lists(st.text(min_size=1, max_size=4), max_size=3))
RESET = st.tuples(st.just("reset"), st.lists(st.text(min_size=1, max_size=4), max_size=2))
END = st.tuples(st.just("end"), st.sampled_from(["completed", "completed", "error", "cancelled", "failed"]))
REFUSAL = st.tuples(st.just("refusal"), st.sampled_from(["rate_limited", "store_unavailable"]))
STEPS = st.lists(
    FINAL | FINAL | CONTROL | RESUME | OTHER | BARE | STOP | ODD | GROW | GROW | RESET | END | REFUSAL, max_size=40
)

SCHEMA = json.loads(FRAMES.read_text("utf-8"))
FRAME = Draft202012Validator({"$ref": "#/$defs/realtime.server", "$defs": SCHEMA["$defs"]})
#: Frames that may name a stream but do not belong to its answer.
BESIDE = ("error", "queued")


class World(Desk):
    """A desk whose answers do what the steps say; it records the acks, and the pieces of each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[SessionAnswer] = []
        self.acked: list[tuple[str, list[Frame]]] = []
        self.pieces_shown: dict[SessionAnswer, int] = defaultdict(int)

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
        """Begin the first answer in the queue, if it has not begun; return it."""
        if self.line and not self.line[0].begun:
            self.begins()
        return self.line[0] if self.line else None

    def news(self, pieces: list[str], *, reset: bool) -> None:
        if answer := self.turn():
            count = self.pieces_shown[answer]
            self.grows(*pieces, first=0 if reset else count, cursor=count, reset=reset)
            self.pieces_shown[answer] = count + len(pieces)

    def end(self, outcome: str) -> None:
        if answer := self.turn():
            if outcome == "failed":
                self.line.pop(0)
                self.does(self.session.answers.failed(answer, "stream_unknown"))
            else:
                self.ends(outcome, code="provider_error" if outcome == "error" else "")  # type: ignore[arg-type]

    def finish(self) -> None:
        while self.line:
            self.end("completed")


def played(steps: list[tuple[str, Any]]) -> World:
    world = World()
    world.does(world.session.open())
    for what, value in steps:
        world.step(what, value)
        assert len(world.session.answers.unfinished) <= MOST, "the number of unfinished answers is bounded"
    world.finish()
    return world


def turns(frames: list[Frame]) -> list[list[Frame]]:
    """Return the frames that name a stream, one list for each time a stream was shown."""
    shown: dict[str, list[Frame]] = {}
    ended: list[list[Frame]] = []
    for frame in frames:
        if frame["type"] in BESIDE or "stream_id" not in frame:
            continue
        shown.setdefault(frame["stream_id"], []).append(frame)
        if frame.get("final"):
            ended.append(shown.pop(frame["stream_id"]))
    return [*ended, *shown.values()]


@settings(max_examples=examples(300))
@given(STEPS)
def test_a_session_keeps_its_protocol_for_any_messages(steps: list[tuple[str, Any]]) -> None:
    """Each frame is valid by the published schema, and each rule below holds."""
    world = played(steps)

    for frame in world.frames:
        assert frame["session_id"] in ("s1", "s2")
        FRAME.validate(json.loads(json.dumps(frame)))
    every_answer_that_begins_has_exactly_one_final_frame(world)
    every_question_is_answered_or_visibly_interrupted(world)
    one_answer_is_shown_at_a_time(world)
    stages_have_a_valid_order(world)
    every_message_with_a_type_is_acknowledged_once_and_first(world)


def every_answer_that_begins_has_exactly_one_final_frame(world: World) -> None:
    """A status, pieces numbered from 0, also after a reset, then one final frame as the last."""
    for shown in turns(world.frames):
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


def every_question_is_answered_or_visibly_interrupted(world: World) -> None:
    """Each stream has its final frame, or was cancelled while it was queued, by an interrupting."""
    finals = [frame["stream_id"] for frame in world.frames if frame.get("final")]
    asked = [f"stream{number}" for number in range(1, len(world.asked) + 1)]
    unseen = [stream_id for stream_id in asked if stream_id not in finals]

    event(f"{len(asked)} asked, {len(unseen)} given up unseen")
    assert set(unseen) <= set(world.cancelled)
    assert not unseen or "interrupting" in stages(world.frames)
    assert world.session.answers.unfinished == ()


def one_answer_is_shown_at_a_time(world: World) -> None:
    """No other answer's frame comes between an answer's first frame and its last."""
    open_stream = ""
    for frame in world.frames:
        if frame["type"] in BESIDE or "stream_id" not in frame:
            continue
        assert open_stream in ("", frame["stream_id"])
        open_stream = "" if frame.get("final") else frame["stream_id"]


def stages_have_a_valid_order(world: World) -> None:
    """A question's stages are adjacent; idle follows its answer unless it was interrupted; closed is the last."""
    shown_stages = stages(world.frames)
    interrupted = False

    assert "closed" not in shown_stages[:-1]
    for before, after in pairwise(shown_stages):
        interrupted = before == "interrupting" or (interrupted and before == "final CANCELLED")
        if before in ("analyzing", "instant_query"):
            assert after == "querying_rag"
        if before.startswith("final") and not interrupted:
            assert after == "idle"


def every_message_with_a_type_is_acknowledged_once_and_first(world: World) -> None:
    """The ack is the first frame of the reply, and the only ack."""
    for kind, frames in world.acked:
        assert [frame["type"] for frame in frames].count("ack") == 1
        assert frames[0]["received_type"] == kind[:64]


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.booleans(), st.lists(st.text(min_size=1), max_size=4)), max_size=6))
def test_the_pieces_a_client_receives_are_the_answer(news: list[tuple[bool, list[str]]]) -> None:
    """The concatenated pieces since the last reset are the text, byte for byte."""
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
    """The question was cancelled while it was being asked."""
    world = World()
    effects = world.session.received({"type": "asr_chunk", "text": "几天？", "is_final": True})
    world.controls(between)

    world.does(effects)
    world.finish()

    late = world.asked.index(("几天？", "s1"), 1 if between == "instant_query" else 0) + 1
    assert f"stream{late}" in world.cancelled
    assert world.session.answers.unfinished == ()
