"""Who asks: what the provider is told of the person, and the speaker's name in a group that shares a conversation."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from channels.registry import CHANNELS, WECOM
from services.answers.answer import Answerer, Backend, Places
from services.answers.askers import MOST_SPEAKER, Askers, speaker_of
from services.answers.extras import AnswerExtras
from services.answers.forms.conversation_forms import AnswerForms
from services.answers.forms.form_store import FormStore
from services.answers.queue import ConversationQueue
from services.channels import Channel, Channels
from services.conversations.history_store import HistoryStore
from services.conversations.memory import MemoryStores
from services.conversations.store import ConversationStore
from services.errors import AuthError
from services.identity.callers import Callers
from services.identity.name_store import NameStore
from services.models import Asker, Attempt, Contact, Identity, ProviderIds, Query, Question, UserInfo
from services.providers.base import Recovered
from services.redis.store import ScriptRunner
from services.streams.access import Access
from services.streams.answer_events import Asking
from services.streams.manager import attempt_of
from services.streams.records import NewStream
from services.streams.store import StreamStore
from services.usage.ended_store import EndedStore
from tests.redis.streams.test_answer import ScriptedProvider
from tests.support.rules import no_quotas
from tests.support.streams.handlers import intake_without_files
from tests.support.texts import KEYS
from utils.deadline import Deadline

GROUP = Question("年假?", "wecom", "default", "zhangsan", chat="wr1", msgid="m-1")
PEOPLE = {"zhangsan": Contact("zhangsan", "张三", "研发部"), "lisi": Contact("lisi", "李四")}
RECORD = Identity("cached", UserInfo("E1001", "张三（用户表）"), "not-a-real-token")


class RecordAuth:
    """Knows every userid, or refuses all."""

    refuses = False

    def authenticate(self, userid: str, corp: str = "") -> Identity:
        if self.refuses:
            raise AuthError(code="unknown_user")
        return Identity("none", UserInfo(userid))


class NoNames(NameStore):
    """Stores no names."""

    def __init__(self) -> None:
        pass

    def note(self, question: Question, name: str) -> None:
        pass


class ForgetfulProvider(ScriptedProvider):
    """Keeps no conversations, and has the answers of earlier owners."""

    keeps_conversations = False

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        self.queries.append(query)
        return Recovered("全文")


class GroupAnswerer:
    """An answerer of a bot whose groups share one conversation."""

    def __init__(self, runner: ScriptRunner, people: dict[str, Contact], *, shared: bool = True) -> None:
        self.provider, self.auth = ForgetfulProvider(), RecordAuth()
        self.people = people
        self.asked: list[str] = []
        self.names = NameStore(runner)
        self.conversations = ConversationStore(runner, secret=b"s", ttl=100.0)
        self.answerer = Answerer(
            backends={"default": Backend(self.provider, shared_groups=shared)},
            channels=Channels(CHANNELS, {}),
            askers=Askers(self.auth, Callers("none"), {"default": self._find}, self.names),
            places=Places(
                ConversationQueue(self.conversations, StreamStore(runner)),
                no_quotas(runner),
                intake_without_files(runner),
                EndedStore(runner, queues=False),
            ),
            memory=MemoryStores(self.conversations, HistoryStore(runner, ttl=100.0), timeout=5.0),
            forms=AnswerForms(FormStore(runner, Access({}), clock=time.time), KEYS),
            extras=AnswerExtras(),
        )

    def _find(self, userid: str) -> Contact:
        self.asked.append(userid)
        return self.people.get(userid, Contact())

    def answers(self, question: Question, stream_id: str, attempt: Attempt | None = None) -> list[Any]:
        key = self.answerer.conversation(question)
        events = list(self.answerer.answer(question, stream_id, Deadline(30.0), attempt))
        self.conversations.leave(key, stream_id)
        return events


@pytest.fixture
def group(runner: ScriptRunner) -> GroupAnswerer:
    return GroupAnswerer(runner, dict(PEOPLE))


def asker(question: Question, identity: Identity, contact: Contact, channel: Channel = WECOM) -> Asker:
    askers = Askers(RecordAuth(), Callers("none"), {"default": lambda userid: contact}, NoNames())
    return askers.asker(question, identity, channel, "someone")


def test_the_directory_knows_more_than_the_user_record() -> None:
    """Its name wins, and an encrypted userid becomes the plain one."""
    encrypted = replace(GROUP, principal="woENCRYPTED")

    found = asker(encrypted, RECORD, PEOPLE["zhangsan"])

    assert found == Asker("zhangsan", "张三", "研发部", "wr1", "group", "default", "m-1")


def test_without_a_directory_the_user_record_has_the_name() -> None:
    """The department is unknown then; without a user record the name is, too."""
    single = replace(GROUP, chat="")

    found = [asker(single, identity, Contact()) for identity in (RECORD, Identity("none", UserInfo("zhangsan")))]

    assert found == [
        Asker("zhangsan", "张三（用户表）", "", "", "single", "default", "m-1"),
        Asker("zhangsan", "", "", "", "single", "default", "m-1"),
    ]


def test_other_channels_ask_no_directory() -> None:
    """Their principals are no userids of WeCom, and could be chosen to look like one."""
    socket = next(channel for channel in CHANNELS if channel.name == "chat")

    found = asker(Question("?", "chat", "default", "key:zhangsan"), RECORD, PEOPLE["zhangsan"], socket)

    assert (found.userid, found.name, found.department) == ("someone", "张三（用户表）", "")


@pytest.mark.parametrize(
    ("name", "speaker"),
    [
        ("张三", "张三"),
        ("", "zhangsan"),
        (" 张\n三 ", "张 三"),
        ("李四: 总经理", "李四 总经理"),
        ("\ud800\u202e", "zhangsan"),
        ("长" * 200, "长" * MOST_SPEAKER),
    ],
)
def test_a_speaker_is_one_line_without_a_colon(name: str, speaker: str) -> None:
    """What is before the first ": " is always the speaker; without a name it is the userid."""
    assert speaker_of(Asker("zhangsan", name)) == speaker


def test_each_turn_of_a_shared_group_names_its_speaker(group: GroupAnswerer) -> None:
    """Question and remembered turns begin with the name, or with the userid of a person without one."""
    group.answers(GROUP, "s1")
    group.answers(replace(GROUP, text="几天?", principal="wangwu"), "s2")
    group.answers(replace(GROUP, text="谢谢", principal="lisi"), "s3")

    texts = [query.text for query in group.provider.queries]
    assert texts == ["张三: 年假?", "wangwu: 几天?", "李四: 谢谢"]
    assert [turn.question for turn in group.provider.queries[-1].history] == ["张三: 年假?", "wangwu: 几天?"]
    assert [query.words for query in group.provider.queries] == ["年假?", "几天?", "谢谢"]
    assert group.provider.queries[0].asker.department == "研发部"


def test_only_shared_groups_name_the_speaker(runner: ScriptRunner, group: GroupAnswerer) -> None:
    """In a single chat, and where each person has a conversation, the question is sent as it is."""
    apart = GroupAnswerer(runner, dict(PEOPLE), shared=False)

    group.answers(replace(GROUP, chat=""), "s1")
    apart.answers(GROUP, "s2")

    assert [query.text for query in (*group.provider.queries, *apart.provider.queries)] == ["年假?", "年假?"]
    assert group.provider.queries[0].speaker == ""


def test_a_takeover_names_the_speaker_as_the_first_owner_did(group: GroupAnswerer) -> None:
    """The provider finds its answer by the question's text, so a name that became known later is not used."""
    first = GroupAnswerer.answers(group, GROUP, "s1")
    asking = next(event for event in first if isinstance(event, Asking))
    stored = {"asks": "1", "asked_at": "1.5", "speaker": "zhangsan"}

    group.answers(GROUP, "s2", attempt_of(NewStream("s2", "o", stored)))
    group.answers(GROUP, "s3", attempt_of(NewStream("s3", "o", {"asks": "1"})))

    assert asking.speaker == "张三"
    assert [query.text for query in group.provider.queries] == ["张三: 年假?", "zhangsan: 年假?", "年假?"]


def test_the_name_is_known_to_commands(group: GroupAnswerer) -> None:
    """`/whoami` and `/human` read the directory's name without a look-up."""
    group.answers(GROUP, "s1")

    assert group.names.name(GROUP) == "张三"
    assert group.asked == ["zhangsan"]


def test_an_unauthenticated_person_is_not_looked_up(group: GroupAnswerer) -> None:
    """The directory is asked after authentication only."""
    group.auth.refuses = True

    with pytest.raises(AuthError):
        group.answers(GROUP, "s1")
    assert group.asked == []
