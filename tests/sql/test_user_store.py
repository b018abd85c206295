"""Users in SQL: one contract on SQLite and MariaDB, bounded waits, and no password anywhere but in the record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from demo.mocks.auth import DEMO_USER_QUERY, DEMO_USERS, DemoUser, create_demo_users
from services.errors import SettingsError, StoreUnavailable
from services.identity.user_store import READ_PAUSE, SqlUserStore, UserRecord
from services.models import UserInfo
from tests.support.servers.processes import FakeClock, MariaServer, free_port, wait_until

MakeStore = Callable[..., SqlUserStore]


@pytest.fixture
def make_store(sql_url: str) -> Iterator[MakeStore]:
    """Return stores on a database that knows the demo's users, and close them at the end."""
    create_demo_users(sql_url)
    stores: list[SqlUserStore] = []

    def make(query: str = DEMO_USER_QUERY, **options: float) -> SqlUserStore:
        stores.append(SqlUserStore(sql_url, query, **options))  # type: ignore[arg-type]
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def test_a_known_user_is_found(make_store: MakeStore) -> None:
    """The record has the user's fields, Chinese ones too, and the password."""
    assert make_store().find("zhangsan") == UserRecord(UserInfo("E1001", "张三", "13800000001", "男"), "demo-password")


def test_an_unknown_user_is_none(make_store: MakeStore) -> None:
    """Nobody by that id is no error."""
    assert make_store().find("lisi") is None


def test_a_userid_is_a_value_and_never_sql(make_store: MakeStore) -> None:
    """Quotes and comments in a userid find nobody and break nothing."""
    store = make_store()

    for userid in ("' OR '1'='1", "zhangsan'; DROP TABLE demo_users; --", "%", ":userid", ""):
        assert store.find(userid) is None

    assert store.find("zhangsan")


def test_columns_count_in_any_case_and_order(make_store: MakeStore) -> None:
    """A query may name its columns as the database likes them."""
    store = make_store("SELECT password AS PASSWORD, user_code AS User_Code FROM demo_users WHERE userid = :userid")

    assert store.find("zhangsan") == UserRecord(UserInfo("E1001"), "demo-password")


@pytest.mark.parametrize("column", ["user_code", "password"])
def test_a_missing_column_is_named(make_store: MakeStore, column: str) -> None:
    """A query without a required column is the operator's error, whoever asks."""
    left = "user_code" if column == "password" else "password"
    store = make_store(f"SELECT {left} FROM demo_users WHERE userid = :userid")

    for userid in ("zhangsan", "lisi"):
        with pytest.raises(SettingsError, match=f"AUTH_USER_QUERY .* {column}"):
            store.find(userid)
    with pytest.raises(SettingsError, match=column):
        store.check_query()


def test_a_statement_without_rows_is_named(make_store: MakeStore) -> None:
    """A query that returns no columns at all is the operator's error."""
    store = make_store("UPDATE demo_users SET gender = '' WHERE userid = :userid AND 1 = 0")

    with pytest.raises(SettingsError, match="user_code"):
        store.find("zhangsan")


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT :user", "SELECT :userid, :other"])
def test_a_query_with_other_names_is_refused_at_once(query: str) -> None:
    """The names in the query are checked before anything connects."""
    with pytest.raises(SettingsError, match=":userid"):
        SqlUserStore("sqlite://", query)


def test_an_address_nobody_can_read_is_refused_without_being_quoted() -> None:
    """A broken address is the operator's error, and the password in it is not repeated."""
    with pytest.raises(SettingsError) as caught:
        SqlUserStore("mysql+pymysql//root:obviously-fake@db", DEMO_USER_QUERY)

    assert "obviously-fake" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_query_may_tell_corps_apart(make_store: MakeStore) -> None:
    """`:corp` in the query is the asking bot's corp."""
    store = make_store(f"{DEMO_USER_QUERY} AND :corp = 'acme'")

    assert store.find("zhangsan", "acme")
    assert store.find("zhangsan") is None


def test_percent_signs_and_times_in_a_query_are_its_own(make_store: MakeStore) -> None:
    """Neither a LIKE pattern nor a clock time is taken for a placeholder."""
    store = make_store(f"{DEMO_USER_QUERY} AND phone LIKE '138%' AND '12:30' <> ''")

    assert store.find("zhangsan")


def test_of_several_rows_the_first_counts(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """A query that is not exact is answered, and the operator warned."""
    store = make_store("SELECT user_code, password FROM demo_users WHERE userid <> :userid ORDER BY user_code")

    record = store.find("lisi")

    assert record
    assert record.user.user_code == "E1001"
    assert "more than one row" in caplog.text


def test_values_become_text(make_store: MakeStore) -> None:
    """Numbers and NULL are read as text."""
    store = make_store(
        "SELECT 1001 AS user_code, password, NULL AS user_name, 1 AS gender FROM demo_users WHERE userid = :userid"
    )

    record = store.find("zhangsan")

    assert record
    assert (record.user.user_code, record.user.user_name, record.user.gender) == ("1001", "", "1")


def test_bytes_become_text(sql_url: str, make_store: MakeStore) -> None:
    """A binary column is read as UTF-8."""
    kind = "BLOB" if sql_url.startswith("sqlite") else "BINARY"
    store = make_store(f"SELECT user_code, CAST(password AS {kind}) AS password FROM demo_users WHERE userid = :userid")

    record = store.find("zhangsan")

    assert record
    assert record.password == "demo-password"


def test_a_user_without_a_code_is_unknown(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """A row whose user_code is NULL opens no endpoint."""
    store = make_store("SELECT NULL AS user_code, password FROM demo_users WHERE userid = :userid")

    assert store.find("zhangsan") is None
    assert "without a user_code" in caplog.text


def test_a_database_that_answers_passes_its_check(make_store: MakeStore) -> None:
    """Both checks pass where the query is right."""
    store = make_store()

    store.check()
    store.check_query()


def test_a_query_the_database_refuses_is_store_unavailable(make_store: MakeStore) -> None:
    """A table that is not there is our error."""
    with pytest.raises(StoreUnavailable, match="SQL failed"):
        make_store("SELECT user_code, password FROM nowhere WHERE userid = :userid").find("zhangsan")


def test_the_users_words_are_in_no_error(make_store: MakeStore) -> None:
    """An error's text and its causes leave out the values that were asked with."""
    with pytest.raises(StoreUnavailable) as caught:
        make_store("SELECT user_code, password FROM nowhere WHERE userid = :userid").find("obviously-fake")

    assert "obviously-fake" not in f"{caught.value} {caught.value.__cause__}"


def test_a_lookup_waits_for_a_connection_within_its_bound(make_store: MakeStore) -> None:
    """With every connection in use, a lookup gives up after `pool_timeout`, and a later one is served."""
    store = make_store(pool_size=1, pool_timeout=0.05)

    with store._main.slot(), pytest.raises(StoreUnavailable, match="in use"):
        store.find("zhangsan")

    assert store.find("zhangsan")


def test_many_lookups_at_once_share_the_pool(make_store: MakeStore) -> None:
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
    """Twenty lookups at once open no more connections than the pool has."""
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


def test_the_reading_database_serves_the_query(tmp_path: Path) -> None:
    """`read_url` takes the place of `url` for the query."""
    create_demo_users(f"sqlite:///{tmp_path / 'primary.db'}", [])
    create_demo_users(f"sqlite:///{tmp_path / 'replica.db'}")
    store = SqlUserStore(
        f"sqlite:///{tmp_path / 'primary.db'}", DEMO_USER_QUERY, read_url=f"sqlite:///{tmp_path / 'replica.db'}"
    )

    assert store.find("zhangsan")
    store.close()


def test_the_main_database_serves_while_the_reading_one_is_away(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Lookups go on, one line tells why; after a pause the reading database is tried again, and its return told."""
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
def test_a_query_the_reading_database_refuses_is_not_asked_elsewhere(
    maria_server: MariaServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the query is no outage: the operator hears of it."""
    url = maria_server.fresh_database("main")
    create_demo_users(url)
    store = SqlUserStore(url, DEMO_USER_QUERY, read_url=maria_server.fresh_database("reader"))

    with pytest.raises(StoreUnavailable, match="ProgrammingError 1146"):
        store.find("zhangsan")

    assert caplog.messages == []
    store.close()


def test_with_both_databases_away_a_lookup_is_store_unavailable(tmp_path: Path) -> None:
    """The main one is asked last."""
    nowhere = f"sqlite:///{tmp_path / 'none' / 'users.db'}"
    store = SqlUserStore(nowhere, DEMO_USER_QUERY, read_url=f"{nowhere}2")

    with pytest.raises(StoreUnavailable):
        store.find("zhangsan")
    store.close()


@pytest.mark.full
def test_a_server_that_takes_no_writes_any_more_is_read() -> None:
    """A primary that became a read-only replica finds users: nothing is ever written."""
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
    """Connections that died with the server are replaced, without an error between."""
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
    """A server that accepts and never answers costs a bounded time; it is used again when it lives."""
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
    """A wrong password is our error with MySQL's number, and in no text of it or its causes."""
    url = f"mysql+pymysql://root:obviously%3Af%40ke%2F@127.0.0.1:{maria_server.port}/x"
    store = SqlUserStore(url, DEMO_USER_QUERY)

    with pytest.raises(StoreUnavailable, match="1045") as caught:
        store.check()

    assert "f@ke" not in str(caught.getrepr(chain=True, style="short"))
    assert "f%40ke" not in str(caught.getrepr(chain=True, style="short"))


def test_no_database_is_store_unavailable() -> None:
    """A refused connection is our error; making the store connects to nothing."""
    url = f"mysql+pymysql://root@127.0.0.1:{free_port()}/x"

    with pytest.raises(StoreUnavailable, match="2003"):
        SqlUserStore(url, DEMO_USER_QUERY).check()


def test_a_failure_outside_the_driver_is_store_unavailable(tmp_path: Path) -> None:
    """What SQLAlchemy itself raises is our error too."""
    store = SqlUserStore(f"sqlite:///{tmp_path / 'users.db'}", "SELECT :userid AS user_code; SELECT 1")

    with pytest.raises(StoreUnavailable):
        store.find("zhangsan")
    store.close()


def test_a_password_is_in_no_repr() -> None:
    """A record or demo user that is printed does not show its password."""
    assert "demo-password" not in repr(UserRecord(UserInfo("E1"), "demo-password"))
    assert "demo-password" not in repr(DEMO_USERS)


def test_demo_users_are_created_anew(sql_url: str) -> None:
    """Creating the table twice leaves the second set of people."""
    create_demo_users(sql_url)
    create_demo_users(sql_url, [DemoUser("zhaoliu", "E1003")])

    engine = sa.create_engine(sql_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT userid FROM demo_users")).all() == [("zhaoliu",)]


def test_a_lookup_logs_nothing_about_the_user(make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Even at debug level neither the password nor the phone is logged."""
    with caplog.at_level(logging.DEBUG):
        make_store().find("zhangsan")

    assert "demo-password" not in caplog.text
    assert "13800000001" not in caplog.text
