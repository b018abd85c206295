"""What every answer provider promises: one suite for those that are built in and for a person's own.

`ollama` is the very file that docs/providers.md shows.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.errors import ProviderError, Unrecoverable
from services.models import Delta, ProviderIds, Query, Turn, Usage
from services.providers.base import BaseRAGProvider
from tests.support.answers import BOUNDS, TIMEOUT, ask, together
from tests.support.provider_drivers import DRIVERS, EVERY_FAULT, FAILING, KEY, Driver
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline

Drive = Callable[[str], Driver]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """Begin drivers by name; they end with the test."""
    begun: list[Driver] = []

    def begin(name: str) -> Driver:
        begun.append(DRIVERS[name](tmp_path))
        return begun[-1]

    yield begin
    for driver in begun:
        driver.close()


@pytest.fixture(params=list(DRIVERS))
def any_driver(request: pytest.FixtureRequest, drive: Drive) -> Driver:
    """Every provider in turn."""
    return drive(request.param)


@pytest.fixture(params=FAILING)
def driver(request: pytest.FixtureRequest, drive: Drive) -> Driver:
    """Every provider in turn whose far side can fail."""
    return drive(request.param)


@pytest.mark.parametrize("name", DRIVERS)
def test_it_says_who_it_is(drive: Drive, name: str) -> None:
    """Its name is that of `RAG_PROVIDER`, and its app tells conversations apart without a secret."""
    provider = drive(name).provider()

    assert (provider.name, provider.provider_type) == (name, "RAG")
    assert provider.app
    assert KEY not in provider.app


def test_an_answer_arrives_in_pieces_that_make_it_up(any_driver: Driver) -> None:
    """Byte for byte, in more than one piece, none of them empty of sense."""
    answer = ask(any_driver.provider(), "年假怎么申请？")

    assert answer.text == any_driver.expected("年假怎么申请？")
    assert len([event for event in answer.events if isinstance(event, Delta)]) > 1


def test_characters_survive_being_cut_by_packets(any_driver: Driver) -> None:
    """Every byte its own packet: Chinese, emoji and Markdown arrive whole."""
    question = f"[[{any_driver.bytewise}]] 报销 💰"

    assert ask(any_driver.provider(), question).text == any_driver.expected(question)


def test_twenty_at_once_get_their_own_answers(any_driver: Driver) -> None:
    """One instance serves many threads."""
    provider = any_driver.provider()

    answers = together(lambda number: ask(provider, f"第{number}个问题"), 20)

    assert [answer.text for answer in answers] == [any_driver.expected(f"第{number}个问题") for number in range(20)]


def test_a_query_is_the_collected_stream(any_driver: Driver) -> None:
    """Its result has the four documented parts, and is JSON."""
    provider = any_driver.provider()

    result = provider.query(Query("年假", "u1"), Deadline(TIMEOUT)).to_dict()

    assert result["content"] == any_driver.expected("年假")
    assert result["metadata"]["provider"] == provider.name
    assert set(json.loads(json.dumps(result))) == {"content", "metadata", "sources", "usage"}


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "ollama"])
def test_tokens_are_told_once(drive: Drive, name: str) -> None:
    """As counted by the far side."""
    answer = ask(drive(name).provider(), "年假")

    assert len([event for event in answer.events if isinstance(event, Usage)]) == 1
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("name", ["openai", "context", "custom"])
def test_earlier_turns_go_along_where_nobody_keeps_them(drive: Drive, name: str) -> None:
    """Who keeps no conversations is told them, the oldest first."""
    driver = drive(name)
    provider = driver.provider()

    ask(provider, "三", history=(Turn("一", "答一"), Turn("二", "答二")))

    assert not provider.keeps_conversations
    assert driver.earlier(driver.asked[0]) == ["一", "答一", "二", "答二"]


def test_health_costs_nothing(any_driver: Driver) -> None:
    """The mocks end the test when the address that generates is reached."""
    provider = any_driver.provider()

    with any_driver.costing_nothing():
        assert all(provider.health_check() for _ in range(3))


def test_the_trip_wire_holds(driver: Driver) -> None:
    """A probe that asks a question is found out."""
    with pytest.raises(AssertionError, match="which costs"), driver.costing_nothing():
        ask(driver.provider(), "年假")


def test_who_is_not_there_is_not_well_and_cannot_be_reached(driver: Driver) -> None:
    """No connection has a code of its own."""
    provider = driver.unreachable()

    assert not provider.health_check()
    assert ask(provider, "年假").code == "provider_unreachable"


@pytest.mark.parametrize(("name", "code"), EVERY_FAULT)
def test_a_fault_has_its_code(drive: Drive, name: str, code: str) -> None:
    """Each ends the answer, in bounded time, in an error that has a sentence; no secret is in it."""
    driver = drive(name)
    silence, seconds = BOUNDS.get(code, (TIMEOUT, TIMEOUT))

    answer = ask(driver.provider(timeout=silence), f"[[{driver.faults[code]}]]", deadline=Deadline(seconds))

    assert answer.code == code
    assert KEY not in f"{answer.error!r}"
    assert "http" not in str(answer.error).lower().replace("http 4", "").replace("http 5", "")


def test_a_passing_refusal_is_asked_again(driver: Driver) -> None:
    """Before the first word a 5xx costs an attempt, not the answer."""
    question = f"[[{driver.refused_once}]] 年假"

    assert ask(driver.provider(), question).text == driver.expected(question)
    assert len(driver.asked) == 2


def test_an_abort_wakes_a_reader_that_waits(driver: Driver) -> None:
    """Another thread ends a read from a far side that says nothing."""
    deadline = Deadline(600.0)

    def abort_when_asked() -> None:
        wait_until(lambda: driver.open_streams == 1, TIMEOUT)
        deadline.abort("cancelled")

    aborting = threading.Thread(target=abort_when_asked, daemon=True)
    aborting.start()
    answer = ask(driver.provider(timeout=600.0), f"[[{driver.silent}]]", deadline=deadline)

    aborting.join(TIMEOUT)
    assert answer.code == "interrupted"


def test_what_was_aborted_before_is_not_asked(any_driver: Driver) -> None:
    """No question goes out whose answer nobody wants."""
    deadline = Deadline(600.0)
    deadline.abort("cancelled")

    assert ask(any_driver.provider(), "年假", deadline=deadline).code == "interrupted"
    assert not any_driver.asked


def test_closing_the_generator_closes_the_connection(driver: Driver) -> None:
    """A reader that leaves after the first piece frees the far side."""
    with closing(driver.provider().stream_query(Query(f"[[{driver.drip}]]", "u1"), Deadline(TIMEOUT))) as events:  # type: ignore[type-var]
        while not isinstance(next(events), Delta):
            pass
        assert driver.open_streams == 1

    wait_until(lambda: driver.open_streams == 0, TIMEOUT)


def test_a_failure_harms_no_later_answer(driver: Driver) -> None:
    """What a broken stream left is in nobody's next one."""
    provider = driver.provider()
    ask(provider, f"[[{driver.faults['provider_truncated']}]]")

    assert ask(provider, "年假").text == driver.expected("年假")


def test_what_nobody_keeps_is_unrecoverable(any_driver: Driver) -> None:
    """Without the name of a run there is nothing to fetch: the question may be asked again."""
    with pytest.raises(Unrecoverable):
        any_driver.provider().recover(Query("年假", "u1"), ProviderIds(), Deadline(TIMEOUT))


def test_what_is_optional_does_no_harm(any_driver: Driver) -> None:
    """A stop of nothing, inputs of nobody, and a close that comes twice."""
    provider: BaseRAGProvider = any_driver.provider()

    provider.cancel(ProviderIds(), "u1")
    assert provider.missing_inputs() == []
    provider.close()
    provider.close()


def test_people_and_keys_stay_out_of_the_log(any_driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """At every level: no question, no answer, no key."""
    caplog.set_level(logging.DEBUG, "services")
    provider = any_driver.provider()

    ask(provider, "机密问题")
    ask(provider, f"[[{any_driver.faults.get('provider_unauthorized', 'normal')}]] 机密问题")

    written = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert not any(word in written for word in ("机密问题", "员工手册", KEY))


def test_an_error_is_a_provider_error(driver: Driver) -> None:
    """Whatever the client library raised, one tree leaves."""
    with pytest.raises(ProviderError):
        list(driver.unreachable().stream_query(Query("年假", "u1"), Deadline(TIMEOUT)))
