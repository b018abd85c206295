"""The contract of every answer provider: one suite for the built-in ones and for a user's own.

`ollama` is the file that docs/providers.md shows, unchanged.
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
from tests.support.provider_drivers import COUNTING, DRIVERS, EVERY_FAULT, FAILING, KEY, SENDING_TURNS, Driver
from tests.support.servers.processes import wait_until
from utils.deadline import Deadline

Drive = Callable[[str], Driver]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    """Create drivers by name; they are closed after the test."""
    created: list[Driver] = []

    def create(name: str) -> Driver:
        created.append(DRIVERS[name](tmp_path))
        return created[-1]

    yield create
    for driver in created:
        driver.close()


@pytest.fixture(params=list(DRIVERS))
def any_driver(request: pytest.FixtureRequest, drive: Drive) -> Driver:
    """Each provider in turn."""
    return drive(request.param)


@pytest.fixture(params=FAILING)
def driver(request: pytest.FixtureRequest, drive: Drive) -> Driver:
    """Each provider in turn whose server can fail."""
    return drive(request.param)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_provider_has_a_name_and_an_app(drive: Drive, name: str) -> None:
    """Its name is that of `RAG_PROVIDER`; its app separates conversations and does not contain the key."""
    provider = drive(name).provider()

    assert (provider.name, provider.provider_type) == (name, "RAG")
    assert provider.app
    assert KEY not in provider.app


def test_an_answer_arrives_complete_in_several_pieces(any_driver: Driver) -> None:
    """Byte for byte, in more than one delta."""
    answer = ask(any_driver.provider(), "年假怎么申请？")

    assert answer.text == any_driver.expected("年假怎么申请？")
    assert len([event for event in answer.events if isinstance(event, Delta)]) > 1


def test_characters_split_between_packets_arrive_whole(any_driver: Driver) -> None:
    """If every byte has its own packet, Chinese, emoji and Markdown arrive whole."""
    question = f"[[{any_driver.bytewise}]] 报销 💰"

    assert ask(any_driver.provider(), question).text == any_driver.expected(question)


def test_twenty_parallel_questions_get_their_own_answers(any_driver: Driver) -> None:
    """One provider instance serves 20 threads at once."""
    provider = any_driver.provider()

    answers = together(lambda number: ask(provider, f"第{number}个问题"), 20)

    assert [answer.text for answer in answers] == [any_driver.expected(f"第{number}个问题") for number in range(20)]


def test_a_query_is_the_collected_stream(any_driver: Driver) -> None:
    """The result has the four documented parts, and can be encoded as JSON."""
    provider = any_driver.provider()

    result = provider.query(Query("年假", "u1"), Deadline(TIMEOUT)).to_dict()

    assert result["content"] == any_driver.expected("年假")
    assert result["metadata"]["provider"] == provider.name
    assert set(json.loads(json.dumps(result))) == {"content", "metadata", "sources", "usage"}


@pytest.mark.parametrize("name", COUNTING)
def test_tokens_are_emitted_once(drive: Drive, name: str) -> None:
    """The counts are those of the server."""
    answer = ask(drive(name).provider(), "年假")

    assert len([event for event in answer.events if isinstance(event, Usage)]) == 1
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("name", SENDING_TURNS)
def test_earlier_turns_are_sent_if_the_provider_keeps_none(drive: Drive, name: str) -> None:
    """A provider that keeps no conversations sends the earlier turns, the oldest first."""
    driver = drive(name)
    provider = driver.provider()

    ask(provider, "三", history=(Turn("一", "答一"), Turn("二", "答二")))

    assert not provider.keeps_conversations
    assert driver.earlier(driver.asked[0]) == ["一", "答一", "二", "答二"]


def test_the_health_check_costs_nothing(any_driver: Driver) -> None:
    """The mocks fail the test if a request reaches an address that generates."""
    provider = any_driver.provider()

    with any_driver.costing_nothing():
        assert all(provider.health_check() for _ in range(3))


def test_a_question_during_a_free_check_fails_the_test(driver: Driver) -> None:
    """A health check that asked a question would fail the test."""
    with pytest.raises(AssertionError, match="which costs"), driver.costing_nothing():
        ask(driver.provider(), "年假")


def test_a_server_that_is_down_is_unhealthy_and_unreachable(driver: Driver) -> None:
    """A refused connection has the code `provider_unreachable`."""
    provider = driver.unreachable()

    assert not provider.health_check()
    assert ask(provider, "年假").code == "provider_unreachable"


@pytest.mark.parametrize(("name", "code"), EVERY_FAULT)
def test_a_fault_has_its_code(drive: Drive, name: str, code: str) -> None:
    """Each fault ends the answer within its timeout, with an error that has a sentence and contains no secret."""
    driver = drive(name)
    silence, seconds = BOUNDS.get(code, (TIMEOUT, TIMEOUT))

    answer = ask(driver.provider(timeout=silence), f"[[{driver.faults[code]}]]", deadline=Deadline(seconds))

    assert answer.code == code
    assert KEY not in f"{answer.error!r}"
    assert "http" not in str(answer.error).lower().replace("http 4", "").replace("http 5", "")


def test_a_temporary_error_is_retried(driver: Driver) -> None:
    """A 5xx before the first text is retried."""
    question = f"[[{driver.refused_once}]] 年假"

    assert ask(driver.provider(), question).text == driver.expected(question)
    assert len(driver.asked) == 2


def test_an_abort_wakes_a_reader_that_waits(driver: Driver) -> None:
    """An abort by another thread ends a read from a server that sends nothing."""
    deadline = Deadline(600.0)

    def abort_when_asked() -> None:
        wait_until(lambda: driver.open_streams == 1, TIMEOUT)
        deadline.abort("cancelled")

    aborting = threading.Thread(target=abort_when_asked, daemon=True)
    aborting.start()
    answer = ask(driver.provider(timeout=600.0), f"[[{driver.silent}]]", deadline=deadline)

    aborting.join(TIMEOUT)
    assert answer.code == "interrupted"


def test_an_aborted_question_is_not_sent(any_driver: Driver) -> None:
    """A question that was aborted before it began is not sent."""
    deadline = Deadline(600.0)
    deadline.abort("cancelled")

    assert ask(any_driver.provider(), "年假", deadline=deadline).code == "interrupted"
    assert not any_driver.asked


def test_closing_the_generator_closes_the_connection(driver: Driver) -> None:
    """A reader that leaves after the first delta closes the stream at the server."""
    with closing(driver.provider().stream_query(Query(f"[[{driver.drip}]]", "u1"), Deadline(TIMEOUT))) as events:  # type: ignore[type-var]
        while not isinstance(next(events), Delta):
            pass
        assert driver.open_streams == 1

    wait_until(lambda: driver.open_streams == 0, TIMEOUT)


def test_a_failure_does_not_affect_the_next_answer(driver: Driver) -> None:
    """The rest of a broken stream does not appear in the next answer."""
    provider = driver.provider()
    ask(provider, f"[[{driver.faults['provider_truncated']}]]")

    assert ask(provider, "年假").text == driver.expected("年假")


def test_an_answer_without_ids_is_unrecoverable(any_driver: Driver) -> None:
    """Without a run's id there is nothing to fetch: the question may be asked again."""
    with pytest.raises(Unrecoverable):
        any_driver.provider().recover(Query("年假", "u1"), ProviderIds(), Deadline(TIMEOUT))


def test_optional_methods_raise_nothing(any_driver: Driver) -> None:
    """Cancelling without ids, asking for missing inputs, and closing twice raise nothing."""
    provider: BaseRAGProvider = any_driver.provider()

    provider.cancel(ProviderIds(), "u1")
    assert provider.missing_inputs() == []
    provider.close()
    provider.close()


def test_the_log_has_no_question_answer_or_key(any_driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """No log line of any level has the question, the answer or the key."""
    caplog.set_level(logging.DEBUG, "services")
    provider = any_driver.provider()

    ask(provider, "机密问题")
    ask(provider, f"[[{any_driver.faults.get('provider_unauthorized', 'normal')}]] 机密问题")

    log_text = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert not any(word in log_text for word in ("机密问题", "员工手册", KEY))


def test_an_error_is_a_provider_error(driver: Driver) -> None:
    """All exceptions of the client library are mapped."""
    with pytest.raises(ProviderError):
        list(driver.unreachable().stream_query(Query("年假", "u1"), Deadline(TIMEOUT)))
