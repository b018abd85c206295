"""The administrators' API of pushes: every caller's without words, and cancelling one, by role and audited."""

from __future__ import annotations

import pytest

from channels.admin.pushes import pushes_blueprint
from services.redis.store import ScriptRunner
from tests.support.admins import AdminApi
from tests.support.batches.counter import data_of
from tests.support.long_connection.push_client import PushClient

NOW = "1700000000"


class Company(AdminApi):
    """Pushes of a program, and administrators of each role."""

    def __init__(self, runner: ScriptRunner) -> None:
        self.program = PushClient(runner, now=NOW)
        super().__init__(lambda administrators: pushes_blueprint(administrators, self.program.inbox))

    def pushes(self, bot: str = "default") -> str:
        """Push a text; return the push's id."""
        return str(data_of(self.program.pushes(bot=bot), 202)["id"])


@pytest.fixture
def company(runner: ScriptRunner) -> Company:
    return Company(runner)


def test_pushes_of_every_bot_are_listed_without_words(company: Company) -> None:
    """A viewer sees what waits and what ended, and neither a text nor a person."""
    first, second, third = company.pushes(), company.pushes("second"), company.pushes()
    company.sends("POST", f"pushes/{first}/cancel", "operator")

    status, data = company.gets("pushes")

    assert (status, data["waiting"]) == (200, 2)
    assert [(push["id"], push["bot"], push["state"], push["is_file"]) for push in data["pushes"]] == [
        (third, "default", "queued", False),
        (second, "second", "queued", False),
        (first, "default", "cancelled", False),
    ]
    assert [push["ended_at"] for push in data["pushes"]] == [None, None, "2023-11-14T22:13:20+00:00"]
    assert not any(word in str(data) for word in ("zhangsan", "开会"))
    assert len(company.gets("pushes?limit=1")[1]["pushes"]) == 3


def test_an_operator_cancels_a_push_that_waits(company: Company) -> None:
    """The program sees it; the audit has the state before. One that has ended stays as it is."""
    push = company.pushes()
    assert company.sends("POST", f"pushes/{push}/cancel", "viewer")[0] == 403
    assert company.acts == []

    cancelled = company.sends("POST", f"pushes/{push}/cancel", "operator")

    assert cancelled == (200, {"id": push, "was": "queued", "state": "cancelled"})
    assert data_of(company.program.shows(push))["state"] == "cancelled"
    again = company.sends("POST", f"pushes/{push}/cancel", "admin")
    assert again == (200, {"id": push, "was": "cancelled", "state": "cancelled"})
    assert [(act.name, act.action, act.object, act.before) for act in company.acts] == [
        ("operator", "push.cancel", push, "queued"),
        ("admin", "push.cancel", push, "cancelled"),
    ]


@pytest.mark.parametrize("push_id", ["default.unknown", "callback.unknown", "nobody.unknown", "unknown"])
def test_an_unknown_push_is_not_cancelled(company: Company, push_id: str) -> None:
    """Nor one of a bot that has none; nothing is in the audit."""
    assert company.sends("POST", f"pushes/{push_id}/cancel", "admin")[0] == 404
    assert company.acts == []
