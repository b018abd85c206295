"""Dify's API over real HTTP: addresses, provider errors, retries, silence, interruption, connections."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.errors import ConversationGone, ProviderError, SettingsError
from services.providers.dify.service import DifyService
from services.providers.dify.urls import DifyUrls
from tests.support.servers.processes import when
from tests.support.servers.raw_server import RawServer, self_signed
from utils.deadline import Deadline

KEY = "Bearer app-fake"
#: Seconds: enough for a busy machine, far below the timeouts that a failing test would run into.
SOON = 8.0
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify with a ping every 50 ms."""
    with MockDify(ping_every=0.05, slow=0.02) as mock:
        yield mock


Make = Callable[..., DifyService]


@pytest.fixture
def make(dify: MockDify) -> Iterator[Make]:
    """Make services of the mock, with options; they are closed after the test."""
    made: list[DifyService] = []

    def service(**options: Any) -> DifyService:
        wanted: dict[str, Any] = {"base_url": dify.base_url, "backoff": 0.01}
        made.append(DifyService(**wanted | options))
        return made[-1]

    yield service
    for each in made:
        each.close()


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"query": text, "inputs": {}, "user": "u1", "response_mode": "streaming"} | fields


def ask(service: DifyService, text: str, *, deadline: Deadline | None = None, **fields: Any) -> list[str]:
    """Ask, and return the names of the events."""
    body, until = question(text, **fields), deadline or Deadline(20.0)
    with service.chat_messages(body, authorization=KEY, deadline=until) as stream:
        return [event.get("event", "") for event in stream]


def error_of(service: DifyService, text: str, **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        ask(service, text, **options)
    return caught.value


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait up to SOON seconds for a condition, and return whether it holds."""
    ends = time.monotonic() + SOON
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


CHAT = "https://dify.example/v1/chat-messages"


@pytest.mark.parametrize(
    ("base", "endpoint", "chat"),
    [
        ("https://dify.example", "/v1/chat-messages", CHAT),
        ("https://dify.example/", "/v1/chat-messages", CHAT),
        ("https://dify.example/v1", "/v1/chat-messages", CHAT),
        ("https://dify.example/v1/", "/v1/chat-messages", CHAT),
        ("https://dify.example", "/chat-messages", CHAT),
        ("https://dify.example/v1", "/chat-messages", CHAT),
        ("https://dify.example/v1", "chat-messages", CHAT),
        ("https://dify.example", "v1/chat-messages/", CHAT),
        ("https://dify.example/v1/chat-messages", "/v1/chat-messages", CHAT),
        (" https://dify.example/v1 ", "", CHAT),
        ("https://h/dify", "/v1/chat-messages", "https://h/dify/v1/chat-messages"),
        ("https://h/dify/v1/", "/v1/chat-messages", "https://h/dify/v1/chat-messages"),
        ("https://h/dify/v1", "/chat-messages", "https://h/dify/v1/chat-messages"),
        ("https://h/dify", "/chat-messages", "https://h/dify/v1/chat-messages"),
        ("https://h/v1", "/dify/v1/chat-messages", "https://h/dify/v1/chat-messages"),
        ("http://h:5001", "/patched/api/chat-messages", "http://h:5001/patched/api/chat-messages"),
        ("https://v1.example/v1x", "/v1/chat-messages", "https://v1.example/v1x/v1/chat-messages"),
    ],
)
def test_base_and_endpoint_make_the_right_addresses(base: str, endpoint: str, chat: str) -> None:
    """The base, the endpoint or both may contain /v1, after any path: chat and its sibling addresses are correct."""
    urls = DifyUrls.build(base, endpoint)

    assert urls.chat == chat
    assert urls.root == chat.removesuffix("/chat-messages")
    assert urls.stop("a/b") == f"{chat}/a%2Fb/stop"
    assert urls.messages == f"{urls.root}/messages"
    assert urls.run("a/b") == f"{urls.root}/workflows/run/a%2Fb"
    assert urls.events("a/b") == f"{urls.root}/workflow/a%2Fb/events"


@pytest.mark.parametrize("base", ["", "dify.example", "ftp://dify.example", "https://"])
def test_a_base_that_is_no_address_stops_the_start(base: str) -> None:
    """The error names the variable."""
    with pytest.raises(SettingsError, match="DIFY_BASE_URL"):
        DifyService(base_url=base)


def test_a_chat_arrives_event_by_event(make: Make, dify: MockDify) -> None:
    """The events arrive in the order in which they were sent; pings are counted, not delivered."""
    service = make()

    with service.chat_messages(question("hi"), authorization=KEY, deadline=Deadline(20.0)) as stream:
        names = [event["event"] for event in stream]

    assert names[0] == "workflow_started"
    assert names[-2:] == ["message_end", "workflow_finished"]
    assert stream.began
    assert stream.pings == 2
    assert dify.requests[0].authorization == KEY


@pytest.mark.parametrize("script", ["chatflow", "close-delimited", "split-utf8", "crlf"])
def test_the_first_event_does_not_wait_for_the_last(make: Make, dify: MockDify, script: str) -> None:
    """For every framing of the body an event is delivered before the server writes the next one."""
    dify.delay = 0.05

    with make().chat_messages(question(f"[[{script}]]"), authorization=KEY, deadline=Deadline(20.0)) as stream:
        next(iter(stream))
        assert dify.open_streams == 1


def _code_of(name: str) -> str:
    if name in ("400-conversation_completed", "404-conversation", "404-conversation-suffix"):
        return "conversation_gone"
    status = int(name.split("-")[0])
    if status >= 500:
        return "provider_error"
    known = {401: "provider_unauthorized", 403: "provider_unauthorized", 404: "provider_not_found"}
    return (known | {429: "provider_busy"}).get(status, "provider_rejected")


@pytest.mark.parametrize("name", sorted(ERROR_REPLIES))
def test_every_error_reply_has_its_code_and_no_private_text(make: Make, dify: MockDify, name: str) -> None:
    """The error has the HTTP status and Dify's error code, not the body, the address or the key."""
    error = error_of(make(), f"[[{name}]]")

    assert error.code == _code_of(name)
    assert error.http_status == ERROR_REPLIES[name].status
    assert isinstance(error, ConversationGone) == (error.code == "conversation_gone")
    assert str(error).startswith(f"HTTP {error.http_status} ")
    assert len(str(error).split()) in (3, 5)
    assert dify.base_url not in str(error)


RETRIED = {"429-too_many_requests"} | {name for name in ERROR_REPLIES if name.startswith("5")}


@pytest.mark.parametrize("name", sorted(ERROR_REPLIES))
def test_only_temporary_errors_are_retried(make: Make, dify: MockDify, name: str) -> None:
    """Errors 5xx and too_many_requests are retried twice, all other errors never."""
    error_of(make(retries=2), f"[[{name}]]")

    assert len(dify.asked(f"[[{name}]]")) == (3 if name in RETRIED else 1)


@pytest.mark.parametrize("script", ["429-once", "500-once", "502-once"])
def test_a_temporary_error_is_retried_with_success(make: Make, dify: MockDify, script: str) -> None:
    """The answer comes from the second attempt."""
    assert ask(make(), f"[[{script}]]")[-1] == "workflow_finished"
    assert len(dify.asked(f"[[{script}]]")) == 2


@pytest.mark.parametrize("script", ["error-event", "error-without-code", "drop", "drop-at-once", "eof"])
def test_a_question_is_not_retried_after_the_headers(make: Make, dify: MockDify, script: str) -> None:
    """An error within the stream never sends the question a second time."""
    ask(make(), f"[[{script}]]")

    assert len(dify.asked(f"[[{script}]]")) == 1


def test_retries_end_with_the_deadline(make: Make, dify: MockDify) -> None:
    """The retry is skipped if its pause would end after the deadline."""
    error = error_of(make(backoff=50.0), "[[500-unknown]]", deadline=Deadline(5.0))

    assert error.code == "provider_error"
    assert len(dify.requests) == 1


def test_an_abort_ends_the_pause_before_a_retry(make: Make, dify: MockDify, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled question is not sent again."""
    deadline = Deadline(600.0)
    when(lambda: "asking again" in caplog.text, lambda: deadline.abort("cancelled"))

    error = error_of(make(backoff=100.0), "[[500-unknown]]", deadline=deadline)

    assert error.code == "interrupted"
    assert len(dify.requests) == 1


def test_a_refused_connection_is_unreachable_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    """A error_of connection is retried as often as a 5xx, and the log does not contain the address."""
    with RawServer(b"") as gone:
        url = gone.url
    service = DifyService(base_url=url, backoff=0.01)
    caplog.set_level(logging.WARNING, "services")

    error = error_of(service, "hi")

    assert error.code == "provider_unreachable"
    assert [record.getMessage().count("asking again") for record in caplog.records] == [1, 1]
    assert url not in caplog.text


def test_a_connection_that_closes_without_a_reply_is_not_retried() -> None:
    """Dify may have received the question, so it is not sent twice."""
    with RawServer(b"") as server:
        error = error_of(DifyService(base_url=server.url, backoff=0.01), "hi")

        assert error.code == "provider_unreachable"
        assert len(server.heads) == 1


def test_a_reply_that_is_not_http_is_unreachable() -> None:
    """A reply that is not HTTP raises a ProviderError, not the library's error."""
    with RawServer(b"nonsense\r\n\r\n") as server:
        assert error_of(DifyService(base_url=server.url), "hi").code == "provider_unreachable"


def test_an_untrusted_certificate_is_unreachable(tmp_path: Path) -> None:
    """There is no fallback to an unverified connection."""
    context, _ = self_signed(tmp_path)
    with RawServer(EVENT_STREAM + b"\r\n", tls=context) as server:
        assert error_of(DifyService(base_url=server.url), "hi").code == "provider_unreachable"


def test_a_redirect_is_not_followed() -> None:
    """A question is sent to the configured address only."""
    with RawServer(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n") as server:
        error = error_of(DifyService(base_url=server.url), "hi")

        assert (error.code, error.http_status) == ("provider_rejected", 302)
        assert len(server.heads) == 1


@pytest.mark.parametrize("key", ["Bearer app-\nfake", "Bearer 密钥-fake"])
def test_an_error_does_not_contain_an_invalid_key(make: Make, dify: MockDify, key: str) -> None:
    """A key with characters that no header can carry raises `provider_unauthorized`; the error does not contain it."""
    with pytest.raises(ProviderError) as caught:
        make().info(authorization=key)

    assert caught.value.code == "provider_unauthorized"
    assert "fake" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("script", ["silent", "no-headers", "silent-close-delimited", "ping-only", "drip-bytes"])
def test_silence_ends_at_the_timeout(make: Make, script: str) -> None:
    """`timeout` is the time without an event with data, from the request on; pings and partial events do not count."""
    started = time.monotonic()

    error = error_of(make(timeout=0.4), f"[[{script}]]")

    assert error.code == "provider_timeout"
    assert 0.35 <= time.monotonic() - started < SOON


def test_silence_after_text_ends_at_the_timeout(make: Make) -> None:
    """Only events with data restart the timeout."""
    body = question("[[pings-after-text]]")
    names: list[str] = []
    with (
        pytest.raises(ProviderError) as caught,
        make(timeout=1.0).chat_messages(body, authorization=KEY, deadline=Deadline(20.0)) as stream,
    ):
        names.extend(event["event"] for event in stream)

    assert caught.value.code == "provider_timeout"
    assert names == ["message"]
    assert stream.began
    assert stream.pings > 1


def test_a_slow_caller_is_not_silence(make: Make) -> None:
    """The time that the caller takes between two events does not count."""
    with make(timeout=1.0).chat_messages(question("hi"), authorization=KEY, deadline=Deadline(20.0)) as stream:
        events = iter(stream)
        next(events)
        threading.Event().wait(1.5)
        assert [event["event"] for event in events][-1] == "workflow_finished"


def test_the_deadline_ends_an_endless_answer(make: Make) -> None:
    """Data restarts the timeout for silence, not the deadline."""
    started = time.monotonic()

    error = error_of(make(), "[[drip-events]]", deadline=Deadline(0.5))

    assert error.code == "answer_timeout"
    assert time.monotonic() - started < SOON


def test_no_question_is_sent_after_the_deadline(make: Make, dify: MockDify) -> None:
    """No request is sent after the deadline."""
    assert error_of(make(), "hi", deadline=Deadline(0.0)).code == "answer_timeout"
    assert dify.requests == []


@pytest.mark.parametrize("script", ["silent", "no-headers", "silent-close-delimited", "ping-only", "drip-events"])
def test_an_abort_interrupts_a_blocked_read(make: Make, dify: MockDify, script: str) -> None:
    """An abort by another thread ends a read that would last for minutes, and closes the connection to Dify."""
    deadline, started = Deadline(600.0), time.monotonic()
    threading.Timer(0.2, deadline.abort, ("cancelled",)).start()

    error = error_of(make(timeout=600.0), f"[[{script}]]", deadline=deadline)

    assert error.code == "interrupted"
    assert time.monotonic() - started < SOON
    assert eventually(lambda: dify.open_streams == 0)


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n", b"Connection: close\r\n\r\n"])
def test_an_abort_interrupts_a_blocked_read_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: bytes
) -> None:
    """An abort ends a blocked read over TLS too, with and without chunked encoding."""
    context, trusted = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    deadline, started = Deadline(600.0), time.monotonic()
    with RawServer(EVENT_STREAM + framing, hang=True, tls=context) as server:
        service = DifyService(base_url=server.url, timeout=600.0)
        when(lambda: server.heads, lambda: deadline.abort("cancelled"))

        error = error_of(service, "hi", deadline=deadline)
        service.close()

    assert error.code == "interrupted"
    assert time.monotonic() - started < SOON
    assert len(server.heads) == 1


def test_an_aborted_question_is_not_sent(make: Make, dify: MockDify) -> None:
    """An abort before the request prevents it."""
    deadline = Deadline(600.0)
    deadline.abort("cancelled")

    assert error_of(make(), "hi", deadline=deadline).code == "interrupted"
    assert dify.requests == []


def test_an_abort_after_the_end_leaves_the_connection_open(make: Make, dify: MockDify) -> None:
    """The connection is back in the pool: a late abort by its earlier user does not close it for the next one."""
    service, deadline = make(), Deadline(600.0)
    with service.chat_messages(question("[[chat]]"), authorization=KEY, deadline=deadline) as stream:
        assert len(list(stream)) > 1
        deadline.abort("cancelled")
        assert ask(service, "[[chat]]")[-1] == "message_end"

    assert dify.accepted_connections == 1


def test_one_connection_serves_many_questions(make: Make, dify: MockDify) -> None:
    """A stream that was read to its end returns its connection to the pool."""
    service = make()

    for _ in range(5):
        ask(service, "hi")
    service.info(authorization=KEY)

    assert dify.accepted_connections == 1


def test_leaving_the_stream_closes_the_response(make: Make, dify: MockDify) -> None:
    """Leaving the `with` block closes the response, which frees Dify's slot."""
    with make().chat_messages(question("[[silent]]"), authorization=KEY, deadline=Deadline(20.0)):
        assert eventually(lambda: dify.open_streams == 1)

    assert eventually(lambda: dify.open_streams == 0)


def test_max_concurrent_limits_the_questions_in_flight(make: Make, dify: MockDify) -> None:
    """With `max_concurrent` 2 eight questions are answered, and Dify never has a third stream."""
    service, dify.delay = make(max_concurrent=2), 0.003
    ended: list[str] = []
    threads = [threading.Thread(target=lambda: ended.append(ask(service, "hi")[-1])) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)

    assert ended == ["workflow_finished"] * 8
    assert dify.peak_streams == 2


def test_waiting_for_a_slot_ends_with_the_deadline(make: Make, dify: MockDify) -> None:
    """A question without a slot at its deadline is `provider_busy`, an aborted one `interrupted`."""
    service, aborted = make(max_concurrent=1), Deadline(600.0)
    with service.chat_messages(question("[[silent]]"), authorization=KEY, deadline=Deadline(60.0)):
        late = error_of(service, "hi", deadline=Deadline(0.1))
        threading.Timer(0.1, aborted.abort, ("cancelled",)).start()
        unwanted = error_of(service, "hi", deadline=aborted)

    assert (late.code, unwanted.code) == ("provider_busy", "interrupted")
    assert dify.asked("hi") == []


def test_an_endless_line_is_a_provider_error(make: Make) -> None:
    """The length of a line is bounded, which bounds the memory."""
    assert error_of(make(), "[[endless-line]]").code == "provider_error"


def test_damaged_and_malformed_events_are_skipped(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The other events are read, and the log counts the damaged ones without their content."""
    service = make()
    caplog.set_level(logging.WARNING, "services")

    assert ask(service, "[[damaged]]") == ["message", "message_end"]
    assert "message_end" in ask(service, "[[odd-events]]")

    assert "1 events that are not UTF-8" in caplog.text
    assert "not JSON" in caplog.text
    assert "broken" not in caplog.text


def test_stop_names_task_and_user(make: Make, dify: MockDify) -> None:
    """Dify stops a run for the user who asked."""
    service, dify.slow = make(), 0.2
    names = []

    with service.chat_messages(question("[[slow]]"), authorization=KEY, deadline=Deadline(30.0)) as stream:
        for event in stream:
            names.append(event["event"])
            if len(names) == 2:
                service.stop(event["task_id"], "u1", authorization=KEY)

    assert dify.stops == [(event["task_id"], "u1")]
    assert names.count("message") < 20
    assert names[-1] == "message_end"


def test_info_and_parameters_are_read(make: Make, dify: MockDify) -> None:
    """Both take one GET."""
    dify.mode = "chat"

    assert make().info(authorization=KEY)["mode"] == "chat"
    assert make().parameters(authorization=KEY)["user_input_form"] == []


def test_an_error_reply_of_info_is_a_provider_error(make: Make, dify: MockDify) -> None:
    """All requests map errors as chat requests do."""
    dify.api_key = "app-other"

    with pytest.raises(ProviderError) as caught:
        make().info(authorization=KEY)

    assert caught.value.code == "provider_unauthorized"


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"cut', b""])
def test_a_reply_that_is_not_json_is_a_provider_error(body: bytes) -> None:
    """A login page in front of Dify also has status 200."""
    reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
    with RawServer(reply) as server, pytest.raises(ProviderError) as caught:
        DifyService(base_url=server.url).info(authorization=KEY)

    assert caught.value.code == "provider_error"


def test_a_json_reply_that_is_no_object_is_read_as_empty() -> None:
    """A JSON list is read as an empty object."""
    with RawServer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[1]") as server:
        assert DifyService(base_url=server.url).info(authorization=KEY) == {}
