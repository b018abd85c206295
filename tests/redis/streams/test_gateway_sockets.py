"""The gateway for sockets: independent questions, sessions, clients' own ids, following."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.errors import StoreUnavailable, StreamUnknown
from services.models import Question, Usage
from services.streams.answer_events import read_sources, written_sources
from services.streams.following import Update
from services.streams.records import Snapshot
from services.streams.store import stream_keys
from tests.support.servers.processes import wait_until
from tests.support.streams.desk import CALLER, Desk, SlowProvider
from utils.citations import typed_source


def asks(desk: Desk, text: str = "年假?", *, channel: str = "chat", msgid: str = "", session: str = "") -> Snapshot:
    return desk.gateway.ask(Question(text, channel, "default", CALLER.principal, msgid=msgid, session=session))


def sees(desk: Desk, stream_id: str, principal: str = CALLER.principal) -> tuple[str, Update]:
    """Follow a stream to its end; return its text and the last update."""
    following, text = desk.gateway.follow(stream_id, bot="default", principal=principal), ""
    while True:
        if update := following.next(0.3):
            text = ("" if update.reset else text) + "".join(chunk.content for chunk in update.chunks)
            if update.ended:
                return text, update


def test_questions_without_a_session_are_independent(desk: Desk, provider: SlowProvider) -> None:
    """No conversation is kept, and none waits for another."""
    ids = [asks(desk, f"问{number}").stream_id for number in range(6)]
    wait_until(lambda: len(provider.asked) == 6)
    provider.go_on.set()
    for stream_id in ids:
        assert sees(desk, stream_id)[1].status == "completed"
    asks(desk, "又")
    wait_until(lambda: len(provider.asked) == 7)

    assert set(provider.conversations) == {""}
    assert list(desk.client.scan_iter("*dify_conversation*")) == []


def test_each_session_is_a_conversation(desk: Desk, provider: SlowProvider) -> None:
    """Its questions are asked in turn in one conversation of the provider; another session has its own."""
    first = asks(desk, "一", session="s1")
    second = asks(desk, "二", session="s1")
    other = asks(desk, "三", session="s2")
    wait_until(lambda: sorted(provider.asked) == ["一", "三"])
    provider.go_on.set()
    for asked in (first, second, other):
        assert sees(desk, asked.stream_id)[1].status == "completed"

    conversations = dict(zip(provider.asked, provider.conversations, strict=True))
    assert conversations == {"一": "", "三": "", "二": "c1"}


def test_a_reset_needs_a_session(desk: Desk, provider: SlowProvider) -> None:
    """Without a session the command is asked as an ordinary question."""
    provider.go_on.set()

    assert sees(desk, asks(desk, "/reset").stream_id)[0] == "答：/reset"
    assert sees(desk, asks(desk, "/reset", session="s1").stream_id)[0] == "<reset_done>"


def test_a_clients_own_id_finds_its_stream(desk: Desk, provider: SlowProvider) -> None:
    """A question that is sent again after a lost connection is not asked again."""
    first, again = asks(desk, msgid="c1/1"), asks(desk, msgid="c1/1")
    wait_until(lambda: bool(provider.asked))

    assert first.stream_id == again.stream_id
    assert provider.asked == ["年假?"]


@pytest.mark.parametrize("channel", ["chat", "http"])
def test_another_text_under_a_used_id_is_refused(desk: Desk, provider: SlowProvider, channel: str) -> None:
    """It is not asked, and does not get the first question's answer; the first question continues."""
    first = asks(desk, channel=channel, msgid="c1/1")
    wait_until(lambda: bool(provider.asked))

    other = asks(desk, "病假?", channel=channel, msgid="c1/1")
    found = desk.gateway.find(Question("病假?", channel, "default", CALLER.principal, msgid="c1/1"))

    conflict = Snapshot(first.stream_id, "error", error_code="id_conflict")
    assert (other, found) == (conflict, conflict)
    assert asks(desk, channel=channel, msgid="c1/1").status == "processing"
    assert provider.asked == ["年假?"]


@pytest.mark.parametrize("changes", [{"model": "m2"}, {"temperature": 0.0}, {"inputs": {"a": 1}}], ids=str)
def test_other_options_under_a_used_id_are_refused(
    desk: Desk, provider: SlowProvider, changes: dict[str, object]
) -> None:
    """The stored answer is one to the first question's options."""
    asked = Question("年假?", "http", "default", CALLER.principal, msgid="1", inputs={"a": 0.5}, temperature=0.5)
    first = desk.gateway.ask(asked)
    wait_until(lambda: bool(provider.asked))

    assert desk.gateway.ask(replace(asked, **changes)).error_code == "id_conflict"  # type: ignore[arg-type]
    assert desk.gateway.find(replace(asked, **changes)).error_code == "id_conflict"  # type: ignore[arg-type, union-attr]
    assert desk.gateway.ask(asked).stream_id == first.stream_id
    assert provider.asked == ["年假?"]


def test_a_refused_text_leaves_the_conversations_turn(desk: Desk, provider: SlowProvider) -> None:
    """The running stream under the same id keeps its turn, so the next question waits for it."""
    first = asks(desk, msgid="c1/1", session="s1")
    wait_until(lambda: bool(provider.asked))

    assert asks(desk, "病假?", msgid="c1/1", session="s1").error_code == "id_conflict"
    assert asks(desk, "事假?", msgid="c1/2", session="s1").waiting

    provider.go_on.set()
    assert sees(desk, first.stream_id)[0] == "答：年假?"


def test_a_refused_question_keeps_its_id(desk: Desk) -> None:
    """Of a question that is too long the beginning is stored: the same text finds its stream, another one does not."""
    long = "长" * 30_000
    first = asks(desk, long, msgid="c1/1")

    assert asks(desk, long, msgid="c1/1") == first
    assert asks(desk, "年假?", msgid="c1/1").error_code == "id_conflict"
    assert asks(desk, "短" * 30_000, msgid="c1/1").error_code == "id_conflict"


def test_an_id_that_cannot_be_compared_is_an_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis went away before the texts were compared, and the answer may be another question's."""
    asks(desk, msgid="c1/1")

    def away(stream_id: str) -> str:
        raise StoreUnavailable

    monkeypatch.setattr(desk.streams, "question", away)
    assert asks(desk, "病假?", msgid="c1/1").error_code == "store_unavailable"


def test_client_ids_are_separate_by_principal_and_channel(desk: Desk, provider: SlowProvider) -> None:
    """The same id of another principal or channel is another question."""
    mine = asks(desk, msgid="1").stream_id
    theirs = desk.gateway.ask(Question("年假?", "chat", "default", "user:lisi", msgid="1")).stream_id
    realtime = asks(desk, channel="realtime", msgid="1").stream_id

    assert len({mine, theirs, realtime}) == 3


def test_a_stream_is_followed_and_cancelled_only_by_its_principal(desk: Desk, provider: SlowProvider) -> None:
    """For others it is unknown, also if they know the client's session."""
    asked = asks(desk, session="s1")

    with pytest.raises(StreamUnknown):
        sees(desk, asked.stream_id, "user:lisi")
    assert not desk.gateway.cancel(asked.stream_id, bot="default", principal="user:lisi")
    assert desk.gateway.read(asked.stream_id, bot="default", principal="user:lisi", chat="s1") is None
    assert desk.gateway.cancel("nowhere", bot="default", principal=CALLER.principal) == ""
    statuses = [desk.gateway.cancel(asked.stream_id, bot="default", principal=CALLER.principal) for _ in range(2)]
    assert statuses == ["processing", "cancelled"]
    assert sees(desk, asked.stream_id)[1].status == "cancelled"


def test_a_cancelled_answer_is_dropped_at_once(any_redis_url: str, provider: SlowProvider) -> None:
    """The owner is notified, with a silent provider and the next renewal far away."""
    desk = Desk(any_redis_url, provider, lease=300.0)
    try:
        asked = asks(desk)
        hash_key = stream_keys(asked.stream_id).hash
        wait_until(lambda: desk.client.hget(hash_key, "task_id") == "t1")

        desk.gateway.cancel(asked.stream_id, bot="default", principal=CALLER.principal)

        wait_until(lambda: desk.manager.owned(asked.stream_id) is None)
    finally:
        provider.go_on.set()
        desk.close()


def test_a_withdrawn_key_does_not_reach_the_provider(desk: Desk, provider: SlowProvider) -> None:
    """The key is checked again before the provider is asked."""
    asked = desk.gateway.ask(Question("年假?", "chat", "default", "key:0000000000000000"))

    _, end = sees(desk, asked.stream_id, "key:0000000000000000")

    assert (end.error_code, provider.asked) == ("auth_refused", [])


@pytest.mark.parametrize(("channel", "session", "user"), [("realtime", "s1", "ws-user-s1"), ("chat", "s1", "")])
def test_realtime_names_the_providers_user_by_session(
    desk: Desk, provider: SlowProvider, channel: str, session: str, user: str
) -> None:
    """Without an end user, realtime names the provider's user by session; chat leaves it to the provider."""
    asks(desk, channel=channel, session=session)
    wait_until(lambda: bool(provider.queries))

    assert (provider.queries[0].user, provider.queries[0].channel) == (user, channel)


def test_an_answers_sources_are_stored_with_it(desk: Desk, provider: SlowProvider) -> None:
    """Pages show the sources below the answer."""
    sources = ({"title": "员工手册", "content": "年假五天", "score": 0.9},)
    provider.usage = Usage(7, sources=sources)
    provider.go_on.set()

    asked = asks(desk)
    following = desk.gateway.follow(asked.stream_id, bot="default", principal=CALLER.principal)
    sees(desk, asked.stream_id)

    assert following.full_answer().sources == tuple(map(typed_source, sources))


@pytest.mark.parametrize(
    ("count", "size", "kept"), [(3, 10, 3), (50, 10, 20), (4, 20_000, 3), (1, 100_000, 0), (0, 0, 0)]
)
def test_sources_are_bounded(count: int, size: int, kept: int) -> None:
    """At most twenty sources and 64 KiB of them are stored, whatever the provider sends."""
    written = written_sources([{"content": "x" * size}] * count)

    assert len(read_sources(written)) == kept


def test_a_question_whose_opening_got_no_reply_is_answered(
    desk: Desk, provider: SlowProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client sends it again by its id, and finds an answer, not the end of an abandoned stream."""
    opens = desk.streams.open

    def reply_lost(*args: object, **options: object) -> object:
        opens(*args, **options)  # type: ignore[arg-type]
        raise StoreUnavailable("no reply")

    provider.go_on.set()
    monkeypatch.setattr(desk.streams, "open", reply_lost)
    assert asks(desk, msgid="c1/1").error_code == "store_unavailable"
    monkeypatch.undo()

    again = asks(desk, msgid="c1/1")
    desk.client.hset(stream_keys(again.stream_id).hash, mapping={"lease": "1", "suspect": "1"})
    text, end = sees(desk, again.stream_id)

    assert (text, end.status, provider.asked) == ("答：年假?", "completed", ["年假?"])


def test_find_returns_a_stream_without_asking(desk: Desk, provider: SlowProvider) -> None:
    """Only to the principal that asked, and only for a message with its own id."""
    question = Question("年假?", "chat", "default", CALLER.principal, msgid="c1/1")
    assert desk.gateway.find(question) is None
    asked = desk.gateway.ask(question)

    found = desk.gateway.find(question)

    assert found
    assert found.stream_id == asked.stream_id
    assert desk.gateway.find(replace(question, principal="user:lisi")) is None
    assert desk.gateway.find(replace(question, msgid="")) is None
