"""The benchmark's parts about answers: what they count is right, and each goes once through in short."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from bench import first_word, sockets, streams
from bench.load.posting import exchange, posted
from bench.load.stream_reader import reader, watch
from bench.load.stream_yardsticks import parse, yardsticks
from bench.streams import Spent, Turn, not_whole
from demo.mocks.dify.wire import Run
from services.streams.records import Chunk
from services.streams.store import stream_keys
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.full

SIZED = ["delay_p50", "delay_p99", "lost", "rss", "rate", "workers_share", "redis_share", "dify_share"]
SIZED += ["cpu_per_delta", "redis_cpu_per_delta", "redis_net_per_delta", "dify_net_per_delta"]
STREAMS = {f"streams.{size}.{name}" for size in (200, 500, 1000) for name in SIZED}
STREAMS |= {"streams.naive", "streams.parse"}
WORDS = {f"first_word.{which}.{percent}" for which in ("poll", "socket") for percent in ("p50", "p99")}
WORDS |= {"first_word.round_trip", "first_word.workers_share"}
SOCKETS = {"idle_kib", "idle_cpu", "answering_kib", "cpu_per_piece", "delay_p50", "delay_p99", "wrong"}


@pytest.mark.scenario
def test_streams_are_measured() -> None:
    """Crowds of each size get whole answers, every delta of some is seen, and the agreed rows come of it."""
    figures = {figure.name: figure for figure in streams.measure(0.02)}

    assert set(figures) == STREAMS
    assert [figures[f"streams.{size}.lost"].rounds for size in streams.SIZES] == [(0,)] * 3
    assert all(
        figures[name].value > 0 for name in STREAMS if not name.endswith(("lost", "share")) and "redis" not in name
    )
    assert figures["streams.1000.cpu_per_delta"].yardstick == "streams.naive"
    goals = {name: figure.goal for name, figure in figures.items() if figure.goal and "lost" not in name}
    assert goals == {
        "streams.1000.delay_p99": "< 250",
        "streams.1000.rss": "< 512",
        "streams.1000.cpu_per_delta": "<= 60",
    }


@pytest.mark.scenario
def test_first_words_are_measured() -> None:
    """Polls and sockets see the first words of each answer, and the agreed rows come of it."""
    figures = {figure.name: figure for figure in first_word.measure(0.02)}

    assert set(figures) == WORDS
    assert all(figure.value > 0 for figure in figures.values())
    # The poll that shows a word began after the one that did not.
    assert figures["first_word.poll.p50"].yardstick == "first_word.round_trip"


@pytest.mark.scenario
def test_sockets_are_measured() -> None:
    """Idle ones and answered ones, each answer as it was told; the agreed rows come of it."""
    figures = {figure.name: figure for figure in sockets.measure(0.02)}

    assert set(figures) == {f"sockets.{name}" for name in SOCKETS}
    assert figures["sockets.wrong"].rounds == (0,)
    assert figures["sockets.delay_p99"].value >= figures["sockets.delay_p50"].value > 0


def test_an_answer_that_is_not_whole_is_lost() -> None:
    """Cut, altered, unfinished, never begun, not told yet, or told twice: each counts once."""
    answers = dict.fromkeys(("whole", "cut", "altered", "unfinished", "none", "twice"), "年假@1.5|")
    asks = Counter([*answers, "untold", "twice"])
    found: dict[str, tuple[str | None, str | None]] = {
        "whole": ("completed", "年假@1.5|"),
        "cut": ("completed", "年假@1.5"),
        "altered": ("completed", "年假@1.6|"),
        "unfinished": ("processing", "年假@1.5|"),
        "none": (None, None),
        "untold": ("completed", None),
        "twice": ("completed", "年假@1.5|"),
    }

    assert not_whole(found, answers, asks) == ["cut", "altered", "unfinished", "none", "untold", "twice"]


def test_costs_are_those_of_the_deltas_meanwhile() -> None:
    """Microseconds a delta, and percent of a core."""
    before = Spent(seconds=10.0, workers=5.0, redis=1.0, dify=2.0, net=100.0, deltas=500, dify_net=1000)
    after = Spent(seconds=12.0, workers=6.0, redis=1.5, dify=2.1, net=900.0, deltas=20_500, dify_net=9000)
    turn = Turn(after - before, [0.001], lost=0, rss=1)

    assert (turn.per_delta(turn.spent.workers), turn.share(turn.spent.redis)) == (50.0, 25.0)
    assert (turn.spent.net, turn.spent.dify_net) == (800.0, 8000)


def write(client: redis.Redis, stream: str, *said: str) -> None:
    """Write what was said as one chunk, as a stream's owner does."""
    client.rpush(stream_keys(stream).messages, Chunk("".join(said), "").args()[0])


def delta(seconds_ago: float = 0.0) -> str:
    return f"年假@{time.time() - seconds_ago:.6f}|"


def test_the_reader_sees_each_delta_once_and_when_it_was_there(redis_url: str) -> None:
    """What is there before it looks does not count; of a chunk of two, both do; a delay is never too short."""
    with redis.Redis.from_url(redis_url) as client:
        write(client, "one", delta(99.0), delta(99.0))

        def looks() -> bool:
            return any(each["cmd"] == "lrange" for each in client.client_list())

        def say() -> None:
            wait_until(looks)
            for number in range(10):
                time.sleep(0.02)
                write(client, "one", delta(5.0), delta(5.0))
                write(client, f"other-{number % 2}", delta(7.0))

        telling = threading.Thread(target=say)
        telling.start()
        delays = watch(redis_url, ["one", "other-0", "other-1"], 4.0)
        telling.join()

    assert len(delays) == 30
    assert sorted(delays)[0] >= 5.0
    assert sum(delay >= 7.0 for delay in delays) >= 10
    assert max(delays) < 60.0


def test_the_reader_looks_from_a_process_of_its_own(redis_url: str) -> None:
    """One watch after the other, each for its time."""
    with reader() as looking:
        assert looking.watch(redis_url, ["none"], 0.1) == []
        assert looking.watch(redis_url, ["none", "neither"], 0.1) == []


@pytest.mark.parametrize("size", [1, 7, 350, 10**6])
def test_parsing_finds_the_answer_however_it_is_cut(size: int) -> None:
    """The yardstick does the whole work: what it returns is the answer."""
    run = Run("", user="u1", conversation_id="c1")
    told = [run.workflow_started(), run.piece("年假"), run.piece("五天"), run.message_end(), run.workflow_finished()]
    body = b"".join(told)

    assert parse([body[start : start + size] for start in range(0, len(body), size)]) == "年假五天"


@pytest.mark.scenario
def test_the_yardsticks_do_their_work(redis_url: str) -> None:
    """The plain program pushes each delta of the mock's by itself; parsing costs less."""
    with redis.Redis.from_url(redis_url) as client, yardsticks(redis_url, 0.1) as beside:
        assert beside.naive() > beside.parse() > 0

        assert client.llen("bench:naive") == 200


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers with the number of the connection, on four of them, and on the last one badly."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            # A test that needs fewer of them closes the listener instead.
            with suppress(OSError):
                for number in range(4):
                    connection, _ = listener.accept()
                    with connection:
                        while connection.recv(4096):
                            status = b"500 No" if number == 3 else b"200 OK"
                            connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: 1\r\n\r\n%d" % (status, number))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30.0)
        assert not thread.is_alive()


def test_each_question_is_posted_by_a_connection_of_its_own(port: int) -> None:
    """So that questions spread over the workers; replies are in the order of their requests."""
    replies = posted(port, [b"GET / HTTP/1.1\r\n\r\n"] * 3, 0.01)

    assert sorted(replies) == [b"0", b"1", b"2"]


def test_a_reply_that_does_not_count_is_no_reply(port: int) -> None:
    """A connection carries one exchange after the other; anything but 200 raises."""
    with socket.create_connection(("127.0.0.1", port), 30) as line:
        assert [exchange(line, b"GET / HTTP/1.1\r\n\r\n") for _ in range(2)] == [b"0", b"0"]
    posted(port, [b"GET / HTTP/1.1\r\n\r\n"] * 2, 0.01)

    with pytest.raises(ConnectionError, match="500"):
        posted(port, [b"GET / HTTP/1.1\r\n\r\n"], 0.01)
