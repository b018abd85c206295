"""`SqlUserStore`: one contract on SQLite and MariaDB, bounded waits, and passwords only in the record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.errors import SettingsError
from demo.mocks.auth import DEMO_USER_QUERY, DEMO_USERS, DemoUser, create_demo_users
from services.errors import StoreUnavailable
from services.identity.user_store import READ_PAUSE, SqlUserStore, UserRecord
from services.models import UserInfo
from tests.support.servers.processes import FakeClock, MariaServer, free_port, wait_until

MakeStore = Callable[..., SqlUserStore]


@pytest.fixture
def make_store(sql_url: str) -> Iterator[MakeStore]:
    """Return a function that makes stores on a database that has the demo's users; close them at the end."""
    create_demo_users(sql_url)
    stores: list[SqlUserStore] = []

    def make(query: str = DEMO_USER_QUERY, **options: float) -> SqlUserStore:
        stores.append(SqlUserStore(sql_url, query, **options))  # type: ignore[arg-type]
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def test_a_known_user_is_found(make_store: MakeStore) -> None:
    """The record has the user's fields, with Chinese text, and the password."""
    assert make_store().find("zhangsan") == UserRecord(UserInfo("E1001", "张三", "13800000001", "男"), "demo-password")


def test_an_unknown_user_is_none(make_store: MakeStore) -> None:
    """A userid that the database does not have gives None, not an error."""
    assert make_store().find("lisi") is None


def test_a_userid_is_a_value_and_never_sql(make_store: MakeStore) -> None:
    """Quotes, comments and wildcards in a userid match no user and change no table."""
    store = make_store()

    for userid in ("' OR '1'='1", "zhangsan'; DROP TABLE demo_users; --", "%", ":userid", ""):
        assert store.find(userid) is None

    assert store.find("zhangsan")


def test_column_names_match_in_any_case_and_order(make_store: MakeStore) -> None:
    """The query's columns are found by name, in any order and case."""
    store = make_store("SELECT password AS PASSWORD, user_code AS User_Code FROM demo_users WHERE userid = :userid")

    assert store.find("zhangsan") == UserRecord(UserInfo("E1001"), "demo-password")


@pytest.mark.parametrize("column", ["user_code", "password"])
def test_a_missing_column_is_named(make_store: MakeStore, column: str) -> None:
    """A query without a required column raises `SettingsError`, for known and unknown users."""
    left = "user_code" if column == "password" else "password"
    store = make_store(f"SELECT {left} FROM demo_users WHERE userid = :userid")

    for userid in ("zhangsan", "lisi", ""):
        with pytest.raises(SettingsError, match=f"AUTH_USER_QUERY .* {column}"):
            store.find(userid)


def test_a_statement_without_rows_is_an_error(make_store: MakeStore) -> None:
    """A statement that returns no columns raises `SettingsError`."""
    store = make_store("UPDATE demo_users SET gender = '' WHERE userid = :userid AND 1 = 0")

    with pytest.raises(SettingsError, match="user_code"):
        store.find("zhangsan")


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT :user", "SELECT :userid, :other"])
def test_a_query_with_other_parameters_is_refused(query: str) -> None:
    """The parameters of the query are checked when the store is made, before it connects."""
    with pytest.raises(SettingsError, match=":userid"):
        SqlUserStore("sqlite://", query)


def test_an_invalid_url_is_refused_and_not_quoted() -> None:
    """An invalid URL raises `SettingsError`, and the error does not contain the URL's password."""
    with pytest.raises(SettingsError) as caught:
        SqlUserStore("mysql+pymysql//root:obviously-fake@db", DEMO_USER_QUERY)

    assert "obviously-fake" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_query_may_filter_by_corp(make_store: MakeStore) -> None:
    """`:corp` in the query is the corp of the bot."""
    store = make_store(f"{DEMO_USER_QUERY} AND :corp = 'acme'")

    assert store.find("zhangsan", "acme")
    assert store.find("zhangsan") is None


def test_percent_signs_and_times_are_no_parameters(make_store: MakeStore) -> None:
    """A LIKE pattern and a time such as 12:30 in the query are not read as parameters."""
    store = make_store(f"{DEMO_USER_QUERY} AND phone LIKE '138%' AND '12:30' <> ''")

    assert store.find("zhangsan")


def test_of_several_rows_the_first_is_used(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """A query that returns several rows gives the first one and logs a warning."""
    store = make_store("SELECT user_code, password FROM demo_users WHERE userid <> :userid ORDER BY user_code")

    record = store.find("lisi")

    assert record
    assert record.user.user_code == "E1001"
    assert "more than one row" in caplog.text


def test_numbers_become_text(make_store: MakeStore) -> None:
    """Numbers are read as text, and NULL as an empty text."""
    store = make_store(
        "SELECT 1001 AS user_code, password, NULL AS user_name, 1 AS gender FROM demo_users WHERE userid = :userid"
    )

    record = store.find("zhangsan")

    assert record
    assert (record.user.user_code, record.user.user_name, record.user.gender) == ("1001", "", "1")


def test_bytes_become_text(sql_url: str, make_store: MakeStore) -> None:
    """A binary column is decoded as UTF-8."""
    kind = "BLOB" if sql_url.startswith("sqlite") else "BINARY"
    store = make_store(f"SELECT user_code, CAST(password AS {kind}) AS password FROM demo_users WHERE userid = :userid")

    record = store.find("zhangsan")

    assert record
    assert record.password == "demo-password"


def test_a_user_without_a_code_is_unknown(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """A row whose user_code is NULL counts as no user, with a warning."""
    store = make_store("SELECT NULL AS user_code, password FROM demo_users WHERE userid = :userid")

    assert store.find("zhangsan") is None
    assert "without a user_code" in caplog.text


def test_a_failing_query_is_store_unavailable(make_store: MakeStore) -> None:
    """A missing table raises `StoreUnavailable`; of MySQL its `StoreRefused`."""
    with pytest.raises(StoreUnavailable, match="SQL failed"):
        make_store("SELECT user_code, password FROM nowhere WHERE userid = :userid").find("zhangsan")


def test_an_error_does_not_contain_the_querys_values(make_store: MakeStore) -> None:
    """Neither the text of the error nor that of its cause contains the userid."""
    with pytest.raises(StoreUnavailable) as caught:
        make_store("SELECT user_code, password FROM nowhere WHERE userid = :userid").find("obviously-fake")

    assert "obviously-fake" not in f"{caught.value} {caught.value.__cause__}"


def test_a_wait_for_a_connection_is_bounded(make_store: MakeStore) -> None:
    """With every connection in use a lookup fails after `pool_timeout`; a later one succeeds."""
    store = make_store(pool_size=1, pool_timeout=0.05)

    with store._main.slot(), pytest.raises(StoreUnavailable, match="in use"):
        store.find("zhangsan")

    assert store.find("zhangsan")


def test_concurrent_lookups_share_the_pool(make_store: MakeStore) -> None:
    """Forty lookups over two connections all find their user."""
    store = make_store(pool_size=2, pool_timeout=30.0)
    found: list[UserRecord | None] = []

    threads = [threading.Thread(target=lambda: found.append(store.find("wangwu"))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    assert [record and record.user.user_code for record in found] == ["E1002"] * 40


@pytest.mark.full
def test_the_pool_is_bounded_on_the_server(maria_server: MariaServer) -> None:
    """Twenty concurrent lookups open no more connections than `pool_size`."""
    url = maria_server.fresh_database("pooled")
    create_demo_users(url)
    store = SqlUserStore(url, f"{DEMO_USER_QUERY} AND SLEEP(0.05) = 0", pool_size=3, pool_timeout=30.0)
    threads = [threading.Thread(target=store.find, args=("zhangsan",)) for _ in range(20)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    rows = maria_server.execute("SHOW PROCESSLIST")
    assert sum(row[3] == "pooled" for row in rows) == 3
    store.close()
    wait_until(lambda: not any(row[3] == "pooled" for row in maria_server.execute("SHOW PROCESSLIST")))


def test_the_read_database_serves_the_query(tmp_path: Path) -> None:
    """With `read_url` the query goes there, not to `url`."""
    create_demo_users(f"sqlite:///{tmp_path / 'primary.db'}", [])
    create_demo_users(f"sqlite:///{tmp_path / 'replica.db'}")
    store = SqlUserStore(
        f"sqlite:///{tmp_path / 'primary.db'}", DEMO_USER_QUERY, read_url=f"sqlite:///{tmp_path / 'replica.db'}"
    )

    assert store.find("zhangsan")
    store.close()


def test_the_main_database_serves_while_the_read_database_is_away(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Lookups go on, with one warning; after `READ_PAUSE` the read database is tried again.

    Its return is logged too.
    """
    create_demo_users(f"sqlite:///{tmp_path / 'primary.db'}")
    reader = f"sqlite:///{tmp_path / 'folder' / 'replica.db'}"
    store = SqlUserStore(f"sqlite:///{tmp_path / 'primary.db'}", DEMO_USER_QUERY, read_url=reader, clock=clock)
    for _ in range(2):
        for _ in range(3):
            assert store.find("zhangsan")
        clock.advance(READ_PAUSE)
    assert [record.message for record in caplog.records] == ["the reading database is away, the main one serves"]
    (tmp_path / "folder").mkdir()
    create_demo_users(reader, [DemoUser("zhaoliu", "E1003")])

    assert store.find("zhaoliu")

    assert caplog.messages[1:] == ["the reading database is back"]
    store.close()


@pytest.mark.full
def test_a_query_that_fails_on_the_read_database_is_not_retried(
    maria_server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the query is not an outage: the main database is not asked."""
    url = maria_server.fresh_database("main")
    create_demo_users(url)
    store = SqlUserStore(url, DEMO_USER_QUERY, read_url=maria_server.fresh_database("reader"))

    with pytest.raises(StoreUnavailable, match="ProgrammingError 1146"):
        store.find("zhangsan")

    assert caplog.messages == []
    store.close()


def test_with_both_databases_away_a_lookup_fails(tmp_path: Path) -> None:
    """When the main database fails too, the lookup raises `StoreUnavailable`."""
    nowhere = f"sqlite:///{tmp_path / 'none' / 'users.db'}"
    store = SqlUserStore(nowhere, DEMO_USER_QUERY, read_url=f"{nowhere}2")

    with pytest.raises(StoreUnavailable):
        store.find("zhangsan")
    store.close()


@pytest.mark.full
def test_a_read_only_server_serves_lookups() -> None:
    """A primary that became a read-only replica still finds users: the store never writes."""
    with MariaServer() as server:
        url = server.fresh_database()
        create_demo_users(url)
        server.execute("CREATE USER reader@'%'")
        server.execute("GRANT SELECT ON laibao.* TO reader@'%'")
        store = SqlUserStore(url.replace("root@", "reader@"), DEMO_USER_QUERY)
        assert store.find("zhangsan")

        server.execute("SET GLOBAL read_only = 1")

        assert store.find("zhangsan")
        store.close()


@pytest.mark.full
def test_a_restarted_database_is_used_again() -> None:
    """Connections that the restart closed are replaced, and no lookup fails."""
    with MariaServer() as server:
        url = server.fresh_database()
        create_demo_users(url)
        store = SqlUserStore(url, DEMO_USER_QUERY)
        assert store.find("zhangsan")

        server.restart()

        assert store.find("zhangsan")
        store.close()


@pytest.mark.full
def test_a_frozen_database_is_store_unavailable_within_its_timeouts() -> None:
    """A server that accepts connections and never answers costs the timeouts; it is used again after it resumes."""
    with MariaServer() as server:
        url = server.fresh_database()
        create_demo_users(url)
        store = SqlUserStore(url, DEMO_USER_QUERY, connect_timeout=1, read_timeout=1)
        assert store.find("zhangsan")
        server.pause()

        with pytest.raises(StoreUnavailable):
            store.find("zhangsan")
        server.resume()

        assert store.find("zhangsan")
        store.close()


@pytest.mark.full
def test_a_refused_login_does_not_show_the_password(maria_server: MariaServer) -> None:
    """The error has MySQL's number 1045; neither its text nor its causes contain the password."""
    url = f"mysql+pymysql://root:obviously%3Af%40ke%2F@127.0.0.1:{maria_server.port}/x"
    store = SqlUserStore(url, DEMO_USER_QUERY)

    with pytest.raises(StoreUnavailable, match="1045") as caught:
        store.check()

    assert "f@ke" not in str(caught.getrepr(chain=True, style="short"))
    assert "f%40ke" not in str(caught.getrepr(chain=True, style="short"))


def test_a_refused_connection_is_store_unavailable() -> None:
    """Making the store does not connect; the check fails with MySQL's number 2003."""
    url = f"mysql+pymysql://root@127.0.0.1:{free_port()}/x"

    with pytest.raises(StoreUnavailable, match="2003"):
        SqlUserStore(url, DEMO_USER_QUERY).check()


def test_a_failure_outside_the_driver_is_store_unavailable(tmp_path: Path) -> None:
    """Errors that SQLAlchemy itself raises become `StoreUnavailable` too."""
    store = SqlUserStore(f"sqlite:///{tmp_path / 'users.db'}", "SELECT :userid AS user_code; SELECT 1")

    with pytest.raises(StoreUnavailable):
        store.find("zhangsan")
    store.close()


def test_a_password_is_in_no_repr() -> None:
    """The repr of a record or a demo user does not show the password."""
    assert "demo-password" not in repr(UserRecord(UserInfo("E1"), "demo-password"))
    assert "demo-password" not in repr(DEMO_USERS)


def test_a_lookup_logs_nothing_about_the_user(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Even at debug level neither the password nor the phone number is logged."""
    with caplog.at_level(logging.DEBUG):
        make_store().find("zhangsan")

    assert "demo-password" not in caplog.text
    assert "13800000001" not in caplog.text
