"""Administrators' tokens and the audit in SQL: one valid token per name, and every change with its row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from services.admin.sql_store import AT_ONCE, Act, AdminStore, AuditFilter
from services.admin.tokens import Administrator
from tests.support.batches.shelf import at_once
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock

BY = Act("root", "admin", "", "token.create", "wang", None, "operator")
#: An hour of the tests' clock.
AT = datetime.fromtimestamp(1_000_000.0, UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(sql_url: str, clock: FakeClock) -> Iterator[AdminStore]:
    store = AdminStore(migrated(sql_url), clock=clock)
    yield store
    store.close()


def created(store: AdminStore, name: str = "wang", digest: str = "d1") -> bool:
    return store.create(name, "operator", digest, by=BY._replace(object=name))


def test_a_token_is_found_until_it_is_revoked(store: AdminStore) -> None:
    """Its name can then be given again, with another token and role."""
    assert created(store)
    assert store.find("d1") == Administrator("wang", "operator")

    assert store.revoke("wang", by=BY._replace(action="token.revoke"))
    assert (store.find("d1"), store.revoke("wang", by=BY)) == (None, False)

    assert store.create("wang", "viewer", "d2", by=BY)
    assert (store.find("d1"), store.find("d2")) == (None, Administrator("wang", "viewer"))
    (row,) = store.tokens()
    assert row == ("wang", "viewer", AT, "root", None)


def test_a_name_has_one_valid_token(store: AdminStore) -> None:
    """Of several attempts at once one succeeds, and the audit has it alone."""
    done = at_once([partial(created, store, digest=f"d{number}") for number in range(4)])

    assert sorted(done) == [False, False, False, True]
    assert len(list(store.audit())) == len(store.tokens()) == 1


def test_the_audit_has_every_act_newest_first(store: AdminStore, clock: FakeClock) -> None:
    """Also those of one second, and more than one page of them; names of any script stay as they are."""
    for number in range(AT_ONCE + 1):
        store.record(Act("王", "operator", "2001:db8::1", "stream.cancel", f"s{number}", "processing", None))
    clock.advance(60)
    created(store)

    newest, *rest = store.audit()
    assert (newest.time, newest.act) == (AT + timedelta(seconds=60), BY)
    assert [row.act.object for row in rest] == [f"s{number}" for number in reversed(range(AT_ONCE + 1))]
    assert rest[0].act[:4] == ("王", "operator", "2001:db8::1", "stream.cancel")
    assert [row.act.object for row in store.audit(AuditFilter(name="root"))] == ["wang"]
    assert len(list(store.audit(AuditFilter(AT, AT + timedelta(seconds=60), action="stream.cancel")))) == AT_ONCE + 1
    assert list(store.audit(AuditFilter(until=AT))) == []


def test_an_old_audit_is_deleted_in_bounded_steps(store: AdminStore, clock: FakeClock) -> None:
    """A row that is younger stays."""
    for number in range(AT_ONCE + 1):
        store.record(BY._replace(object=str(number)))
    clock.advance(1)
    store.record(BY)

    before = AT + timedelta(seconds=1)
    assert [store.delete_audit(before) for _ in range(3)] == [AT_ONCE, 1, 0]
    assert [row.act.object for row in store.audit()] == ["wang"]
