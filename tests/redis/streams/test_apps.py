"""`use` in `ACCESS_FILE` chooses one of `APPS`: all of an answer then belongs to that app, also after a takeover.

The bot's own app and `hr-app` are services that two replicas share.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis

from config.errors import SettingsError
from config.groups import ProviderSettings
from services.attachments import MediaFile
from services.conversations.store import turns_key
from services.errors import Unrecoverable
from services.feedback.records import Rating
from services.files.kinds import file_of
from services.forms import FormAction, FormChoice, PendingForm, clicked_choice
from services.models import Delta, ProviderEvent, ProviderIds, Query, Question
from services.providers.base import BaseForms, BaseRAGProvider, Recovered
from services.streams.records import Snapshot
from services.streams.store import stream_keys
from tests.support.rules import reread
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.streams.counting_relay import CountingRelay
from tests.support.streams.desk import Desk
from utils.deadline import Deadline

TO_HR = (
    "- {allow: true}\n- {person: lisi, allow: true, use: hr-app}\n- {department: 人事部, allow: true, use: hr-app}\n"
)
TO_OWN = "- {allow: true}\n"
PEOPLE = "userid,department\nzhangsan,研发部\nwangwu,人事部\n"


class AppForms(BaseForms):
    """Notes the forms that are submitted."""

    def __init__(self) -> None:
        self.submitted: list[str] = []

    def submit(self, form: PendingForm, choice: FormChoice, query: Query, deadline: Deadline) -> None:
        self.submitted.append(choice.action)

    def is_open(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        return False

    def resume(self, form: PendingForm, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        yield Delta("已批准")


class AppProvider(BaseRAGProvider):
    """A plug-in: one app for each DIFY_USER, the same for every replica. `go_on` holds its answers after a delta."""

    name = "apps"
    takes_ratings = True
    takes_files = "upload"
    made: ClassVar[dict[str, AppProvider]] = {}

    def __init__(self, name: str) -> None:
        self.app = f"app-{name}"
        self.who = name
        self.queries: list[Query] = []
        self.recovered: list[str] = []
        self.cancelled: list[str] = []
        self.rated: list[str] = []
        self.uploads: list[str] = []
        self.asks_back = False
        self.forms = self.own_forms = AppForms()
        self.suggest = lambda query, ids, deadline: [f"{name}还能做什么"]
        self.go_on = threading.Event()
        self.go_on.set()

    @classmethod
    def from_settings(cls, settings: ProviderSettings) -> BaseRAGProvider:
        return cls.made.setdefault(settings.dify_user, cls(settings.dify_user))

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        self.queries.append(query)
        number = len(self.queries)
        yield ProviderIds(query.conversation_id or f"c-{self.who}-{number}", f"m-{self.who}-{number}", "t")
        yield Delta(f"{self.who}：")
        self.go_on.wait(60.0)
        if self.asks_back:
            yield PendingForm("token", "run", actions=(FormAction("yes", "好"),), content="好吗？")
        yield Delta(query.words)

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        self.recovered.append(ids.message_id)
        if not ids.message_id.startswith(f"m-{self.who}"):
            raise Unrecoverable("another app's answer")
        return Recovered(f"{self.who}：{query.words}")

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self.cancelled.append(ids.message_id)

    def upload(self, file: MediaFile, query: Query, deadline: Deadline) -> str:
        self.uploads.append(file.name)
        return f"document:{self.who}"

    def rate(self, message_id: str, user: str, rating: Any, content: str, *, token: str = "") -> None:
        self.rated.append(message_id)

    def health_check(self) -> bool:
        return True


class Company:
    """Two replicas of one bot, the rules, and the two apps."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._rules, people = folder / "access.yaml", folder / "people.csv"
        self._rules.write_text(TO_HR, "utf-8")
        people.write_text(PEOPLE, "utf-8")
        self._variables = {
            "RAG_PROVIDER": f"{__name__}:{AppProvider.__name__}",
            "DIFY_USER": "own",
            "APPS": json.dumps({"hr-app": {"DIFY_USER": "hr"}}),
            "ACCESS_FILE": str(self._rules),
            "DEPARTMENTS_FILE": str(people),
            "WECHAT_SUGGESTIONS": "true",
            "WORDS_FILE": "",
        }
        AppProvider.made = {}
        self.desks: list[Desk] = []
        self.here, self.there = self.opens(), self.opens()
        self.own, self.hr = (AppProvider.made[name] for name in ("own", "hr"))

    def opens(self, **changes: str) -> Desk:
        self.desks.append(Desk(self._url, AppProvider("unused"), variables={**self._variables, **changes}))
        return self.desks[-1]

    def rules(self, text: str) -> None:
        self._rules.write_text(text, "utf-8")
        for desk in self.desks:
            reread(desk.container.rules)

    def asks(self, text: str, person: str = "lisi", *, at: Desk | None = None, **changes: Any) -> Snapshot:
        """Ask, and return the ended answer."""
        desk = at or self.here
        asked = desk.asks(text, msgid=text, principal=person, **changes)
        return desk.sees_end(asked.stream_id, principal=person)

    @property
    def conversations(self) -> dict[str, list[str]]:
        """The conversation ids that each app was asked with."""
        return {app.who: [query.conversation_id for query in app.queries] for app in (self.own, self.hr)}

    def loses(self, desk: Desk, client: redis.Redis, stream_id: str) -> None:
        """Kill a replica, and let the other one take its stream over."""
        owned = desk.manager.owned(stream_id)
        assert owned
        desk.dies()
        # A killed process does not wait for its turn any more.
        owned.deadline.abort("lost")
        client.hset(stream_keys(stream_id).hash, mapping={"lease": "1", "suspect": "1"})
        assert self.there.container.takeovers.attempt(stream_id) == "taken"


@pytest.fixture
def company(redis_url: str, tmp_path: Path) -> Iterator[Company]:
    company = Company(redis_url, tmp_path)
    yield company
    for app in (company.own, company.hr):
        app.go_on.set()
    for desk in company.desks:
        desk.close()


def test_the_rule_that_counts_chooses_the_app(company: Company) -> None:
    """By person and by department; a rule without `use` means the bot's own app. Suggestions are those of the app."""
    answers = {person: company.asks("年假?", person) for person in ("zhangsan", "lisi", "wangwu")}

    assert {person: (answer.text, answer.note) for person, answer in answers.items()} == {
        "zhangsan": ("own：年假?", "own还能做什么"),
        "lisi": ("hr：年假?", "hr还能做什么"),
        "wangwu": ("hr：年假?", "hr还能做什么"),
    }


def test_each_app_has_a_conversation_of_its_own(company: Company) -> None:
    """A person who is moved begins that app's conversation, and finds the old one on return."""
    company.asks("一")
    company.asks("二", at=company.there)
    company.rules(TO_OWN)
    company.asks("三")
    company.asks("四")
    company.rules(TO_HR)
    company.asks("五")

    assert company.conversations == {"own": ["", "c-own-1"], "hr": ["", "c-hr-1", "c-hr-1"]}


def test_a_broken_file_moves_nobody(company: Company) -> None:
    """A rule that uses no app of APPS breaks the file; at the start it stops the replica."""
    company.rules("- {allow: true}\n- {allow: true, use: hr-ap}\n")

    assert company.asks("年假?").text == "hr：年假?"
    expected = "in rule 2 use: default, or an app of APPS (hr-app)"
    assert company.here.container.rules.problems == [f"ACCESS_FILE: expected {expected}"]
    with pytest.raises(SettingsError, match=r"ACCESS_FILE=.*in rule 2 use"):
        company.opens()


def test_a_reset_begins_anew_with_every_app(company: Company) -> None:
    """The command comes before it is known which app the person has."""
    company.asks("一")
    company.rules(TO_OWN)
    company.asks("二")

    company.asks("/reset")

    company.asks("三")
    company.rules(TO_HR)
    company.asks("四")
    assert company.conversations == {"own": ["", ""], "hr": ["", ""]}


def test_the_questions_of_a_chat_keep_their_order_over_apps(company: Company, redis_client: redis.Redis) -> None:
    """They wait in one queue, which both leave."""
    company.hr.go_on.clear()
    first = company.here.asks("一", msgid="1", principal="lisi")
    wait_until(lambda: company.hr.queries)
    company.rules(TO_OWN)
    second = company.there.asks("二", msgid="2", principal="lisi")
    wait_until(lambda: redis_client.hget(stream_keys(second.stream_id).hash, "app"))

    assert company.own.queries == []
    company.hr.go_on.set()
    assert company.there.sees_end(second.stream_id, principal="lisi").text == "own：二"
    assert company.here.sees_end(first.stream_id, principal="lisi").text == "hr：一"
    wait_until(lambda: not company.here.manager.running and not company.there.manager.running)
    assert list(redis_client.scan_iter("*:turns")) == []


def test_a_takeover_stays_with_the_app(company: Company, redis_client: redis.Redis) -> None:
    """The successor looks the answer up there, although the rules choose another app by now."""
    company.hr.go_on.clear()
    asked = company.here.asks("一", principal="lisi")
    wait_until(lambda: redis_client.hget(stream_keys(asked.stream_id).hash, "message_id"))
    company.rules(TO_OWN)

    company.loses(company.here, redis_client, asked.stream_id)

    assert company.there.sees_end(asked.stream_id, principal="lisi").text == "hr：一"
    assert (company.hr.recovered, company.own.recovered, company.own.queries) == (["m-hr-1"], [], [])
    company.hr.go_on.set()
    company.asks("二", at=company.there)
    company.rules(TO_HR)
    company.asks("三", at=company.there)
    assert company.conversations == {"own": [""], "hr": ["", "c-hr-1"]}


def test_a_chosen_app_stays_before_it_is_asked(company: Company, redis_client: redis.Redis) -> None:
    """A question that waits for its turn is asked at the app that it was judged for, by its successor, too."""
    company.hr.go_on.clear()
    first = company.there.asks("一", msgid="1", principal="lisi")
    wait_until(lambda: company.hr.queries)
    second = company.here.asks("二", msgid="2", principal="lisi")
    wait_until(lambda: redis_client.hget(stream_keys(second.stream_id).hash, "app") == "hr-app")
    company.rules(TO_OWN)

    company.loses(company.here, redis_client, second.stream_id)
    company.hr.go_on.set()

    assert company.there.sees_end(second.stream_id, principal="lisi").text == "hr：二"
    assert company.there.sees_end(first.stream_id, principal="lisi").text == "hr：一"
    assert company.conversations == {"own": [], "hr": ["", "c-hr-1"]}


def test_a_replica_without_the_app_ends_the_answer(company: Company, redis_client: redis.Redis) -> None:
    """It asks no other app, and gives back what the question held."""
    company.hr.go_on.clear()
    asked = company.here.asks("一", principal="lisi")
    wait_until(lambda: redis_client.hget(stream_keys(asked.stream_id).hash, "message_id"))
    company.rules(TO_OWN)
    company.there = company.opens(APPS="")

    company.loses(company.here, redis_client, asked.stream_id)

    ended = company.there.sees_end(asked.stream_id, principal="lisi")
    wait_until(lambda: not company.there.manager.running)
    assert (ended.error_code, company.own.queries, company.own.recovered) == ("interrupted", [], [])
    key = company.there.container.answerer.conversation(Question("一", "wecom", "default", "lisi"))
    left = [name for name in (turns_key(key), "dify_user:default:lisi") if redis_client.exists(name)]
    assert left == []


def test_a_cancelled_answer_is_cancelled_at_its_app(company: Company) -> None:
    company.hr.go_on.clear()
    asked = company.here.asks("一", principal="lisi")
    owned = company.here.manager.owned(asked.stream_id)
    assert owned
    wait_until(lambda: owned.field("message_id"))

    company.here.gateway.cancel(asked.stream_id, bot="default", principal="lisi")
    wait_until(lambda: owned.closed)
    company.hr.go_on.set()

    assert company.here.sees_end(asked.stream_id, principal="lisi").status == "cancelled"
    wait_until(lambda: not company.here.manager.running)
    assert (company.hr.cancelled, company.own.cancelled) == (["m-hr-1"], [])


def test_a_rating_goes_to_the_app_that_answered(company: Company) -> None:
    """Also when the person has another app by then."""
    ended = company.asks("一")
    company.rules(TO_OWN)

    feedback = company.there.container.feedback_inbox
    assert feedback.rate(ended.stream_id, Rating("like"), bot="default", principal="lisi") == "taken"
    company.there.container.feedback.work()

    assert (company.hr.rated, company.own.rated) == (["m-hr-1"], [])


def test_files_are_uploaded_to_the_app(company: Company) -> None:
    file = file_of("file", "制度.txt", "年假五天".encode())
    question = Question("看看", "wecom", "default", "lisi", msgid="m1")

    asked = company.here.gateway.ask(question, media=[file])

    company.here.sees_end(asked.stream_id, principal="lisi")
    assert (company.hr.uploads, company.own.uploads) == (["file.txt"], [])
    assert company.hr.queries[0].files == ("document:hr",)


def test_a_form_is_answered_at_the_app_that_asks(company: Company) -> None:
    """A click names its form, so it reaches that app under any rules. Typed words go to the person's app."""
    company.hr.asks_back = True
    ended = company.asks("请假")
    form_id = json.loads(ended.choices)[0]
    company.rules(TO_OWN)

    typed = company.asks("1")
    clicked = company.asks("好", at=company.there, choice=clicked_choice(form_id, 0))

    assert typed.text == "own：1"
    assert clicked.text == "已批准"
    assert (company.hr.own_forms.submitted, company.own.own_forms.submitted) == (["yes"], [])


def test_words_answer_a_form_of_the_persons_app(company: Company) -> None:
    company.hr.asks_back = True
    company.asks("请假")

    assert company.asks("1", at=company.there).text == "已批准"


def test_an_unknown_form_is_gone_at_every_app(company: Company) -> None:
    assert company.asks("好", choice=clicked_choice("0" * 24, 0)).error_code == "form_gone"


def test_every_bot_masks_what_the_apps_say(company: Company, tmp_path: Path) -> None:
    """An app has no words of its own; those of the bot that asks it count."""
    words = tmp_path / "words.txt"
    words.write_text("mask 年假\nrefuse 机密\n", "utf-8")
    desk = company.opens(WORDS_FILE=str(words))

    assert company.asks("年假?", at=desk).text == "hr：＊＊?"
    assert company.asks("机密?", at=desk).error_code == "forbidden_words"
    assert len(company.hr.queries) == 1


def test_a_redelivered_message_finds_its_stream(company: Company) -> None:
    """Its id does not depend on the app: it is answered once, also when the rules have changed."""
    first = company.here.asks("一", principal="lisi")
    company.rules(TO_OWN)
    again = company.there.asks("一", principal="lisi")

    assert again.stream_id == first.stream_id
    assert company.there.sees_end(first.stream_id, principal="lisi").text == "hr：一"
    assert [len(queries) for queries in company.conversations.values()] == [0, 1]


def test_a_callback_costs_what_it_does_without_apps(
    redis_server: RedisServer, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """One round trip with the same calls. The producer alone reads the other app's conversation, in one more."""
    redis_client.flushall()
    with CountingRelay(redis_server.port) as relay:
        company = Company(relay.url, tmp_path)
        company.here.runner.load()
        try:
            company.asks("一", "zhangsan")
            company.asks("一", "lisi")
        finally:
            for desk in company.desks:
                desk.close()
        own, hr = [names for names in relay.names if "open" in names]

    assert own == hr
    assert [names for names in relay.names if "MGET" in names] == [("MGET", "EXISTS", "PEXPIRE")]
