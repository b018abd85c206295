"""Commands about a person's questions in a chat: what they stop and ask again, once, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from services.answers.asked_store import MOST_STREAMS
from services.answers.commands import LastQuestion
from services.models import Question
from services.streams.records import Snapshot
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.streams.counting_relay import CountingRelay, Names
from tests.support.streams.desk import Desk, SlowProvider

pytestmark = pytest.mark.every_redis


@pytest.fixture
def other(any_redis_url: str, provider: SlowProvider) -> Iterator[Desk]:
    """A second replica on the same Redis."""
    desk = Desk(any_redis_url, provider)
    yield desk
    desk.close()


def command(msgid: str = "c1", text: str = "/x", **changes: Any) -> Question:
    return Question(
        text, "wecom", changes.pop("bot", "default"), changes.pop("principal", "zhangsan"), msgid=msgid, **changes
    )


def stops(desk: Desk, msgid: str = "c1", **changes: Any) -> Snapshot:
    return desk.gateway.commands.stop(command(msgid, **changes), "<stopped>")


def retries(desk: Desk, msgid: str = "c1", **changes: Any) -> Snapshot:
    return desk.gateway.commands.retry(command(msgid, **changes))


def status(desk: Desk, asked: Snapshot) -> str:
    snapshot = desk.streams.read(asked.stream_id)
    assert snapshot
    return snapshot.status


def asks_in_turn(desk: Desk, provider: SlowProvider, *texts: str) -> list[Snapshot]:
    """Ask questions of which the first runs and the others wait."""
    asked = [desk.asks(text, msgid=text) for text in texts]
    wait_until(lambda: provider.asked == [texts[0]])
    return asked


def test_stop_ends_all_running_answers_also_on_another_replica(desk: Desk, other: Desk, provider: SlowProvider) -> None:
    """The running answer and the one that waits are cancelled; their slots are free at once."""
    first, second = asks_in_turn(desk, provider, "一", "二")

    stopped = stops(other)

    assert (stopped.status, stopped.text, stopped.found) == ("completed", "<stopped>", False)
    assert [status(desk, asked) for asked in (first, second)] == ["cancelled", "cancelled"]
    assert desk.client.zcard("dify_user:default:zhangsan") == 0
    provider.go_on.set()
    wait_until(lambda: desk.manager.running == 0)
    assert provider.asked == ["一"]


def test_stop_takes_no_slot_of_the_person(desk: Desk, provider: SlowProvider) -> None:
    """It works where all three are taken, also after questions that were refused."""
    asked = [desk.asks(str(n), msgid=str(n)) for n in range(3)]
    refused = [desk.asks(str(n), msgid=str(n)).error_code for n in range(3, 5 + MOST_STREAMS)]

    stopped = stops(desk)

    assert set(refused) == {"user_full"}
    assert stopped.text == "<stopped>"
    assert {status(desk, one) for one in asked} == {"cancelled"}


def test_a_redelivered_stop_leaves_later_answers_alone(desk: Desk, other: Desk, provider: SlowProvider) -> None:
    """An answer that began after the command goes on; the sentence is the same."""
    stops(desk)
    later = desk.asks("一", msgid="1")

    again = stops(other)

    assert (again.text, again.found) == ("<stopped>", True)
    assert status(desk, later) == "processing"


def test_a_redelivered_stop_finishes_what_a_killed_replica_began(
    desk: Desk, other: Desk, provider: SlowProvider
) -> None:
    """The first delivery noted the command and died before it cancelled anything."""
    early = desk.asks("一", msgid="1")
    commands = desk.gateway.commands
    commands._note(command(), commands._access.stream_id(command()))
    later = desk.asks("二", msgid="2")

    stops(other)

    assert (status(desk, early), status(desk, later)) == ("cancelled", "processing")


def test_a_stop_that_the_list_has_forgotten_stops_nothing(desk: Desk, provider: SlowProvider) -> None:
    """Without its position it cannot know what came before."""
    stops(desk)
    for number in range(MOST_STREAMS):
        stops(desk, f"more{number}")
    later = desk.asks("一", msgid="1")

    stops(desk)

    assert status(desk, later) == "processing"


@pytest.mark.parametrize("changes", [{"principal": "lisi"}, {"chat": "group"}, {"bot": "hr"}])
def test_stop_applies_to_this_bot_person_and_chat_only(
    changes: dict[str, str], desk: Desk, provider: SlowProvider
) -> None:
    """Other answers go on, and `/retry` finds no question."""
    asked = desk.asks("一", msgid="1")

    stops(desk, **changes)
    tried = [retries(desk, "c2", **changes).text for _ in range(2)]

    assert status(desk, asked) == "processing"
    assert tried == ["<retry_nothing>"] * 2
    assert desk.manager.running == 1, "a retry of nothing takes no slot"


def test_retry_asks_the_last_question_again(desk: Desk, provider: SlowProvider) -> None:
    """The answer is new and has a stream of its own, which keeps the question's words."""
    provider.go_on.set()
    first = desk.asks("一", msgid="1")
    last = desk.asks("二", msgid="2")
    desk.sees_end(last.stream_id)

    again = retries(desk)

    assert desk.sees_end(again.stream_id).text == "答：二"
    assert len({first.stream_id, last.stream_id, again.stream_id}) == 3
    assert provider.asked == ["一", "二", "二"]
    assert Question.from_json(desk.streams.question(again.stream_id)).text == "二"


def test_a_redelivered_question_is_not_the_last_one(desk: Desk, provider: SlowProvider) -> None:
    """WeCom may deliver an earlier message again after a later one."""
    provider.go_on.set()
    for text in ("一", "二", "一"):
        desk.sees_end(desk.asks(text, msgid=text).stream_id)

    assert desk.sees_end(retries(desk).stream_id).text == "答：二"


def test_a_redelivered_retry_asks_once(desk: Desk, other: Desk, provider: SlowProvider) -> None:
    """It finds its stream, on every replica, also after another question."""
    provider.go_on.set()
    desk.sees_end(desk.asks("一", msgid="1").stream_id)
    again = retries(desk)
    desk.sees_end(again.stream_id)
    desk.sees_end(desk.asks("二", msgid="2").stream_id)

    redelivered = retries(other)

    assert (redelivered.stream_id, redelivered.text, redelivered.found) == (again.stream_id, "答：一", True)
    assert provider.asked == ["一", "一", "二"]
    assert desk.client.zcard("dify_user:default:zhangsan") == 0


def test_a_question_of_another_key_counts_as_expired(
    desk: Desk, provider: SlowProvider, redis_client: redis.Redis
) -> None:
    """What cannot be opened is not asked."""
    desk.asks("一", msgid="1")
    (key,) = set(redis_client.scan_iter("*:last"))
    redis_client.hset(key, "question", "AAAA")

    assert retries(desk).text == "<retry_nothing>"


def test_retry_takes_a_slot_as_any_question(desk: Desk, provider: SlowProvider) -> None:
    """With all slots taken it is refused for good; the question that was refused is the one that is asked again."""
    for number in range(4):
        desk.asks(str(number), msgid=str(number))

    refused = [retries(desk).error_code for _ in range(2)]
    stops(desk, "c2")
    provider.go_on.set()
    again = retries(desk, "c3")

    assert refused == ["user_full", "user_full"]
    assert desk.sees_end(again.stream_id).text == "答：3"


def test_retry_on_a_leaving_replica_is_refused(desk: Desk, other: Desk, provider: SlowProvider) -> None:
    """Another one asks the question that a leaving replica refused."""
    desk.manager.draining = True
    refused = [desk.asks("一", msgid="1").error_code, retries(desk).error_code]
    provider.go_on.set()

    again = retries(other, "c2")

    assert refused == ["draining", "draining"]
    assert desk.manager.running == 0
    assert other.sees_end(again.stream_id).text == "答：一"


def test_the_last_question_is_sealed_in_redis(desk: Desk, provider: SlowProvider, redis_client: redis.Redis) -> None:
    """Its words are not in the new keys, which expire."""
    desk.asks("机密", msgid="1")
    keys = sorted(redis_client.scan_iter("*dify_asked:*"))

    assert [key.rpartition(":")[2] for key in keys] == ["last", "streams"]
    assert "机密" not in str(redis_client.hgetall(keys[0]))
    assert "zhangsan" not in "".join(keys)
    assert all(0 < redis_client.pttl(key) <= 1_800_000 for key in keys)


def test_handing_over_tells_the_first_delivery_only(desk: Desk, other: Desk, provider: SlowProvider) -> None:
    """Every delivery has the sentence and the question; `found` says which one made the stream."""
    asked = desk.asks("一", msgid="1")

    told = [one.gateway.commands.hand_over(command(), "<called>") for one in (desk, other, desk)]

    assert [(shown.text, shown.found) for shown, _ in told] == [
        ("<called>", False),
        ("<called>", True),
        ("<called>", True),
    ]
    assert {last for _, last in told} == {LastQuestion("一", asked.stream_id, "")}


def test_without_redis_a_command_gets_the_sentence_of_a_question(provider: SlowProvider) -> None:
    """Nothing is handed over."""
    desk = Desk(f"redis://127.0.0.1:{free_port()}/0", provider)
    commands = desk.gateway.commands

    called, _ = commands.hand_over(command(), "<called>")
    told = [stops(desk), retries(desk), commands.tell(command(), "<help>"), called]

    assert {shown.error_code for shown in told} == {"store_unavailable"}
    assert called.found
    assert desk.manager.running == 0
    desk.close()


#: Round trips of other threads: owners, their ends, and the sweep.
ELSEWHERE = {"append", "running", "lapsed", "ZREM", "LREM", "remember"}


def trips_of(relay: CountingRelay, work: Callable[[], object]) -> list[Names]:
    """Return the round trips of a command."""
    wait_until(lambda: not any(trip.owed for trip in relay.trips))
    relay.forget()
    work()
    return [names for names in relay.names if not set(names) <= ELSEWHERE]


def ends(desk: Desk, provider: SlowProvider, relay: CountingRelay) -> None:
    """Let the running answers end, with the round trip that takes them off their person's list; later ones do not."""
    provider.go_on.set()
    wait_until(lambda: desk.manager.running == 0 and any("LREM" in names for names in relay.names))
    provider.go_on.clear()


def test_a_command_is_two_round_trips(redis_server: RedisServer, provider: SlowProvider) -> None:
    """Redelivered or not, with answers to stop or without; a plain sentence is one."""
    with redis_server.client(db=0) as client, CountingRelay(redis_server.port) as relay:
        client.flushall()
        desk = Desk(relay.url, provider, lease=1000.0, variables={"WECHAT_BOTS": ""})
        desk.runner.load()
        commands = desk.gateway.commands
        asks_in_turn(desk, provider, "一")

        stopped = trips_of(relay, lambda: stops(desk))
        again = trips_of(relay, lambda: stops(desk))
        handed = trips_of(relay, lambda: commands.hand_over(command("h"), "<called>"))
        told = trips_of(relay, lambda: commands.tell(command("t"), "<help>"))
        ends(desk, provider, relay)
        retried = trips_of(relay, lambda: retries(desk, "r"))
        ends(desk, provider, relay)
        retried_again = trips_of(relay, lambda: retries(desk, "r"))
        desk.close()

    assert stopped == [("asked", "read"), ("cancel", "ZREM", "open")]
    assert [len(trips) for trips in (again, handed, told)] == [2, 2, 1]
    assert retried == [("asked", "read", "enter"), ("enter", "asked", "turn", "open", "running")]
    assert retried_again == [("asked", "read", "enter")]


def test_a_refused_retry_is_two_round_trips(redis_server: RedisServer, provider: SlowProvider) -> None:
    """Its refusal is stored with its stream, not after it."""
    with redis_server.client(db=0) as client, CountingRelay(redis_server.port) as relay:
        client.flushall()
        desk = Desk(relay.url, provider, lease=1000.0, variables={"WECHAT_BOTS": ""})
        desk.runner.load()
        for number in range(3):
            desk.asks(str(number), msgid=str(number), chat=f"chat{number}")
        wait_until(lambda: len(provider.asked) == 3)

        refused = trips_of(relay, lambda: retries(desk, "r", chat="chat2"))
        provider.go_on.set()
        desk.close()

    assert refused == [("asked", "read", "enter"), ("open",)]
