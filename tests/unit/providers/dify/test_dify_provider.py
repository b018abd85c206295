"""Dify as a provider, against the mock Dify over HTTP: the answer of every script, and its errors."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from demo.mocks.dify.features.files import signed
from demo.mocks.dify.server import MockDify
from demo.mocks.dify.wire import SOURCE
from services.attachments import AnswerFile, Attached
from services.errors import ConversationGone, ProviderError, StreamBroken
from services.models import Identity, ProviderIds, Query, Replacement, Usage, UserInfo
from services.providers.dify.answer import answer_files
from tests.support.answers import TickingClock, ask, provider_lines
from tests.support.made_providers import dify_provider
from tests.support.servers.processes import wait_until, when
from tests.support.servers.raw_server import RawServer, self_signed
from tests.unit.providers.dify.conftest import KEY, STRANGER, Make
from utils.deadline import Deadline


def test_pictures_are_told_beside_the_text(make: Make) -> None:
    """Those of the app, also where it says nothing; what came with the question is left out."""
    told = list(make().stream_query(Query("画 [[only-picture]]", "u1"), Deadline(20.0)))
    (attached,) = [event for event in told if isinstance(event, Attached)]
    items: list[dict[str, Any]] = [
        {"type": "image", "url": "/files/a", "belongs_to": "user"},
        {"mime_type": "image/png", "remote_url": "https://a.example/b", "filename": "b.png"},
        {"type": "document", "url": "/files/c", "transfer_method": "local_file"},
        {"type": "document", "url": "/files/d", "transfer_method": "tool_file"},
        {"type": "image", "url": None},
    ]

    assert attached.files == (AnswerFile(signed("9d1c.png"), "", True),)
    assert answer_files(items) == (AnswerFile("https://a.example/b", "b.png", True), AnswerFile("/files/d"))


def test_a_new_agent_final_word_replaces_its_draft(make: Make) -> None:
    """The closing message differs from the streamed text: one replacement with the whole text."""
    events = list(make().stream_query(Query("[[new-agent-differs]]", "u1"), Deadline(20.0)))

    assert sum(isinstance(event, Replacement) for event in events) == 1


def test_usage_and_sources_are_passed_on(make: Make) -> None:
    """The usage and sources of message_end are passed on; without message_end the usage is None."""
    assert ask(make(), "年假").usage == Usage(431, 412, 19, "0.00043", "USD", (SOURCE,))
    assert ask(make(), "[[no-message-end]]").usage is None


def test_the_request_is_what_dify_expects(make: Make, dify: MockDify) -> None:
    """Streaming, without a title, and without an empty conversation_id, which some versions of Dify reject."""
    ask(make(inputs={"who": "{user_code}"}), "你好", files=("f1",), inputs={"lang": "zh"})

    request = dify.requests[0]
    assert request.authorization == f"Bearer {KEY}"
    assert request.body == {
        "query": "你好",
        "inputs": {"who": "u1", "lang": "zh"},
        "user": "u1",
        "response_mode": "streaming",
        "auto_generate_name": False,
        "files": [{"type": "custom", "transfer_method": "local_file", "upload_file_id": "f1"}],
    }


def test_a_second_question_continues_the_conversation(make: Make, dify: MockDify) -> None:
    """The second question carries the conversation id of the first answer."""
    provider = make()
    first = ask(provider, "一")

    second = ask(provider, "二", conversation_id=first.ids.conversation_id)

    assert second.ids.conversation_id == first.ids.conversation_id
    assert second.ids.message_id != first.ids.message_id
    assert "files" not in dify.requests[1].body


class TenPings(TickingClock):
    """A timeout of ten seconds lapses after ten pings; the calls after that have all the time they need."""

    def __init__(self) -> None:
        super().__init__(until=12.0)


@pytest.mark.parametrize("prefix", ["", "[[error-conversation]]", "[[stale-pings]]"])
def test_a_stale_conversation_is_one_error_in_all_its_forms(make: Make, dify: MockDify, prefix: str) -> None:
    """A 404, an error in the stream and nothing but pings raise one error, without text, and close the response."""
    answer = ask(make(timeout=10.0, monotonic=TenPings()), f"{prefix}你好", conversation_id=STRANGER)

    assert isinstance(answer.error, ConversationGone)
    assert answer.text == ""
    assert len(dify.requests) == 1
    wait_until(lambda: dify.open_streams == 0)


@pytest.mark.parametrize("mode", ["chat", "agent-chat", "agent"])
def test_pings_mean_a_stale_conversation_in_chatflows_only(make: Make, dify: MockDify, mode: str) -> None:
    """Other kinds of app reply 404 to a stale conversation: if they only ping, it is a timeout."""
    dify.mode = mode
    provider = make(timeout=10.0, monotonic=TenPings())

    assert ask(provider, "[[stale-pings]]", conversation_id=STRANGER).code == "provider_timeout"
    assert dify.calls["GET /v1/info"] == 1


def test_silence_with_text_or_without_pings_is_a_timeout(make: Make) -> None:
    """No event at all, or silence after text, is a timeout."""
    known = ask(make(), "一").ids.conversation_id
    ticking, short = make(timeout=10.0, monotonic=TickingClock()), make(timeout=0.1)

    assert ask(ticking, "[[pings-after-text]]", conversation_id=known).code == "provider_timeout"
    assert ask(short, "[[silent]]", conversation_id=known).code == "provider_timeout"


def test_an_app_of_unknown_mode_counts_as_a_chatflow(make: Make, dify: MockDify) -> None:
    """If /info fails too, the conversation counts as gone, so that the question is asked again in a new one."""

    class Refusing(TenPings):
        """The key is refused as soon as the question has been taken."""

        def __call__(self) -> float:
            dify.api_key = "app-other" if dify.requests else ""
            return super().__call__()

    provider = make(timeout=10.0, monotonic=Refusing())

    assert ask(provider, "[[stale-pings]]", conversation_id=STRANGER).code == "conversation_gone"
    assert dify.calls["GET /v1/info"] == 1


def test_user_token_sends_bot_code_and_token(make: Make, dify: MockDify) -> None:
    """The header of the original, for a patched Dify; only the first non-empty key is used."""
    provider = make(auth_mode="user_token", api_keys=["", "bot7", "bot8"])
    person = Identity("cached", UserInfo("u01"), token="fake-token")

    assert ask(provider, "你好", identity=person).error is None
    assert dify.requests[0].authorization == "Bearer bot7 fake-token"


def test_user_token_without_a_token_sends_no_request(make: Make, dify: MockDify) -> None:
    """The error is `provider_unauthorized`, and no request is sent."""
    assert ask(make(auth_mode="user_token"), "你好").code == "provider_unauthorized"
    assert dify.requests == []


def test_a_query_without_a_user_is_sent_as_the_default_user(make: Make, dify: MockDify) -> None:
    """A query without a user id is sent as DIFY_USER."""
    list(make(user="somebody").stream_query(Query("你好", ""), Deadline(20.0)))

    assert dify.requests[0].body["user"] == "somebody"


def test_time_info_uses_the_given_clock(make: Make, dify: MockDify) -> None:
    """The clock and its time zone are arguments."""
    ask(make(inputs={"timeinfo": "{time_info}"}, clock=lambda: 1_790_000_000.0, timezone=UTC), "你好")

    assert '"当前日期": "2026-09-21"' in dify.requests[0].body["inputs"]["timeinfo"]


def test_the_fingerprint_of_an_app_does_not_contain_its_key() -> None:
    """The fingerprint is the same for every spelling of the address, and differs by key and by address."""

    def app(base: str, key: str) -> str:
        return dify_provider(base_url=base, api_keys=[key]).app

    assert app("https://dify.example", KEY) == app("https://dify.example/v1/", KEY)
    assert len({app("https://a.example", "k1"), app("https://a.example", "k2"), app("https://b.example", "k1")}) == 3
    assert KEY not in app("https://dify.example", KEY)


def test_the_health_check_sends_no_question(make: Make, dify: MockDify) -> None:
    """It sends no question; a wrong key makes it false."""
    provider = make()

    assert provider.health_check()
    dify.api_key = "app-other"
    assert not provider.health_check()
    assert dify.requests == []


@pytest.mark.parametrize("endpoint", ["/v1/chat-message", "/v1/info", "/chat"])
def test_a_wrong_chat_address_fails_the_health_check(make: Make, endpoint: str) -> None:
    """The app exists, but its chat address does not."""
    assert not make(chat_endpoint=endpoint).health_check()


def test_a_value_that_no_select_offers_fails_the_health_check(make: Make, dify: MockDify) -> None:
    """Dify would reject every question, and `wrong_inputs` names the value."""
    dify.user_input_form = [{"select": {"variable": "lang", "required": True, "options": ["zh"]}}]

    assert make(inputs={"lang": "zh"}).health_check()
    assert not make(inputs={"lang": "fr"}).health_check()
    assert make(inputs={"lang": "fr"}).wrong_inputs() == ["lang is 'fr', expected one of 'zh'"]


def test_the_clock_skew_is_measured_against_dify(make: Make, dify: MockDify) -> None:
    """The skew is None before the first call."""
    provider = make()
    assert provider.clock_skew() is None
    dify.clock_ahead = 1200.0
    provider.health_check()

    assert provider.clock_skew() == pytest.approx(1200.0, abs=30.0)


def test_inputs_the_app_requires_and_the_template_lacks_are_named(make: Make, dify: MockDify) -> None:
    """Optional inputs and inputs that the template has are not named."""
    dify.user_input_form = [
        {"text-input": {"label": "城市", "variable": "city", "required": True}},
        {"select": {"label": "语言", "variable": "lang", "required": True, "options": ["zh"]}},
        {"paragraph": {"label": "备注", "variable": "note", "required": False}},
    ]

    assert make(inputs={"lang": "zh"}).missing_inputs() == ["city"]
    dify.user_input_form = []
    assert make().missing_inputs() == []


def test_cancel_tells_dify_to_stop(make: Make, dify: MockDify) -> None:
    """The task is stopped for the user who asked; without a task id no request is sent."""
    provider = make()

    provider.cancel(ProviderIds(task_id="t1"), "u1")
    provider.cancel(ProviderIds(), "u1")

    assert dify.stops == [("t1", "u1")]


def test_a_stop_that_fails_is_logged_not_raised(make: Make, dify: MockDify, caplog: pytest.LogCaptureFixture) -> None:
    """Cancelling raises nothing; the log has a warning."""
    dify.api_key = "app-other"

    make().cancel(ProviderIds(task_id="t1"), "u1")

    assert "did not take the stop" in caplog.text


def test_an_abort_ends_the_answer_where_it_is(make: Make, dify: MockDify) -> None:
    """The text received so far is kept, and the error's code is `interrupted`."""
    deadline = Deadline(600.0)

    answer = ask(make(), "[[drip-events]]", deadline=deadline, after_each=lambda: deadline.abort("cancelled"))

    assert answer.code == "interrupted"
    assert answer.text


def test_an_answer_is_not_looked_up_where_no_question_can_have_left(tmp_path: Path) -> None:
    """An untrusted certificate is an error at once, not a broken stream, which would be looked up for 15 s."""
    context, _ = self_signed(tmp_path)
    with RawServer(b"", tls=context) as server:
        error = ask(dify_provider(base_url=f"{server.url}/v1", api_keys=[KEY]), "年假").error

    assert isinstance(error, ProviderError)
    assert not isinstance(error, StreamBroken)
    assert (error.code, str(error)[:25]) == ("provider_untrusted", "certificate verify failed")


def test_the_log_counts_tokens_and_price(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One line per answer in the original's wording, without the question."""
    caplog.set_level(logging.INFO, "services")

    ask(make(), "机密问题")
    ask(make(), "[[no-message-end]]")

    assert provider_lines(caplog) == [
        "[Dify RAG] Tokens: 431, Price: 0.00043 USD",
        "[Dify RAG] Tokens: 0, Price: 0 -",
    ]


def test_the_log_names_a_failure_and_nothing_private(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The line has the code and the HTTP status, not the key, the address, the question or Dify's message."""
    caplog.set_level(logging.INFO, "services")

    ask(make(), "[[401-unauthorized]] 机密问题")

    assert provider_lines(caplog) == ["[Dify RAG Error] provider_unauthorized: HTTP 401 unauthorized"]


UNDER_GEVENT = """
    from gevent import monkey
    monkey.patch_all()
    import sys, threading, time
    from services.errors import ProviderError
    from services.models import Delta, Query
    from tests.support.made_providers import dify_provider
    from utils.deadline import Deadline

    plain, tls = (dify_provider(base_url=url, api_keys=["app-fake"], timeout=600.0) for url in sys.argv[1:3])
    texts, codes = [], []

    def ask(provider, question, deadline):
        try:
            events = provider.stream_query(Query(question, "u1"), deadline)
            texts.append("".join(event.text for event in events if isinstance(event, Delta)))
        except ProviderError as exc:
            codes.append(exc.code)

    def together(jobs):
        threads = [threading.Thread(target=ask, args=job) for job in jobs]
        [thread.start() for thread in threads]
        return threads

    [thread.join(60.0) for thread in together([(plain, f"年假 {n}", Deadline(60.0)) for n in range(20)])]
    print(len(texts), len(set(texts)), codes, sep="|")

    hangs = [(plain, f"[[{name}]]") for name in ("silent", "no-headers", "silent-close-delimited", "ping-only")]
    deadlines = [Deadline(600.0) for _ in range(5)]
    threads = together([(*hang, deadline) for hang, deadline in zip([*hangs, (tls, "hi")], deadlines)])
    time.sleep(0.5)
    [deadline.abort("cancelled") for deadline in deadlines]
    [thread.join(30.0) for thread in threads]
    print(*codes, sep="|")
"""


def test_under_gevent_streams_run_in_parallel_and_aborts_end_them(
    dify: MockDify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a patched process twenty answers stream at once, and an abort ends a blocked read, plain and over TLS."""
    context, trusted = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    dify.delay = 0.5
    when(lambda: dify.open_streams == 20, dify.hurry)
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    with RawServer(reply, hang=True, tls=context) as tls:
        command = [sys.executable, "-c", textwrap.dedent(UNDER_GEVENT), dify.base_url, tls.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100.0, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["20|1|[]", "|".join(["interrupted"] * 5)]
    assert dify.peak_streams == 20
