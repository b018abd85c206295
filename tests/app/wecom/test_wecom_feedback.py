"""People rate answers in WeCom: the row in SQL, the rating at Dify, and who may rate what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from config.texts import ZH
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import feedback_id, rates
from demo.wecom.simulator import Bubble, WeComUser
from services import metrics
from services.feedback.sql_store import FEEDBACK
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until

AT = 1_700_000_000


@dataclass
class Office:
    """A replica with a mock Dify and an SQLite file."""

    app: AppServer
    dify: MockDify
    url: str
    users: list[WeComUser] = field(default_factory=list)

    def user(self, userid: str = "zhangsan", chatid: str = "") -> WeComUser:
        self.users.append(self.app.user(userid, chatid))
        return self.users[-1]

    def answered(self, user: WeComUser, question: str = "年假怎么申请") -> Bubble:
        bubble = user.says(question)
        user.sees_finish(bubble, every=0.05, timeout=30.0)
        wait_until(lambda: self.app.container.manager.running == 0)
        return bubble

    def rows(self) -> list[dict[str, Any]]:
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            found = [dict(row._mapping) for row in connection.execute(sa.select(FEEDBACK).order_by(FEEDBACK.c.version))]
        engine.dispose()
        return found

    def delivers(self) -> None:
        """Wait until the queue is empty."""
        redis = self.app.container.redis
        wait_until(lambda: redis.zcard("{dify_feedback}:queue") == 0, timeout=30.0)

    def states(self) -> list[tuple[str | None, str]]:
        """Return what Dify was told, in order."""
        return [(rating, content) for _, rating, content in self.dify.ratings]


@pytest.fixture
def office(any_redis_url: str, tmp_path: Path) -> Iterator[Office]:
    path = tmp_path / "laibao.db"
    with MockDify() as dify:
        values = {**dify_settings(dify.base_url), "DATABASE_PATH": str(path), "BATCH_ENABLED": "false"}
        with AppServer(any_redis_url, **values) as app:
            here = Office(app, dify, f"sqlite:///{path}")
            yield here
            for user in here.users:
                user.close()


def refused(reason: str) -> float:
    return float(metrics.FEEDBACK_REFUSED.labels(reason)._value.get())


def test_a_rating_reaches_sql_and_dify(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """With words and reasons; row and log name the person by a fingerprint, Dify by its user. No words are logged."""
    user = office.user()
    bubble = office.answered(user)
    rates(user, bubble, "inaccurate", "请更具体一点", [2, 4])
    office.delivers()

    (row,) = office.rows()
    (message_id, rating, content) = office.dify.ratings[0]
    run = office.dify.runs.find(message_id, "zhangsan")
    words = f"请更具体一点\n{ZH['feedback_reason_2']}\n{ZH['feedback_reason_4']}"
    assert (row["stream_id"], row["rating"], row["content"], row["reasons"]) == (
        bubble.stream_id,
        "dislike",
        "请更具体一点",
        "2,4",
    )
    assert (row["bot"], row["channel"], row["provider"], row["message_id"]) == ("default", "wecom", "dify", message_id)
    assert row["person"] not in ("", "zhangsan")
    assert run
    assert (rating, content) == ("dislike", words)
    assert not [record for record in caplog.records if "更具体" in str(vars(record))]
    (line,) = [str(vars(record)) for record in caplog.records if record.message == "feedback"]
    assert "zhangsan" not in line


def test_only_the_first_frame_of_an_answer_has_a_feedback_id(office: Office) -> None:
    """Not later frames, not commands, not refusals; the answer to a `retry` has one, and a redelivery has the same."""
    user = office.user()
    bubble = user.says("年假怎么申请", "m1")
    user.sees_finish(bubble, every=0.05, timeout=30.0)
    wait_until(lambda: office.app.container.manager.running == 0)
    again = user.says("年假怎么申请", "m1")
    retried = user.says("/retry")
    sentences = [user.says(text) for text in ("/help", "/reset", "/stop", " ")]
    media = user.shows({"msgtype": "location", "location": {}})

    assert feedback_id(bubble) == feedback_id(again) == f"fb-{bubble.stream_id}"
    assert [frame for frame in bubble.frames[1:] if "feedback" in frame.raw] == []
    assert feedback_id(retried) == f"fb-{retried.stream_id}"
    assert [feedback_id(one) for one in (*sentences, media)] == [""] * 5


def test_the_members_of_a_group_rate_each_for_themselves(office: Office) -> None:
    """A row each; Dify, which knows the asker alone, has the last rating that was not withdrawn."""
    asker, member = office.user("zhangsan", "group1"), office.user("lisi", "group1")
    bubble = office.answered(asker)
    rates(asker, bubble, "accurate", at=AT)
    rates(member, bubble, "inaccurate", "不对", at=AT + 1)
    office.delivers()
    rates(member, bubble, "withdrawn", at=AT + 2)
    office.delivers()

    assert sorted(str(row["rating"]) for row in office.rows()) == ["None", "like"]
    assert len({row["person"] for row in office.rows()}) == 2
    assert office.states()[-1] == ("like", "")


def test_people_outside_the_chat_cannot_rate(office: Office) -> None:
    """Another person's single chat and another group: nothing is stored, whatever id they send."""
    asker = office.user()
    bubble = office.answered(asker)
    before = refused("unknown")
    for stranger in (office.user("lisi"), office.user("lisi", "group1")):
        rates(stranger, bubble, "inaccurate", "假的")

    assert refused("unknown") == before + 2
    assert office.app.container.redis.keys("{dify_feedback}*") == []


def test_an_unknown_answer_gets_an_empty_reply(office: Office) -> None:
    """A malformed event too; both are counted."""
    user = office.user()
    before = (refused("unknown"), refused("malformed"))
    for given in (f"fb-{'0' * 32}", "fb-1"):
        event = {"eventtype": "feedback_event", "feedback_event": {"id": given, "type": 1}}
        assert user.sends({"msgtype": "event", "create_time": AT, "event": event}) is None

    assert (refused("unknown"), refused("malformed")) == (before[0] + 1, before[1] + 1)


def test_an_answer_is_rated_while_it_goes_on(office: Office) -> None:
    """Dify is told as soon as it has named the message."""
    office.dify.slow = 0.02
    user = office.user()
    bubble = user.says("年假怎么申请 [[slow]]")
    wait_until(lambda: user.polls(bubble).content != ZH["thinking"], timeout=30.0)
    rates(user, bubble, "accurate")
    wait_until(lambda: office.states() == [("like", "")], timeout=30.0)
    office.delivers()

    assert [row["rating"] for row in office.rows()] == ["like"]


def test_redis_has_no_words_of_people(office: Office) -> None:
    """Ratings that wait are encrypted."""
    office.dify.outage = MockErrorReply.html(502, "Bad Gateway")
    user = office.user()
    bubble = office.answered(user)
    rates(user, bubble, "inaccurate", "机密的话")

    stored = office.app.container.redis.hgetall(f"{{dify_feedback}}:{bubble.stream_id}")

    assert stored
    assert "机密" not in str(stored)
    assert "dislike" not in str(stored)
    office.dify.outage = None


def test_without_sql_dify_is_told_all_the_same(any_redis_url: str) -> None:
    """No MYSQL_HOST and no DATABASE_PATH: the provider alone keeps ratings."""
    with (
        MockDify() as dify,
        AppServer(any_redis_url, **dify_settings(dify.base_url)) as app,
        app.user() as user,
    ):
        office = Office(app, dify, "")
        rates(user, office.answered(user), "accurate")
        office.delivers()

        assert office.states() == [("like", "")]


def test_a_provider_without_ratings_leaves_them_to_sql(any_redis_url: str, tmp_path: Path) -> None:
    """The built-in mock takes none."""
    path = tmp_path / "laibao.db"
    with (
        MockDify() as dify,
        AppServer(any_redis_url, DATABASE_PATH=str(path), BATCH_ENABLED="false") as app,
        app.user() as user,
    ):
        office = Office(app, dify, f"sqlite:///{path}")
        rates(user, office.answered(user), "accurate")
        office.delivers()

        assert [(row["provider"], row["rating"]) for row in office.rows()] == [("mock", "like")]
