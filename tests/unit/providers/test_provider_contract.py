"""The contract of every answer provider: one suite for the built-in ones and for a user's own.

`ollama` is the file that docs/providers.md shows, unchanged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from demo.mocks.custom import server as custom
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.scripts import ASKING_BACK
from demo.mocks.dify.server import SCRIPTS
from demo.mocks.openai import server as openai
from services.errors import ProviderError, StreamBroken, Unrecoverable
from services.models import Delta, Exchange, ProviderIds, Query, Usage
from services.providers.base import BaseRAGProvider
from tests.support.answers import TIMEOUT, ask, together
from tests.support.provider_drivers import (
    COUNTING,
    DRIVERS,
    EVERY_SCRIPT,
    FAILING,
    KEY,
    RECOVERING,
    SENDING_TURNS,
    Driver,
)
from tests.support.servers.processes import FakeClock, wait_until, when
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


def test_an_answer_arrives_in_several_pieces(any_driver: Driver) -> None:
    """Each of them as it comes."""
    assert len([event for event in ask(any_driver.provider(), "年假").events if isinstance(event, Delta)]) > 1


#: Waits for two seconds before the answer.
SLOW = ("openai", "keep-alive")


@pytest.mark.parametrize(
    ("name", "script"), [pytest.param(*case, marks=[pytest.mark.full] * (case == SLOW)) for case in EVERY_SCRIPT]
)
def test_every_script_comes_to_its_end(drive: Drive, name: str, script: str) -> None:
    """An answer arrives byte for byte in any transport; a failure has its code, and tells nothing private.

    Only temporary errors are retried, twice; no question is sent again after the headers of its answer.
    """
    driver, clock = drive(name), FakeClock()
    question, code = f"[[{script}]] 年假怎么申请？ 💰", driver.failures.get(script, "")
    if code == "answer_timeout":
        when(lambda: driver.open_streams, lambda: clock.advance(TIMEOUT))
    # Only silence may reach the short timeout, and only a socket that stays open the short grace.
    provider = driver.provider(
        timeout=0.05 if code == "provider_timeout" else TIMEOUT / 2, grace=0.1 if "open" in script else TIMEOUT
    )

    answer = ask(provider, question, deadline=Deadline(TIMEOUT, clock=clock))

    assert answer.code == code
    assert code or answer.text == driver.expected(question)
    assert not any(word in repr(answer.error) for word in ("secret", "://", KEY))
    wait_until(lambda: len(driver.asked) == driver.repeated.get(script, 1))
    driver.check(script, answer)


def test_every_script_of_the_mocks_has_an_expectation() -> None:
    """Those of Dify that ask back are in test_dify_forms, and its error replies in test_dify_service."""
    expected = {name: {*kind.answered, *kind.failures} for name, kind in DRIVERS.items()}

    assert expected["openai"] == set(openai.SCRIPTS)
    assert expected["custom"] == set(custom.SCRIPTS)
    assert set(SCRIPTS) - expected["dify"] <= {"only-picture", *ASKING_BACK, *ERROR_REPLIES}


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

    ask(provider, "三", history=(Exchange("一", "答一"), Exchange("二", "答二")))

    assert not provider.keeps_conversations
    assert driver.earlier(driver.asked[0]) == ["一", "答一", "二", "答二"]


def test_the_health_check_costs_nothing(any_driver: Driver) -> None:
    """No request reaches the address that generates."""
    provider = any_driver.provider()

    assert all(provider.health_check() for _ in range(3))
    assert not any_driver.asked


def test_a_server_that_is_down_is_unhealthy_and_unreachable(driver: Driver) -> None:
    """A refused connection has the code `provider_unreachable`."""
    provider = driver.unreachable()

    assert not provider.health_check()
    assert ask(provider, "年假").code == "provider_unreachable"


def test_an_abort_wakes_a_reader_that_waits(driver: Driver) -> None:
    """An abort by another thread ends a read from a server that sends nothing, and closes the connection."""
    deadline = Deadline(600.0)
    # Longer than a test may take: the server's end of the stream would end the read, too.
    driver.far.limit = 600.0
    when(lambda: driver.open_streams, lambda: deadline.abort("cancelled"))

    assert ask(driver.provider(timeout=600.0), "[[silent]]", deadline=deadline).code == "interrupted"
    wait_until(lambda: not driver.open_streams)


def test_a_question_that_has_ended_is_not_sent(any_driver: Driver) -> None:
    """It was aborted, or its time was over, before it began."""
    aborted = Deadline(600.0)
    aborted.abort("cancelled")
    provider = any_driver.provider()

    assert ask(provider, "年假", deadline=aborted).code == "interrupted"
    assert ask(provider, "年假", deadline=Deadline(0.0)).code == "answer_timeout"
    assert not any_driver.asked


def test_answers_share_one_connection(driver: Driver) -> None:
    """A stream is read to its end, so the next question reuses its connection."""
    provider = driver.provider()

    for _ in range(4):
        assert ask(provider, "年假").error is None

    assert driver.connections == 1


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
    assert ask(provider, "[[drop-in-a-line]]").code == "provider_truncated"

    assert ask(provider, "年假").text == driver.expected("年假")


def test_an_answer_without_ids_is_unrecoverable(any_driver: Driver) -> None:
    """Without a run's id there is nothing to fetch: the question may be asked again."""
    with pytest.raises(Unrecoverable):
        any_driver.provider().recover(Query("年假", "u1"), ProviderIds(), Deadline(TIMEOUT))


@pytest.mark.parametrize("name", RECOVERING)
def test_the_answer_of_a_broken_stream_is_recovered(drive: Drive, name: str) -> None:
    """`recover` returns the complete answer by the ids that the stream told; the question is not sent again."""
    driver = drive(name)
    provider, question = driver.provider(), f"[[{driver.lost}]] 年假怎么申请？"
    broken = ask(provider, question)
    assert isinstance(broken.error, StreamBroken)
    assert broken.text != driver.expected(question)

    recovered = provider.recover(Query(question, "u1"), broken.ids, Deadline(TIMEOUT))

    assert recovered.text == driver.expected(question)
    assert len(driver.asked) == 1


@pytest.mark.parametrize("name", RECOVERING)
def test_an_abort_ends_a_recovery(drive: Drive, name: str) -> None:
    """A recovery of a cancelled question, or of one that another owner has taken, ends as `interrupted`."""
    deadline = Deadline(TIMEOUT)
    deadline.abort("cancelled")

    with pytest.raises(ProviderError) as caught:
        drive(name).provider().recover(Query("年假", "u1"), ProviderIds("c1", "m1"), deadline)

    assert caught.value.code == "interrupted"


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
    ask(provider, f"[[{any_driver.unauthorized}]] 机密问题")

    log_text = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert not any(word in log_text for word in ("机密问题", "员工手册", KEY))
