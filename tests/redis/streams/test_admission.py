"""`ACCESS_FILE`: refused people and programs get their sentence, and nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.feedback.records import Rating
from tests.support.rules import reread
from tests.support.servers.processes import wait_until
from tests.support.streams.desk import CALLER, Desk, SlowProvider

RULES = """
- {allow: true}
- {department: 外包, allow: false, say: 请联系行政开通}
- {department: unknown, channel: wecom, allow: false}
- {channel: http, allow: false, say: 程序请用批量任务}
"""
PEOPLE = "userid,department\nzhangsan,研发部\nwangwu,外包\n"


@pytest.fixture
def access(tmp_path: Path) -> Path:
    path = tmp_path / "access.yaml"
    path.write_text(RULES, "utf-8")
    return path


@pytest.fixture
def provider() -> SlowProvider:
    provider = SlowProvider()
    provider.go_on.set()
    return provider


@pytest.fixture
def desk(redis_url: str, provider: SlowProvider, access: Path, tmp_path: Path) -> Iterator[Desk]:
    people = tmp_path / "people.csv"
    people.write_text(PEOPLE, "utf-8")
    desk = Desk(redis_url, provider, variables={"ACCESS_FILE": str(access), "DEPARTMENTS_FILE": str(people)})
    yield desk
    desk.close()


@pytest.mark.parametrize(
    ("asker", "shown"),
    [
        ({"principal": "zhangsan"}, "答：年假?"),
        ({"principal": "wangwu"}, "请联系行政开通"),
        ({"principal": "zhaoliu"}, "<not_allowed>"),
        ({"principal": f"{CALLER.principal}/zhangsan", "channel": "http"}, "程序请用批量任务"),
    ],
)
def test_the_rule_decides(desk: Desk, provider: SlowProvider, asker: dict[str, str], shown: str) -> None:
    """A program cannot pass for a person by the name of its user."""
    ended = desk.sees_end(desk.asks(**asker).stream_id, principal=asker["principal"])

    allowed = shown == "答：年假?"
    assert (desk.container.frames.content("default", ended), ended.error_code == "") == (shown, allowed)
    assert len(provider.asked) == allowed


def test_a_change_is_in_force_without_a_restart(desk: Desk, access: Path) -> None:
    """A broken change alters nothing."""
    access.write_text("- {allow", "utf-8")
    reread(desk.container.rules)
    assert desk.sees_end(desk.asks().stream_id).text == "答：年假?"

    access.write_text("- {allow: false, say: 今天休息}", "utf-8")
    reread(desk.container.rules)
    assert desk.sees_end(desk.asks(msgid="m2").stream_id).note == "今天休息"


def test_withdrawn_access_lets_a_begun_answer_end(desk: Desk, provider: SlowProvider, access: Path) -> None:
    """The next question is refused, and a refusal cannot be rated; the earlier answer can."""
    provider.go_on.clear()
    begun = desk.asks().stream_id
    wait_until(lambda: len(provider.asked) == 1)

    access.write_text("- {allow: false}", "utf-8")
    reread(desk.container.rules)
    provider.go_on.set()
    ended = desk.sees_end(begun)
    refused = desk.sees_end(desk.asks(msgid="m2").stream_id)

    assert (ended.text, refused.error_code, len(provider.asked)) == ("答：年假?", "not_allowed", 1)
    inbox = desk.container.feedback_inbox
    outcomes = [
        inbox.rate(stream_id, Rating("like"), bot="default", principal="zhangsan")
        for stream_id in (begun, refused.stream_id)
    ]
    assert outcomes == ["taken", "no_answer"]
