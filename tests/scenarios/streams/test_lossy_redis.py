"""Appends over a network that loses requests and replies, and on a Redis that restarts, stay exact to the byte."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from services.errors import StoreUnavailable
from services.models import Attempt, Delta, Question, Replacement
from services.redis.store import ScriptRunner, connect
from services.streams.answer_events import AnswerEvent
from services.streams.manager import StreamLimits, StreamManager
from services.streams.records import NewStream
from services.streams.store import StreamStore, stream_keys
from tests.scenarios.stage.people import TIMEOUT, stored
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.servers.relay import LossyRelay
from tests.support.streams.handlers import answers_of
from tests.support.texts import KEYS
from utils.deadline import Deadline

pytestmark = [pytest.mark.scenario, pytest.mark.full]

STREAMS = 6
DELTAS = 60


class Writer:
    """A replica's stream manager with scripted answers, and a reader of its streams."""

    def __init__(self, url: str, answers: Sequence[Sequence[AnswerEvent]], pause: float) -> None:
        self._client = connect(url, pool_size=8)
        self.store = StreamStore(ScriptRunner(self._client), max_seconds=60.0)
        self._answers = answers
        self._pause = pause
        self._manager = StreamManager(
            self.store,
            self.store,
            answers_of(self._answer),
            texts=KEYS,
            limits=StreamLimits(STREAMS, max_bytes=1_000_000),
        )
        self._manager.start()

    def _answer(
        self, question: Question, stream_id: str, deadline: Deadline, attempt: Attempt | None
    ) -> Iterator[AnswerEvent]:
        for event in self._answers[int(question.text)]:
            yield event
            time.sleep(self._pause)

    def begin(self) -> list[str]:
        """Create all streams, trying again like WeCom until there is a reply, and start their producers."""
        ids = [f"s{number}" for number in range(STREAMS)]
        for number, stream_id in enumerate(ids):
            question = Question(str(number), "wecom", "default", "zhangsan")
            fields = {"status": "processing", "content": question.text, "question": question.to_json()}
            new = NewStream(stream_id, f"owner{number}", fields, frame_seconds=330.0)
            while not self._opened(new):
                pass
            self._manager.reserve()
            self._manager.produce(new, question)
        return ids

    def _opened(self, new: NewStream) -> bool:
        try:
            return self.store.open(new)[0]
        except StoreUnavailable:
            return False

    def sees(self, stream_id: str) -> str | None:
        """Return the text that a poll shows, None if the poll was lost."""
        with suppress(StoreUnavailable):
            snapshot = self.store.read(stream_id)
            assert snapshot, "a stream that was opened is there"
            return snapshot.text
        return None

    def wait_end(self) -> None:
        wait_until(lambda: self._manager.running == 0, TIMEOUT)

    def close(self) -> None:
        self._manager.close()
        self._client.close()


def scripted(seed: int) -> list[list[AnswerEvent]]:
    """Return answers in which every delta is different; the first answer is replaced half-way."""
    dice = random.Random(seed)
    signs = '年假申请🙂é\n"\\\u2028x '
    answers: list[list[AnswerEvent]] = [
        [
            Delta(f"[{stream}.{piece}]" + "".join(dice.choices(signs, k=dice.randrange(1, 30))))
            for piece in range(DELTAS)
        ]
        for stream in range(STREAMS)
    ]
    answers[0][DELTAS // 2] = Replacement("从头再来")
    return answers


def whole(events: Sequence[AnswerEvent]) -> str:
    """Return the text that these events build."""
    text = ""
    for event in events:
        match event:
            case Delta(piece):
                text += piece
            case Replacement(piece):
                text = piece
    return text


def beginnings(events: Sequence[AnswerEvent]) -> dict[str, int]:
    """Return every text that the stream may show, with the number of events that build it."""
    return {whole(events[:count]): count for count in range(len(events) + 1)}


def read_along(writer: Writer, ids: Sequence[str], answers: Sequence[Sequence[AnswerEvent]]) -> Callable[[], None]:
    """Poll all streams in a thread; return a function that stops it and checks that no text went backwards."""
    over = threading.Event()
    shown: dict[str, list[str]] = {stream_id: [] for stream_id in ids}

    def poll() -> None:
        while not over.is_set():
            for stream_id in ids:
                if (text := writer.sees(stream_id)) is not None:
                    shown[stream_id].append(text)

    reader = threading.Thread(target=poll)
    reader.start()

    def check() -> None:
        over.set()
        reader.join()
        for stream_id, events in zip(ids, answers, strict=True):
            known = beginnings(events)
            positions = [known.get(text, -1) for text in shown[stream_id]]
            assert -1 not in positions
            assert positions == sorted(positions)

    return check


def assert_exact(server: RedisServer, ids: Sequence[str], answers: Sequence[Sequence[AnswerEvent]]) -> None:
    for stream_id, events in zip(ids, answers, strict=True):
        found, answer = stored(server, stream_id), whole(events).encode()
        assert found.fields["status"] == "completed"
        assert (found.text, found.list_text) == (answer, answer)


@pytest.mark.parametrize("seed", range(6))
def test_appends_stay_exact_over_a_lossy_network(redis_server: RedisServer, redis_url: str, seed: int) -> None:
    """List, text and answer are equal, byte for byte, with any loss of requests and replies."""
    answers = scripted(seed)
    with LossyRelay(redis_server.port, seed, silent_every=10) as proxy:
        writer = Writer(f"redis://127.0.0.1:{proxy.port}/1", answers, pause=0.01)
        ids = writer.begin()
        check = read_along(writer, ids, answers)
        writer.wait_end()
        check()
        writer.close()

    assert_exact(redis_server, ids, answers)
    assert proxy.losses["reply"] + proxy.losses["half"] > 0


@pytest.mark.parametrize("crash", [False, True], ids=["restarted", "killed"])
def test_appends_stay_exact_over_a_restarted_redis(crash: bool) -> None:
    """Acknowledged writes are in the append-only file; the owner sends the others again when Redis is back."""
    answers = scripted(100)
    with RedisServer(aof=True) as server:
        writer = Writer(server.url(), answers, pause=0.03)
        ids = writer.begin()
        check = read_along(writer, ids, answers)
        for _ in range(2):
            enough = written(server, ids) + 30
            wait_until(lambda: written(server, ids) > enough)  # noqa: B023 - called before the next round
            (server.kill if crash else server.stop)()
            server.start()
        writer.wait_end()
        check()
        writer.close()

        assert_exact(server, ids, answers)


def written(server: RedisServer, ids: Sequence[str]) -> int:
    """Return the number of stored chunks."""
    with server.client() as client:
        return sum(client.llen(stream_keys(stream_id).messages) for stream_id in ids)
