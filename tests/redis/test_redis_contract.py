"""The contract of every kind of Redis: each Lua script runs through the store that sends it.

These tests, and those of other modules with the mark `every_redis`, run on a single server, the embedded Redis, a
Cluster and behind Sentinels. All other tests run on one Redis. A new script needs a step here, see
`test_every_script_has_a_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis

from services.answers.asked_store import Asked, AskedStore
from services.answers.forms.form_store import FormStore, form_id
from services.batches.lanes_store import LEASE, BatchLanesStore
from services.conversations.history_store import HistoryStore
from services.conversations.session_store import ClaimedSession, SessionStore, Talk, TextDigest
from services.conversations.store import ConversationStore, Memory
from services.errors import AnswerError
from services.feedback.rating_store import LEASE as LEASE_OF_RATINGS
from services.feedback.rating_store import RatingStore, note_call
from services.feedback.records import RatedAnswer, Rating, Ratings, SealedRating
from services.files.answer_store import FileStore, Owner, ShownFiles, StoredFile
from services.forms import PendingForm
from services.identity.rate_limiter import RateLimiter
from services.identity.token_store import Cached, Denied, TokenStore
from services.models import Exchange, Question, UserInfo
from services.ops.replica_store import ReplicaStore, RunningReplica
from services.redis.calls import all_scripts
from services.redis.lock_store import LockStore
from services.redis.store import Call, ScriptRunner, connect
from services.rules.quota_store import QuotaStore, Used
from services.rules.quotas import Counter, period
from services.sockets.store import OpenSocket, SocketStore
from services.streams.access import Access
from services.streams.records import Appended, Chunk, NewStream, Write
from services.streams.store import StreamStore, leave_call, stream_keys
from services.usage.ended_store import EndedStore, StoredStream
from services.wecom.alert_store import AlertStore, FaultStore, FoundFaults
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.lease_store import LeaseStore
from services.wecom.long_connection.open_answers_store import FenceRefused, OpenAnswer, OpenAnswersStore
from services.wecom.long_connection.push_store import LOST_SECONDS, NewPush, PushStore
from tests.support.files import budget_of
from tests.support.long_connection.leases import hold

#: Streams of the steps below: enough for every node of a Cluster to have some.
STREAMS = [f"s{number}" for number in range(12)]
NOW = 1_700_000_000.0


class RecordingRunner(ScriptRunner):
    """A runner that records the names of the scripts it sent."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.sent: set[str] = set()

    def run(self, calls: Sequence[Call], **options: Any) -> list[Any]:
        self._record(calls)
        return super().run(calls, **options)

    def run_each(self, calls: Sequence[Call], **options: Any) -> list[Any]:
        self._record(calls)
        return super().run_each(calls, **options)

    def _record(self, calls: Sequence[Call]) -> None:
        self.sent.update(call.script.name for call in calls if call.script)


@pytest.fixture
def runner(any_redis_url: str) -> Iterator[RecordingRunner]:
    client = connect(any_redis_url, pool_size=4, timeout=5.0)
    yield RecordingRunner(client)
    client.close()


def store_at(runner: ScriptRunner, seconds: float) -> StreamStore:
    """Return a stream store whose scripts use the time `seconds` after NOW."""
    return StreamStore(runner, lease=6.0, now=str(NOW + seconds))


def new(stream_id: str, owner: str = "a") -> NewStream:
    fields = {"status": "processing", "content": "问题", "question": "{}", "access": "tag"}
    return NewStream(owner=owner, fields=fields, frame_seconds=330.0, stream_id=stream_id)


def write(stream_id: str, *texts: str, index: int = 0, **changes: Any) -> Write:
    chunks = tuple(Chunk(text, "t") for text in texts)
    settings: dict[str, Any] = {"epoch": 1, "owner": "a", "start": 0, "index": index, "chunks": chunks, **changes}
    return Write(stream_id=stream_id, **settings)


def streams(runner: ScriptRunner) -> None:
    """Open, append, read, fence, end and cancel streams; one pipeline has calls for all nodes."""
    store = store_at(runner, 0.0)
    opened = [store.open(new(stream_id), *store.running_calls([stream_id])) for stream_id in STREAMS]
    assert all(created for created, _, _ in opened)
    assert not store.open(new("s0", "b"))[0]

    assert store.write([write(stream_id, "一", "二") for stream_id in STREAMS]) == [Appended("ok", 2)] * 12
    again = [write("s0", "二", "三😀", index=1), write("s1", "x", index=9), write("s2", "x", owner="b", index=2)]
    assert [getattr(reply, "outcome", reply) for reply in store.write(again)] == ["ok", "gap", "refused"]
    assert [shown and getattr(shown, "text", "") for shown in store.snapshots(["s0", "s1"])] == ["一二三😀", "一二"]
    page = store.chunks("s0", 1)
    assert page
    assert [chunk.content for chunk in page.chunks] == ["二", "三😀"]
    assert (store.text("s0", 3).text, store.standing("s1")) == ("二三😀", ("processing", 0.0))

    end = write("s0", index=3, chunks=(Chunk("", "t", is_final=True),), fields={"status": "completed"}, op="finish")
    (reply,) = store.write([end])
    assert isinstance(reply, Appended)
    assert reply.outcome == "ok"
    assert (store.cancel("s0"), store.cancel("s1"), store.cancel("nowhere")) == ("completed", "processing", "")


def takeovers(runner: ScriptRunner) -> None:
    """Find lapsed streams, suspect them and take them over; the former owner is refused from then on."""
    for stream_id in STREAMS:
        store = store_at(runner, 0.0)
        store.open(new(stream_id), *store.running_calls([stream_id]))

    assert store_at(runner, 5.0).lapsed() == []
    assert sorted(store_at(runner, 7.0).lapsed()) == sorted(STREAMS)
    outcomes = [store_at(runner, seconds).takeover("s0", "b").outcome for seconds in (5.0, 7.0, 8.0, 11.0, 11.1)]

    assert outcomes == ["alive", "suspect", "suspect", "taken", "taken"]
    late, mine = write("s0", "迟"), write("s0", "接", epoch=2, owner="b")
    replies = store_at(runner, 12.0).write([late, mine])
    assert [getattr(reply, "outcome", reply) for reply in replies] == ["refused", "ok"]


def slots(runner: ScriptRunner) -> None:
    """A person has a fixed number of slots; an ended question frees its own."""
    store = store_at(runner, 0.0)
    calls = [store.enter_call("default", "zhangsan", f"s{n}", slots=2, seconds=60.0) for n in (0, 1, 2, 0)]

    assert runner.run(calls) == [1, 1, 0, 2]
    assert runner.run([leave_call("default", "zhangsan", "s0"), calls[2]]) == [1, 1]


def conversations(runner: ScriptRunner) -> None:
    """Turns queue up, the conversation memory survives a change of keys, and a reset deletes it."""
    question = Question("?", "wecom", "default", "zhangsan")
    old, store = (
        ConversationStore(runner, secret={"default": lambda ring=ring: ring}, ttl=100.0)  # type: ignore[misc]
        for ring in ((b"old",), (b"new", b"old"))
    )
    history = HistoryStore(runner, ttl=100.0, clock=lambda: NOW)
    former, key = old.key("app", question, bot="default"), store.key("app", question, bot="default")
    old.remember(former, Memory("c1", "0"))
    history.add(former, "0", "s0", Exchange("问", "答"))

    found = store.enter(key, "s1").memory
    assert (found.former, store.carry_over(key, found.former)) == (former, Memory("c1", "0"))
    assert history.load(key) == (Exchange("问", "答"),)
    assert [store.enter(key, stream_id).position for stream_id in ("s2", "s1")] == [1, 0]
    runner.run([store.reset_call(key, "command")])
    store.remember(key, Memory("late", "0"))
    assert (store.load(key), history.load(key)) == (Memory("", "1"), ())


def commands(runner: ScriptRunner) -> None:
    """A command is told what was noted before it, also when it is delivered again; a question is noted once."""
    store = AskedStore(runner, ttl=100.0)
    calls = [store.question_call("chat", stream_id, f"sealed {stream_id}") for stream_id in ("s0", "s1", "s0")]

    assert runner.run(calls) == [[0], [0], [1]]
    first = store.note(["chat", "former"], "command", Call(None, ("EXISTS", "nothing")), answered=False)
    runner.run([store.question_call("chat", "s2", "sealed s2"), store.forget_call("chat", "s0")])
    again, _ = store.note(["chat"], "command", answered=False)

    assert first == (Asked(False, ("s0", "s1"), "sealed s1", "s1"), [0])
    assert again == Asked(True, ("s1",), "sealed s2", "s2")


def sockets(runner: ScriptRunner) -> None:
    """The newest socket of a client stays, is listed on every replica, and can be dismissed."""
    here, there = (SocketStore(runner, replica=name, secret=b"s") for name in ("one", "two"))
    older, newer = (OpenSocket(token, "chat", "user:E1001", "client", NOW) for token in ("x", "y"))
    older = replace(older, since=here.register(older))
    newer = replace(newer, since=there.register(newer, after=older.since))

    assert here.renew([(older, 0.0)]) == {"x": "superseded"}
    here.leave([older])
    assert [one.token for one in here.connections()] == ["y"]
    assert here.dismiss("client") == ["y"]
    assert there.renew([(newer, 0.0)]) == {"y": "dismissed"}
    there.leave([newer])
    assert here.connections() == []


def lanes(runner: ScriptRunner) -> None:
    """A lane has one owner, renewals and `look` report it, and a pause holds for all lanes."""
    store = BatchLanesStore(runner, lanes=3, worker="one", now=str(NOW))

    assert (store.take(0, "a"), store.take(0, "b"), store.take(1, "b")) == (True, False, True)
    assert store.renew({0: "a"}) == (1, [])
    assert (store.look().held, store.release({0: "a"})) == (2, 1)
    store.now = str(NOW + LEASE + 0.1)
    assert (store.look().suspect, store.pause(30.0), store.paused().seconds) == (1, 30.0, 30.0)


def forms(runner: ScriptRunner) -> None:
    """A form is kept, found, claimed by one question and settled; a claim that is given up opens it again."""
    access = Access({"default": b"k" * 32})
    question, form = Question("1", "wecom", "default", "zhangsan"), PendingForm("secret-token", "run", expires=NOW + 60)
    store, later, after = (
        FormStore(runner, access, clock=lambda: NOW, now=str(NOW + seconds)) for seconds in (0.0, 61.0, 4000.0)
    )
    name = form_id(form)

    assert [store.open("key", question, form), store.open("key", question, form)] == [True, False]
    assert store.look("key", replace(question, principal="lisi")) == []
    assert [store.claim("key", name, *attempt) for attempt in (("s", "a"), ("s", "a"), ("s", "b"), ("t", "c"))] == [
        "claimed",
        "claimed",
        "before",
        "taken",
    ]
    assert [store.settle("key", name, stream_id, "open") for stream_id in ("t", "s")] == [False, True]
    assert [(kept.state, kept.form) for kept in store.look("key", question)] == [("open", form)]
    assert [kept.state for kept in later.look("key", question)] == ["expired"]
    assert [later.claim("key", name, "s", "a"), store.claim("key", "other", "s", "a")] == ["expired", "gone"]
    assert store.claim("key", name, "s", "a") == "claimed"
    store.settle("key", name, "s", "done")
    assert [kept.stream_id for kept in store.look("key", question)] == ["s"]
    assert after.look("key", question) == []


def claims(runner: ScriptRunner) -> None:
    """The end of an answer that overflows its frame claims its late message; the claim ends sent or lost."""
    store, later = store_at(runner, 0.0), store_at(runner, 61.0)
    end: dict[str, Any] = {"chunks": (Chunk("", "t", is_final=True),), "op": "finish"}
    for stream_id in ("s0", "s1"):
        store.open(new(stream_id))
        fields = {"status": "completed", "delivered": "due"}
        assert store.write([write(stream_id, **end, fields=fields)]) == [Appended("ok", 1, cause="overflow")]

    assert store.look_at_claim("s0") == ("waiting", "")
    store.delivered("s0", "a", "sent")
    looks = [later.look_at_claim(stream_id) for stream_id in ("s0", "s1", "s1")]

    assert looks == [("", ""), ("lost", "a"), ("", "")]


def files(runner: ScriptRunner) -> None:
    """Files are written and removed by the owner of a running stream, and read whole or in slices."""
    streams, store, owner = store_at(runner, 0.0), FileStore(runner), Owner("s0", 1, "a")
    streams.open(new("s0"))
    content = bytes(range(256)) * 2000
    stored = StoredFile("f0", "报告.pdf", "application/pdf", len(content))

    assert store.put(owner, stored, content)
    assert not store.put(owner._replace(owner="b"), StoredFile("p0"), b"x")
    assert store.shown("s0") == ShownFiles((stored,), {})
    assert b"".join(store.slices("s0", stored)) == content
    store.remove(owner._replace(owner="b"), "f0")
    assert store.files("s0") == (stored,)
    store.remove(owner, "f0")
    assert (store.files("s0"), list(store.slices("s0", stored))) == ((), [])
    assert store.put(owner, stored)
    streams.write([Write("s0", 1, "a", 0, 0, fields={"status": "completed"}, op="finish")])
    store.remove(owner, "f0")
    assert store.files("s0") == (stored,)


def file_budget(runner: ScriptRunner) -> None:
    """Files are counted, live longer, and are counted no longer."""
    budget = budget_of(runner, 100_000)
    budget.count("key:a", {"1": 60_000}, seconds=100.0)
    with pytest.raises(AnswerError):
        budget.count("key:a", {"2": 60_000}, seconds=100.0)
    runner.run([budget.prolong_call(["1"], seconds=200.0), budget.remove_call(["2"])])
    assert budget.used() == 60_000
    budget.remove(["1"])
    assert budget.used() == 0


def ratings(runner: ScriptRunner) -> None:
    """An answer that a provider gave is noted; its rating is taken once, claimed, and settled."""
    store = RatingStore(runner, now=str(NOW))
    fields = {"status": "completed", "access": "tag", "asks": "1", "asker": '{"bot": "b", "channel": "c", "user": "u"}'}
    for stream_id in STREAMS:
        store_at(runner, 0.0).open(NewStream(stream_id, "a", fields))
    runner.run([note_call(stream_id) for stream_id in STREAMS])
    runner.run([Call(None, ("DEL", stream_keys("s0").hash))])

    assert store.find("s0") == RatedAnswer(True, "completed", "tag", "b", "c", "u", "u")
    assert store.find("nowhere") is None
    like = Rating("like", at=int(NOW), event_id="e1")
    assert [store.add(stream_id, "p1", like, "sealed") for stream_id in ("s0", "s0")] == ["taken", "known"]
    claimed = store.claim()
    assert (claimed, store.claim()) == ((NOW, 1, "s0", 0.0), (NOW, 1, "", LEASE_OF_RATINGS))
    assert store.load("s0") == Ratings(1, 0, 0, 0, NOW, (SealedRating("p1", int(NOW), 1, "sealed"),))
    assert not store.settle("s0", 1, saved=True, sent=False, delay=5.0)
    store.now = str(NOW + 5.1)
    assert store.claim().stream_id == "s0"
    assert store.settle("s0", 1, saved=True, sent=True, delay=5.0)
    assert store.claim() == (NOW + 5.1, 0, "", inf)


def pushes(runner: ScriptRunner) -> None:
    """A push is counted for its chat, queued, claimed by the holder and ended; one without an outcome is overdue."""
    rings = dict.fromkeys(STREAMS, b"k" * 32)
    store, late = (PushStore(runner, rings, now=str(NOW + seconds)) for seconds in (0.0, LOST_SECONDS))
    allowance = AllowanceStore(runner, rings, now=str(NOW))
    for bot in STREAMS:
        assert allowance.message(bot, "zhangsan", "push:p1") == 0.0
        assert [store.add(bot, NewPush("p1", "c", "owner", "digest", "{}")) for _ in range(2)] == ["added", "known"]
        assert (store.due(bot, 9), store.head(bot, "c")) == (["c"], "p1")
        push, fence = store.find(bot, "p1"), hold(runner, bot)
        assert push
        assert store.claim(bot, "c", "p1", fence=fence, claim="a") == "claimed"
        assert store.settle(push, "a", "queued")
        assert store.claim(bot, "c", "p1", fence=fence, claim="b") == "claimed"
        assert late.end_overdue(bot) == {"expired": 0, "unknown": 1}
        store.next(bot, "c")
        assert store.due(bot, 9) == []


def locks(runner: ScriptRunner) -> None:
    """A lock has one holder, and only the holder can release it."""
    store = LockStore(runner)
    token = store.acquire("a", 30.0)

    assert token
    assert (store.acquire("a", 30.0), store.release("a", "other"), store.release("a", token)) == (None, False, True)


def rates(runner: ScriptRunner) -> None:
    """With a limit of two a minute the third question is rejected."""
    limiter = RateLimiter(runner, user="2/minute", key="", ip="", secret=b"s")

    assert [limiter.question("user:E1001", "a") for _ in range(3)] == [True, True, False]


def leases(runner: ScriptRunner) -> None:
    """Take, renew and give back the leases of long connections; a taken one has no second holder."""
    for bot in STREAMS:
        store = LeaseStore(runner)
        fence = store.take(bot, "a")
        assert (store.take(bot, "b"), store.renew(bot, "a", fence, subscribed="1")) == (0, True)
        assert (store.look(bot, stands_by=True).fence, store.give_back(bot, "a", fence)) == (fence, True)
        assert store.take(bot, "b") > fence


def tokens(runner: ScriptRunner) -> None:
    """Keys of several nodes are written and read together; a key of another type raises no error."""
    store, user = TokenStore(runner), UserInfo("E1001", "张三", "138", "男")
    store.save("zhangsan", "", "t1", user, 100.0)
    store.save("wangwu", "acme", "t2", user, 100.0)
    store.deny("lisi", "", "auth_denied", 100.0)
    runner.run(
        [Call(None, ("DEL", "authorization:token:t2")), Call(None, ("HSET", "authorization:token:t2", "a", "b"))]
    )

    assert (store.load("zhangsan"), store.load("wangwu", "acme")) == (Cached("t1", user), Cached("t2", None))
    assert (store.load("lisi"), store.load("nobody")) == (Denied("auth_denied"), None)


def told_turns(runner: ScriptRunner) -> None:
    """Find a conversation by its turns once, and by the key of a request as often as it is repeated."""
    store = SessionStore(runner, secret=lambda: (b"secret",), ttl=100.0, request_ttl=100.0)
    talk = Talk("default", "key:1/ann", (("user", TextDigest("甲 ？").hex),))
    store.keep(talk, "s1")

    assert store.take(talk._replace(principal="key:1/ben"), "new") == ClaimedSession("new", found=False)
    spaced = talk._replace(messages=(("user", TextDigest(" 甲？\n").hex),))
    assert store.take(spaced, "new") == ClaimedSession("s1", found=True)
    assert store.take(talk, "new") == ClaimedSession("new", found=False)
    store.keep(talk, "s1")
    claims = [store.claim("key:1/ann", "k", digest, talk=talk, new=new) for digest, new in (("a", "x"), ("a", "y"))]
    assert claims == [ClaimedSession("s1", found=True)] * 2
    assert store.claim("key:1/ann", "k", "b", talk=None, new="z") == ClaimedSession("s1", found=True, same=False)
    assert store.claim("key:1/ben", "k", "b", talk=None, new="z") == ClaimedSession("z", found=False)


def open_answers(runner: ScriptRunner) -> None:
    """Note open answers and how far they were sent; a former holder changes nothing."""
    fence = LeaseStore(runner).take("hr", "a")
    store = OpenAnswersStore(runner, ttl=1800.0)
    assert store.add("hr", "s1", "sealed")
    assert store.open("hr", fence) == (["s1"], 0)
    sent = store.mark_finish(fence, OpenAnswer("hr", "s1", "sealed"), "sent")
    with pytest.raises(FenceRefused):
        store.mark_messages(fence - 1, sent, 1, unsure=True)
    assert store.read("hr", "s1") == sent
    store.close("hr", "s1")
    assert store.open("hr", fence) == ([], 0)


def ended_streams(runner: ScriptRunner) -> None:
    """Queue, claim, read and settle ended streams; a full queue counts what it drops."""
    streams, ended = store_at(runner, 0.0), EndedStore(runner, queues=True, most_waiting=1, now="5")
    streams.open(new("s1"))
    runner.run([*ended.add_calls("s1"), *ended.add_calls("s2")])
    claimed = ended.claim(9)
    assert (claimed.waiting, claimed.dropped, len(claimed.entries)) == (1, 1, 1)
    stored, gone = ended.read(["s1", "s2"], text_bytes=10)
    assert isinstance(stored, StoredStream)
    assert (stored.status, gone) == ("processing", None)
    ended.settle(claimed.entries)
    assert ended.claim(9).waiting == 0


def quotas(runner: ScriptRunner) -> None:
    """Take and settle a question in counters of several nodes; a full one refuses."""
    store = QuotaStore(runner, secret=b"s", stream_ttl=1800.0, now=str(NOW))
    for one in STREAMS:
        place = store.place(Counter("person", one, "day", questions=1), period("day", NOW, ZoneInfo("Asia/Shanghai")))
        takes = [store.take_call(place, stream_id) for stream_id in ("s1", "s1", "s2")]
        assert store.run([*takes, store.settle_call(place.key, "s1", asked=True, tokens=7)]) == [
            *([1, 1, 0], [2, 1, 0], [0, 1, 0], 1)
        ]
        assert store.used([place]) == [Used(1, 7, 1, None, 0)]


def alerts(runner: ScriptRunner) -> None:
    """Claim an alert once and within the hour's messages; a released one may be claimed again."""
    store = AlertStore(runner, per_hour=1, now=str(NOW))

    first = store.claim([("firing", "a1"), ("resolved", "b1")])
    assert (first.alerts, first.left) == ((0,), 0)
    assert store.claim([("firing", "a1")]).alerts == ()
    assert store.claim([("firing", "c1")]).left == -1
    store.release(first, [("firing", "a1")])
    assert store.claim([("firing", "a1")]).alerts == (0,)


def faults(runner: ScriptRunner) -> None:
    """Count the answers of the last five minutes; a fault keeps its first start until it is over."""
    store = FaultStore(runner, now="600")
    store.count(20, 4)
    assert store.begin("sql", "600") == "600"
    assert store.begin("sql", "601") == "600"
    store.now = "870"
    assert store.count(1, 1) == FoundFaults(21, 5, {"sql": "600"})
    store.end("sql")
    store.now = "900"
    assert store.count(0, 0) == FoundFaults(1, 1, {})


def replicas(runner: ScriptRunner) -> None:
    """Note two replicas; one that has not noted itself for five seconds is gone."""
    time = 100.0

    def registry(name: str) -> ReplicaStore:
        this = RunningReplica(name, "1.0", 90.0, draining=False, answers=2, capacity=9)
        return ReplicaStore(runner, lambda: this, now=lambda: str(time))

    first, second = registry("a:1"), registry("b:2")
    first.note()
    assert second.all() == [second.this(), first.this()]
    time = 104.0
    assert first.all() == [first.this(), second.this()]
    time = 106.0
    assert first.all() == [first.this()]


STEPS: list[Callable[[ScriptRunner], None]] = [
    streams, takeovers, slots, conversations, commands, forms, claims, files, file_budget, ratings, sockets,
    pushes, open_answers, lanes, locks, leases, rates, tokens, told_turns, ended_streams,
    quotas, alerts, faults, replicas,
]  # fmt: skip


@pytest.mark.every_redis
@pytest.mark.parametrize("step", STEPS)
def test_a_store_works_on_every_redis(runner: RecordingRunner, step: Callable[[ScriptRunner], None]) -> None:
    """Each store's operations give the same replies on every kind of Redis."""
    step(runner)


@pytest.mark.every_redis
def test_scripts_that_redis_lost_are_loaded_again(runner: RecordingRunner, redis_client: redis.Redis) -> None:
    """After a failover or SCRIPT FLUSH each call of a pipeline still runs exactly once."""
    store = store_at(runner, 0.0)
    for stream_id in STREAMS:
        store.open(new(stream_id))
    redis_client.script_flush()

    assert store.write([write(stream_id, "一") for stream_id in STREAMS]) == [Appended("ok", 1)] * 12

    redis_client.script_flush()
    assert [store.read(stream_id).text for stream_id in STREAMS] == ["一"] * 12  # type: ignore[union-attr]
    assert redis_client.llen(stream_keys("s0").messages) == 1


def test_every_script_has_a_step(runner: RecordingRunner, redis_client: redis.Redis) -> None:
    """The steps send every script: one that is missing here would be tested on one kind of Redis only."""
    for step in STEPS:
        redis_client.flushall()
        step(runner)

    assert runner.sent == {one.name for one in all_scripts()}
