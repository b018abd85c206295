"""Dify's API over real HTTP: addresses, provider errors, retries, silence, interruption, connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import SettingsError
from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from services.errors import ConversationGone, ProviderError
from services.providers.dify.service import DifyService, DifyUrls
from tests.support.answers import TIMEOUT, TickingClock
from tests.support.made_providers import dify_service
from tests.support.servers.processes import FakeClock, free_port, wait_until, when
from tests.support.servers.raw_server import RawServer, self_signed
from utils.deadline import Deadline

KEY = "Bearer app-fake"
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


Make = Callable[..., DifyService]


@pytest.fixture
def make(dify: MockDify) -> Iterator[Make]:
    """Make services of the mock, with options; they are closed after the test."""
    made: list[DifyService] = []

    def service(**options: Any) -> DifyService:
        wanted: dict[str, Any] = {"base_url": dify.base_url, "backoff": 0.01}
        made.append(dify_service(**wanted | options))
        return made[-1]

    yield service
    for each in made:
        each.close()


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"query": text, "inputs": {}, "user": "u1", "response_mode": "streaming"} | fields


def ask(service: DifyService, text: str, *, deadline: Deadline | None = None, **fields: Any) -> list[str]:
    """Ask, and return the names of the events."""
    body, until = question(text, **fields), deadline or Deadline(TIMEOUT)
    with service.chat_messages(body, authorization=KEY, deadline=until) as stream:
        return [event.get("event", "") for event in stream]


def error_of(service: DifyService, text: str, **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        ask(service, text, **options)
    return caught.value


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
        dify_service(base_url=base)


def test_a_chat_arrives_event_by_event(make: Make, dify: MockDify) -> None:
    """The events arrive in the order in which they were sent; pings are counted, not delivered."""
    service = make()

    with service.chat_messages(question("hi"), authorization=KEY, deadline=Deadline(TIMEOUT)) as stream:
        names = [event["event"] for event in stream]

    assert names[0] == "workflow_started"
    assert names[-2:] == ["message_end", "workflow_finished"]
    assert stream.began
    assert stream.pings == 2
    assert dify.requests[0].authorization == KEY


@pytest.mark.parametrize("script", ["chatflow", "close-delimited", "split-utf8", "crlf"])
def test_the_first_event_does_not_wait_for_the_last(make: Make, dify: MockDify, script: str) -> None:
    """For every framing of the body an event is delivered before the server writes the next one."""
    dify.delay = 20.0

    with make().chat_messages(question(f"[[{script}]]"), authorization=KEY, deadline=Deadline(TIMEOUT)) as stream:
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


RETRIED = {"429-too_many_requests"} | {name for name in ERROR_REPLIES if name.startswith("5")}


@pytest.mark.parametrize("name", sorted(ERROR_REPLIES))
def test_every_error_reply_has_its_code_and_no_private_text(make: Make, dify: MockDify, name: str) -> None:
    """The error has the HTTP status and Dify's error code, not the body, the address or the key.

    Errors 5xx and too_many_requests are retried twice, all other errors never.
    """
    error = error_of(make(retries=2), f"[[{name}]]")

    assert len(dify.asked(f"[[{name}]]")) == (3 if name in RETRIED else 1)
    assert error.code == _code_of(name)
    assert error.http_status == ERROR_REPLIES[name].status
    assert isinstance(error, ConversationGone) == (error.code == "conversation_gone")
    assert str(error).startswith(f"HTTP {error.http_status} ")
    assert len(str(error).split()) in (3, 5)
    assert dify.base_url not in str(error)


def test_retries_end_with_the_deadline(make: Make, dify: MockDify) -> None:
    """The retry is skipped if its pause would end after the deadline."""
    error = error_of(make(backoff=500.0), "[[500-unknown]]", deadline=Deadline(TIMEOUT))

    assert error.code == "provider_error"
    assert len(dify.requests) == 1


def test_a_refused_connection_is_unreachable_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection is retried as often as a 5xx, and the log does not contain the address."""
    url = f"http://127.0.0.1:{free_port()}"
    caplog.set_level(logging.WARNING, "services")

    error = error_of(dify_service(base_url=url, backoff=0.01), "hi")

    assert error.code == "provider_unreachable"
    assert caplog.text.count("asking again") == 2
    assert url not in caplog.text


def test_a_connection_that_closes_without_a_reply_is_not_retried() -> None:
    """Dify may have received the question, so it is not sent twice."""
    with RawServer(b"") as server:
        error = error_of(dify_service(base_url=server.url, backoff=0.01), "hi")

        assert error.code == "provider_unreachable"
        assert len(server.heads) == 1


def test_a_reply_that_is_not_http_is_unreachable() -> None:
    """A reply that is not HTTP raises a ProviderError, not the library's error."""
    with RawServer(b"nonsense\r\n\r\n") as server:
        assert error_of(dify_service(base_url=server.url), "hi").code == "provider_unreachable"


def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    """There is no fallback to an unverified connection, and people are not asked to try again."""
    context, _ = self_signed(tmp_path)
    with RawServer(EVENT_STREAM + b"\r\n", tls=context) as server:
        assert error_of(dify_service(base_url=server.url), "hi").code == "provider_untrusted"


def test_a_redirect_is_not_followed() -> None:
    """A question is sent to the configured address only."""
    with RawServer(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n") as server:
        error = error_of(dify_service(base_url=server.url), "hi")

        assert (error.code, error.http_status) == ("provider_rejected", 302)
        assert len(server.heads) == 1


@pytest.mark.parametrize("key", ["Bearer app-\nfake", "Bearer 密钥-fake"])
def test_an_error_does_not_contain_an_invalid_key(make: Make, dify: MockDify, key: str) -> None:
    """A key with characters that no header can carry raises `provider_unauthorized`; the error does not contain it."""
    with pytest.raises(ProviderError) as caught:
        make().info(authorization=key)

    assert caught.value.code == "provider_unauthorized"
    assert "fake" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_silence_after_text_ends_at_the_timeout(make: Make) -> None:
    """Only events with data restart the timeout."""
    body = question("[[pings-after-text]]")
    names: list[str] = []
    service = make(timeout=10.0, clock=TickingClock())
    with (
        pytest.raises(ProviderError) as caught,
        service.chat_messages(body, authorization=KEY, deadline=Deadline(TIMEOUT)) as stream,
    ):
        names.extend(event["event"] for event in stream)

    assert caught.value.code == "provider_timeout"
    assert names == ["message"]
    assert stream.began
    assert stream.pings > 1


def test_a_slow_caller_is_not_silence(make: Make) -> None:
    """The time that the caller takes between two events does not count."""
    clock = FakeClock()
    service = make(timeout=60.0, clock=clock)
    with service.chat_messages(question("hi"), authorization=KEY, deadline=Deadline(TIMEOUT)) as stream:
        events = iter(stream)
        next(events)
        clock.advance(61.0)
        assert [event["event"] for event in events][-1] == "workflow_finished"


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n", b"Connection: close\r\n\r\n"])
def test_an_abort_interrupts_a_blocked_read_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: bytes
) -> None:
    """An abort ends a blocked read over TLS too, with and without chunked encoding."""
    context, trusted = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    deadline = Deadline(600.0)
    with RawServer(EVENT_STREAM + framing, hang=True, tls=context) as server:
        service = dify_service(base_url=server.url, timeout=600.0)
        when(lambda: server.heads, lambda: deadline.abort("cancelled"))

        error = error_of(service, "hi", deadline=deadline)
        service.close()

    assert error.code == "interrupted"
    assert len(server.heads) == 1


def test_max_concurrent_limits_the_questions_in_flight(make: Make, dify: MockDify) -> None:
    """Waiting for a slot ends with the deadline, as `provider_busy`, or an abort; a stream that is left frees its slot.

    Leaving also closes the response, although more of it may come.
    """
    service, aborted = make(max_concurrent=2), Deadline(600.0)
    silent: dict[str, Any] = {"body": question("[[silent]]"), "authorization": KEY, "deadline": Deadline(60.0)}
    with service.chat_messages(**silent), service.chat_messages(**silent):
        late = error_of(service, "hi", deadline=Deadline(0.05))
        threading.Timer(0.05, aborted.abort, ("cancelled",)).start()
        unwanted = error_of(service, "hi", deadline=aborted)

    assert (late.code, unwanted.code) == ("provider_busy", "interrupted")
    assert dify.asked("hi") == []
    wait_until(lambda: dify.open_streams == 0)
    assert ask(service, "hi")[-1] == "workflow_finished"


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
    """Dify stops a run for the user who asked: no further piece of the text comes."""
    service, dify.delay = make(), 20.0

    with service.chat_messages(question("[[chat]]"), authorization=KEY, deadline=Deadline(60.0)) as stream:
        events = iter(stream)
        task_id = next(events)["task_id"]
        service.stop(task_id, "u1", authorization=KEY)
        names = [event["event"] for event in events]

    assert dify.stops == [(task_id, "u1")]
    assert names == ["workflow_finished", "message_end"]


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
        dify_service(base_url=server.url).info(authorization=KEY)

    assert caught.value.code == "provider_error"


def test_a_json_reply_that_is_no_object_is_read_as_empty() -> None:
    """A JSON list is read as an empty object."""
    with RawServer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[1]") as server:
        assert dify_service(base_url=server.url).info(authorization=KEY) == {}
