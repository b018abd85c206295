"""The versions of rules in SQL: numbered by kind, saved once of two editors, and each with its row of the audit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest

from services.admin import rules_store
from services.admin.rules_store import RulesStore
from services.admin.sql_store import Act, AdminStore
from services.errors import StoreUnavailable
from services.rules.stored_rules import Version
from tests.support.batches.shelf import at_once
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock

BY = Act("王", "admin", "192.0.2.1", "rules.save", "access")
AT = datetime.fromtimestamp(1_000_000.0, UTC)


@pytest.fixture
def url(sql_url: str) -> str:
    return migrated(sql_url)


@pytest.fixture
def store(url: str, clock: FakeClock) -> Iterator[RulesStore]:
    store = RulesStore(url, clock=clock)
    yield store
    store.close()


@pytest.fixture
def audit(url: str, clock: FakeClock) -> Iterator[AdminStore]:
    audit = AdminStore(url, clock=clock)
    yield audit
    audit.close()


def changes(audit: AdminStore) -> list[tuple[str, str | None, str | None]]:
    """Return action, before and after of the rows of the audit, the oldest first."""
    return [(row.act.action, row.act.before, row.act.after) for row in audit.audit()][::-1]


def test_the_newest_version_of_each_kind_is_found(store: RulesStore, audit: AdminStore) -> None:
    """Each kind has numbers of its own; who, when and a note are kept, and the audit has the numbers."""
    assert store.newest() == {}

    store.save("access", "- {allow: true}\n", by=BY, base=0)
    second = store.save("access", "- {allow: false}\n", by=BY, base=1, note="外包 😀")
    store.save("words", "mask 密码本", by=BY)

    assert second == Version(2, AT, "王", "外包 😀", None)
    assert store.newest() == {"access": second, "words": Version(1, AT, "王", None, None)}
    assert [store.text("access", number) for number in (1, 2, 3)] == ["- {allow: true}\n", "- {allow: false}\n", None]
    assert changes(audit) == [("rules.save", "0", "1"), ("rules.save", "1", "2"), ("rules.save", "0", "1")]


def test_of_two_editors_the_second_is_told(store: RulesStore, audit: AdminStore) -> None:
    """What began from an older version is not saved, and not audited."""
    store.save("quotas", "a", by=BY, base=0)

    assert store.save("quotas", "b", by=BY, base=0) is None
    assert (store.text("quotas", 1), len(changes(audit))) == ("a", 1)


def test_of_editors_at_once_one_saves(store: RulesStore, audit: AdminStore) -> None:
    """Those without a base follow each other."""
    saved = at_once([partial(store.save, "access", f"{n}", by=BY, base=0) for n in range(4)])
    assert [bool(one) for one in saved].count(True) == 1
    assert len(changes(audit)) == 1

    restored = at_once([partial(store.save, "access", f"{n}", by=BY, restores=1) for n in range(4)])
    assert sorted(one.number for one in restored) == [2, 3, 4, 5]
    assert changes(audit)[-1] == ("rules.save", "4", "5, as 1")


def test_versions_are_read_page_by_page_and_the_oldest_are_dropped(
    store: RulesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest come first; their numbers go on."""
    monkeypatch.setattr(rules_store, "KEPT", 3)
    store.save("words", "other", by=BY)
    for number in range(5):
        store.save("access", f"text {number}", by=BY, base=number)

    assert [one.number for one in store.page("access", None, 2)] == [5, 4]
    assert [one.number for one in store.page("access", 4, 2)] == [3]
    assert (store.text("access", 2), store.text("words", 1)) == (None, "other")


def test_a_database_without_the_table_has_no_versions(sql_url: str) -> None:
    """As before its migration: nothing was saved. Saving fails."""
    store = RulesStore(sql_url)

    assert store.newest() is None
    with pytest.raises(StoreUnavailable):
        store.save("access", "", by=BY)
    store.close()


def test_a_text_of_the_largest_size_is_stored(store: RulesStore) -> None:
    """Half a million characters of four bytes each."""
    text = "😀" * 500_000
    store.save("words", text, by=BY)

    assert store.text("words", 1) == text
