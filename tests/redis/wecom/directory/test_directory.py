"""The look-up of people in WeCom's directory, by two replicas, against the mock over HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from demo.mocks.contacts import CORP_ID, SECRET, Member, MockContacts, encrypted
from services.models import Contact
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner, connect
from services.wecom.directory.access_token_store import AccessToken, AccessTokenStore, TokenAccess
from services.wecom.directory.api_service import ContactsApi
from services.wecom.directory.contact_store import ASKED_SECONDS, KEPT_SECONDS, ContactStore
from services.wecom.directory.directory import Directory, DirectoryParts, DirectoryTimeouts
from tests.support.servers.processes import free_port, wait_until

KEY = b"k" * 32
ZHANGSAN = Contact("zhangsan", "张三", "研发部")
ASKED, AWAY, REST = "dify_contact:src:zhangsan:asked", "dify_contact_away:src", "dify_contact_rest:src"
#: Long waits: what a test waits for comes much earlier, on any machine.
PATIENT = DirectoryTimeouts(wait=20.0, lookup=20.0, poll=0.01)
HASTY = DirectoryTimeouts(wait=0.2, lookup=20.0, poll=0.01)

Make = Callable[..., Directory]


@pytest.fixture
def wecom() -> Iterator[MockContacts]:
    with MockContacts() as mock:
        yield mock


@pytest.fixture
def make(wecom: MockContacts, runner: ScriptRunner) -> Iterator[Make]:
    """Make the directory of one replica; all of them share Redis."""
    made: list[ContactsApi] = []

    def directory(
        timeouts: DirectoryTimeouts = PATIENT, *, url: str = "", secret: str = SECRET, on: ScriptRunner = runner
    ) -> Directory:
        api = ContactsApi(url or wecom.url, corp_id=CORP_ID, secret=secret, timeout=10.0)
        made.append(api)
        locks, tokens = LockStore(on), AccessTokenStore(on, source="src", keys=KEY)
        access = TokenAccess(api, tokens, locks, source="src")
        store = ContactStore(on, source="src", keys=KEY)
        return Directory(DirectoryParts(api, access, store, locks), timeouts=timeouts)

    yield directory
    # A look-up that still hangs would note its failure in the Redis of the next test.
    wecom.close()
    for thread in threading.enumerate():
        if thread.name == "contact":
            thread.join()
    for each in made:
        each.close()


def settled(client: redis.Redis, userid: str = "zhangsan") -> bool:
    """Return whether nobody looks the person up now."""
    return not client.exists(f"dify_lock:contact:src:{userid}")


def forget_the_hour(client: redis.Redis) -> None:
    client.delete(ASKED)


@pytest.mark.every_redis
def test_a_person_is_looked_up_once_for_all_replicas(
    make: Make, wecom: MockContacts, redis_client: redis.Redis
) -> None:
    """Name and departments come from the directory, the main department first, and are kept for a week."""
    one, other = make(), make()

    found = [one.find("zhangsan"), other.find("zhangsan"), one.find("lisi")]

    assert found == [ZHANGSAN, ZHANGSAN, Contact("lisi", "李四", "市场部, 研发部")]
    assert (wecom.asked["zhangsan"], wecom.calls["gettoken"], wecom.calls["department/get"]) == (1, 1, 2)
    assert KEPT_SECONDS - 60 < redis_client.ttl("dify_contact:src:zhangsan") <= KEPT_SECONDS
    assert ASKED_SECONDS - 60 < redis_client.ttl(ASKED) <= ASKED_SECONDS


def test_many_questions_at_once_look_a_person_up_once(make: Make, wecom: MockContacts) -> None:
    """Twelve questions on three replicas share one look-up and one token, and all get the name."""
    replicas, found = [make(), make(), make()], []
    threads = [threading.Thread(target=lambda at=n: found.append(replicas[at % 3].find("zhangsan"))) for n in range(12)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [ZHANGSAN] * 12
    assert (wecom.asked["zhangsan"], wecom.calls["user/get"], len(wecom.tokens)) == (1, 1, 1)


def test_many_people_at_once_share_one_token(make: Make, wecom: MockContacts) -> None:
    """Without a token in Redis one replica gets it, and the look-ups of all replicas wait for that one."""
    wecom.faults["gettoken"], wecom.delay = "slow", 0.3
    replicas, names = [make(), make(), make()], []
    threads = [
        threading.Thread(target=lambda at=n, who=userid: names.append(replicas[at].find(who).name))
        for n, userid in enumerate(("zhangsan", "lisi", "wangwu"))
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(names) == sorted(("张三", "李四", "王五"))
    assert wecom.calls["gettoken"] == 1


def test_what_is_stored_is_sealed(make: Make, redis_client: redis.Redis, wecom: MockContacts) -> None:
    """A reader of Redis finds neither the token nor a person's name."""
    make().find("zhangsan")

    values = {key: redis_client.get(key) or "" for key in redis_client.keys("dify_contact*")}
    assert {"dify_contact_token:src", "dify_contact:src:zhangsan"} <= set(values)
    open_words = ("张三", "\\u5f20", wecom.tokens[0])
    assert not [key for key, value in values.items() if any(words in value for words in open_words)]
    assert wecom.tokens[0] not in repr(AccessToken(wecom.tokens[0], "sealed"))


@pytest.mark.parametrize("errcode", [40014, 42001])
def test_a_refused_token_is_renewed_once(
    errcode: int, make: Make, wecom: MockContacts, redis_client: redis.Redis
) -> None:
    """WeCom may end a token at any time; every replica then goes on with the one new token."""
    one, other = make(), make()
    one.find("lisi")
    wecom.expire_tokens() if errcode == 42001 else wecom.tokens.clear()

    found = [one.find("zhangsan"), other.find("wangwu")]

    assert [each.name for each in found] == ["张三", "王五"]
    assert wecom.calls["gettoken"] == 2


def test_a_token_that_is_always_refused_is_renewed_only_once(
    make: Make, wecom: MockContacts, redis_client: redis.Redis
) -> None:
    """The look-up fails then; it does not ask for tokens for ever."""
    wecom.errcodes["user/get"] = 42001

    assert make().find("zhangsan") == Contact()

    assert (wecom.calls["gettoken"], wecom.calls["user/get"]) == (2, 2)
    assert redis_client.exists(REST)


def test_a_new_token_of_another_replica_is_not_dropped(runner: ScriptRunner) -> None:
    """A late refusal of the old token leaves the new one."""
    tokens = AccessTokenStore(runner, source="src", keys=KEY)
    old = tokens.save("old", 7200.0)
    tokens.save("new", 7200.0)

    tokens.drop(old)

    assert tokens.load().token == "new"


def test_an_encrypted_userid_is_converted(make: Make, wecom: MockContacts) -> None:
    """The plain userid is known to the app then; the next encrypted one costs no vain request."""
    directory = make()

    found = [directory.find(encrypted("zhangsan")), directory.find(encrypted("lisi"))]

    assert [(each.userid, each.name) for each in found] == [("zhangsan", "张三"), ("lisi", "李四")]
    assert (wecom.calls["user/get"], wecom.calls["batch/openuserid_to_userid"]) == (3, 2)


def test_a_plain_userid_after_encrypted_ones_is_found(make: Make, wecom: MockContacts) -> None:
    """The form of the last id is a guess that costs one request when it is wrong."""
    directory = make()
    directory.find(encrypted("zhangsan"))

    assert directory.find("lisi").name == "李四"


@pytest.mark.parametrize("userid", ["nobody", "hidden", encrypted("nobody")])
def test_an_unknown_person_is_asked_for_once_an_hour(
    userid: str, make: Make, wecom: MockContacts, redis_client: redis.Redis
) -> None:
    """Unknown, or outside the application's visible range: that is known for an hour, and stops no other look-up."""
    wecom.members["hidden"] = Member("hidden", "某人", visible=False)
    one, other = make(), make()

    found = [one.find(userid), other.find(userid), one.find(userid)]
    calls = wecom.calls["user/get"]

    assert (found, calls) == ([Contact()] * 3, 1)
    assert one.find("zhangsan") == ZHANGSAN
    assert not redis_client.exists(AWAY, REST)


def test_a_conversion_that_is_not_allowed_is_no_outage(make: Make, wecom: MockContacts) -> None:
    """The Secret of 通讯录同步 may read people and convert no ids."""
    wecom.errcodes["batch/openuserid_to_userid"] = 48002
    directory = make()

    assert [directory.find(userid).name for userid in ("nobody", "zhangsan")] == ["", "张三"]


def test_a_person_is_refreshed_in_the_background(make: Make, wecom: MockContacts, redis_client: redis.Redis) -> None:
    """After an hour a question still gets the known name at once, and the next one the new name."""
    directory = make()
    directory.find("zhangsan")
    wecom.members["zhangsan"] = Member("zhangsan", "张三丰", (2,))
    forget_the_hour(redis_client)

    assert directory.find("zhangsan") == ZHANGSAN

    wait_until(lambda: directory.find("zhangsan").name == "张三丰")
    assert wecom.asked["zhangsan"] == 2


@pytest.mark.parametrize(
    ("faults", "errcodes"),
    [
        ({"gettoken": "error"}, {}),
        ({"user/get": "garbage"}, {}),
        ({}, {"gettoken": 40001}),
        ({}, {"gettoken": 60020}),
        ({}, {"user/get": 45009}),
    ],
)
def test_a_failing_directory_is_left_alone(
    faults: dict[str, str],
    errcodes: dict[str, int],
    make: Make,
    wecom: MockContacts,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a failure nobody on any replica calls it for a while, and the log has one line without secrets."""
    caplog.set_level(logging.DEBUG)
    wecom.faults.update(faults)  # type: ignore[arg-type]
    wecom.errcodes.update(errcodes)
    one, other = make(), make()

    found = [one.find("zhangsan"), other.find("zhangsan"), one.find("lisi"), other.find("wangwu")]

    assert found == [Contact()] * 4
    assert wecom.calls["gettoken"] <= 1
    assert wecom.calls["user/get"] <= 1
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "directory look-up failed"
    ]
    hidden = ("张三", "zhangsan", SECRET, *wecom.tokens)
    logged = [str(vars(record)) for record in caplog.records]
    assert not [line for line in logged if any(secret in line for secret in hidden)]


def test_nobody_waits_twice_for_a_dead_directory(make: Make, wecom: MockContacts, redis_client: redis.Redis) -> None:
    """The first question waits its limit; the next ones, of anybody on any replica, do not wait at all."""
    wecom.faults["*"] = "hang"
    one, other = make(HASTY), make(PATIENT)

    assert one.find("zhangsan") == Contact()

    began = time.monotonic()
    assert [other.find("zhangsan"), other.find("lisi"), other.find("wangwu")] == [Contact()] * 3
    assert time.monotonic() - began < PATIENT.wait / 2
    assert redis_client.get(AWAY) == "late"


def test_a_directory_that_is_back_is_used_again(
    make: Make, wecom: MockContacts, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """After the pause one question looks up without waiting; its success lets later questions wait again."""
    caplog.set_level(logging.INFO)
    wecom.faults["*"] = "error"
    directory = make()
    directory.find("zhangsan")
    wecom.faults.clear()
    redis_client.delete(REST)

    assert directory.find("lisi") == Contact()

    wait_until(lambda: settled(redis_client, "lisi"))
    assert directory.find("wangwu").name == "王五"
    assert [record.message for record in caplog.records] == ["directory look-up failed", "directory answers again"]


@pytest.mark.parametrize(("failing", "found"), [("user/get", Contact()), ("gettoken", ZHANGSAN)])
def test_a_failed_request_costs_the_hour(
    make: Make, wecom: MockContacts, redis_client: redis.Redis, failing: Any, found: Contact
) -> None:
    """It may have reached WeCom: at most one look-up per person and hour. Without a token none has been made yet."""
    wecom.faults[failing] = "error"
    directory = make()
    directory.find("zhangsan")
    wecom.faults.clear()
    redis_client.delete(REST, AWAY)

    assert directory.find("zhangsan") == found
    assert wecom.calls["user/get"] == 1


def test_a_department_without_a_name_is_left_out(make: Make, wecom: MockContacts) -> None:
    """The person keeps the name and the other departments."""
    del wecom.departments[3]

    assert make().find("lisi") == Contact("lisi", "李四", "研发部")


def test_another_replica_renews_the_token_after_a_crash(make: Make, runner: ScriptRunner, wecom: MockContacts) -> None:
    """The lock of a replica that died while it renewed the token expires before the others give up."""
    LockStore(runner).acquire("contact_token:src", 0.5)

    assert make().find("zhangsan") == ZHANGSAN


def test_without_redis_nobody_is_looked_up(make: Make, wecom: MockContacts) -> None:
    """A question must not wait, and without the shared claim nobody knows who else looks up."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0", pool_size=1)

    assert make(on=ScriptRunner(client)).find("zhangsan") == Contact()
    assert not wecom.calls
    client.close()
