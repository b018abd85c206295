"""What the part `streams` counts: lost answers, costs of a delta, delays; its yardsticks and its questions."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from bench.load.callbacks import exchange, post_each
from bench.load.naive import Yardsticks, parse
from bench.load.tails import watch
from bench.parts.streams import Round, not_whole
from bench.stage.dify import mock_dify
from bench.stage.stage import Usage
from demo.mocks.dify.wire import Run
from services.streams.records import Chunk
from services.streams.store import stream_keys
from tests.support.servers.processes import wait_until

pytestmark = pytest.mark.full


def test_an_answer_that_is_not_whole_is_lost() -> None:
    """An answer that is cut, altered, unfinished, missing, not ended at Dify or asked twice counts once."""
    answers = dict.fromkeys(("whole", "cut", "altered", "unfinished", "none", "twice"), "年假@1.5|")
    asks = Counter([*answers, "running", "twice"])
    found: dict[str, tuple[str | None, str | None]] = {
        "whole": ("completed", "年假@1.5|"),
        "cut": ("completed", "年假@1.5"),
        "altered": ("completed", "年假@1.6|"),
        "unfinished": ("processing", "年假@1.5|"),
        "none": (None, None),
        "running": ("completed", None),
        "twice": ("completed", "年假@1.5|"),
    }

    assert not_whole(found, answers, asks) == ["cut", "altered", "unfinished", "none", "running", "twice"]


def test_costs_are_per_delta_of_the_measurement() -> None:
    """CPU is in microseconds per delta, and in percent of a core."""
    before = Usage(seconds=10.0, workers=5.0, redis=1.0, net=100.0, dify=2.0, deltas=500, dify_net=1000)
    after = Usage(seconds=12.0, workers=6.0, redis=1.5, net=900.0, dify=2.1, deltas=20_500, dify_net=9000)
    result = Round(after - before, [0.001], lost=0, rss=1)

    assert (result.per_delta(result.used.workers), result.share(result.used.redis)) == (50.0, 25.0)


def write(client: redis.Redis, stream: str, *deltas: str) -> None:
    """Write deltas as one chunk, as a stream's owner does."""
    client.rpush(stream_keys(stream).messages, Chunk("".join(deltas), "").args()[0])


def delta(seconds_ago: float = 0.0) -> str:
    return f"年假@{time.time() - seconds_ago:.6f}|"


def test_each_delta_is_seen_once_with_its_delay(redis_url: str) -> None:
    """Deltas from before the first read do not count; both deltas of one chunk do; a delay is never too short."""
    with redis.Redis.from_url(redis_url) as client:
        write(client, "one", delta(99.0), delta(99.0))

        def write_later() -> None:
            wait_until(lambda: any(each["cmd"] == "lrange" for each in client.client_list()))
            for number in range(10):
                time.sleep(0.02)
                write(client, "one", delta(5.0), delta(5.0))
                write(client, f"other-{number % 2}", delta(7.0))

        writer = threading.Thread(target=write_later)
        writer.start()
        delays = watch(redis_url, ["one", "other-0", "other-1"], 4.0)
        writer.join()

    assert len(delays) == 30
    assert sorted(delays)[0] >= 5.0
    assert sum(delay >= 7.0 for delay in delays) >= 10
    assert max(delays) < 60.0


@pytest.mark.parametrize("size", [1, 7, 350, 10**6])
def test_parsing_finds_the_answer_however_it_is_cut(size: int) -> None:
    """The yardstick returns the answer from reads of any size."""
    run = Run("", user="u1", conversation_id="c1")
    events = [run.workflow_started(), run.piece("年假"), run.piece("五天"), run.message_end(), run.workflow_finished()]
    body = b"".join(events)

    assert parse([body[start : start + size] for start in range(0, len(body), size)]) == "年假五天"


@pytest.mark.scenario
def test_the_yardsticks_do_their_work(redis_url: str) -> None:
    """The plain program pushes each delta of the mock by itself; parsing costs less."""
    with redis.Redis.from_url(redis_url) as client, mock_dify(1, 0.001) as dify:
        yardsticks = Yardsticks(dify.base_url, redis_url, 200)
        assert yardsticks.naive() > yardsticks.parse() > 0

        assert client.llen("bench:naive") == 200


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers four connections with their number, the last one with status 500."""
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


def test_each_question_has_its_own_connection(port: int) -> None:
    """So questions are spread over the workers; replies are in the order of their requests."""
    replies = post_each(port, [b"GET / HTTP/1.1\r\n\r\n"] * 3, 0.01)

    assert sorted(replies) == [b"0", b"1", b"2"]


def test_a_status_other_than_200_is_an_error(port: int) -> None:
    """One connection carries several exchanges; a status other than 200 raises an error."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        assert [exchange(connection, b"GET / HTTP/1.1\r\n\r\n") for _ in range(2)] == [b"0", b"0"]
    post_each(port, [b"GET / HTTP/1.1\r\n\r\n"] * 2, 0.01)

    with pytest.raises(ConnectionError, match="500"):
        post_each(port, [b"GET / HTTP/1.1\r\n\r\n"], 0.01)
