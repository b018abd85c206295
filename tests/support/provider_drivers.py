"""Drivers with one interface for every provider and the mock of its service; the contract suite runs on them."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from demo.mocks.answering import MockAnswering
from demo.mocks.custom import server as custom
from demo.mocks.dify.scripts import BROKEN
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.mocks.openai import server as openai
from services.errors import ConversationGone, StreamBroken
from services.providers.base import BaseRAGProvider
from services.providers.client.json_service import JSONService
from services.providers.client.limits import ClientLimits
from services.providers.mock import MockProvider, mock_answer
from tests.support.answers import TIMEOUT, Answer
from tests.support.made_providers import custom_provider, dify_provider, openai_provider
from tests.support.own_provider import MODULE, Keeping, MockKeeping, MockOllama, shown_file
from tests.support.servers.processes import free_port

#: The API key of these tests: a fixed text, so that tests can search logs and requests for it.
KEY = "key-fake-0123456789"


def coded(**scripts: str) -> Mapping[str, str]:
    """Return the error's code by script; each code is given with the names of its scripts."""
    return {name: code for code, names in scripts.items() for name in names.split()}


class Driver(ABC):
    """One provider and the mock service that it calls."""

    #: The mock's scripts that fail, with the error's code, and those whose answer has a text.
    failures: Mapping[str, str] = {}
    answered: Collection[str] = ()
    #: Scripts whose question is sent more than once, with the number of requests.
    repeated: Mapping[str, int] = {}
    #: Whether it reports the tokens of an answer.
    counts_tokens = True
    #: Scripts that every mock has: an endless answer, and an error reply to a wrong key.
    drip, unauthorized = "drip", "401"

    #: The mock service.
    far: MockDify | MockAnswering
    #: A script whose stream breaks off although the service keeps the answer; "" if the provider recovers none.
    lost = ""

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Start the mock service; `folder` is for the files of this driver."""

    @abstractmethod
    def provider(self, *, timeout: float = TIMEOUT, grace: float = TIMEOUT) -> BaseRAGProvider:
        """Return a new provider that calls the mock. A stream may stay open for `grace` seconds after its answer."""

    @abstractmethod
    def unreachable(self) -> BaseRAGProvider:
        """Return a provider whose service's port is closed."""

    @abstractmethod
    def expected(self, question: str) -> str:
        """Return the text that the answer to `question` must have."""

    @property
    @abstractmethod
    def asked(self) -> list[Mapping[str, Any]]:
        """The bodies of the requests that reached the generating endpoint."""

    @property
    @abstractmethod
    def open_streams(self) -> int:
        """The number of answers that the mock is sending."""

    @property
    @abstractmethod
    def connections(self) -> int:
        """The number of connections that the mock has accepted."""

    def check(self, script: str, answer: Answer) -> None:  # noqa: B027 - most promise nothing more
        """Check what only this provider promises of a script's answer."""

    def earlier(self, body: Mapping[str, Any]) -> Any:
        """Return the texts of earlier turns in a request's body, as one flat list."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Stop the mock service."""


def _code_of_break(name: str) -> str:
    if "-silence-" in name:
        return "provider_timeout"
    return "provider_error" if name.endswith(("-start", "-unheard")) else "provider_truncated"


class DifyDriver(Driver):
    drip, unauthorized = "drip-events", "401-unauthorized"
    lost = "chatflow-reset-middle"
    answered = tuple(name for name, script in SCRIPTS.items() if script.answer("年假") and not script.breaks)
    repeated = dict.fromkeys(["429-once", "500-once", "502-once"], 2) | {"502-html": 3}
    #: Streams that break although the run goes on: the error allows a recovery, if the stream told any ids.
    breaks: Mapping[str, str] = {name: _code_of_break(name) for name in BROKEN}
    #: Failures that Dify reports: there is no answer to recover.
    reported = coded(
        provider_error=(
            "502-html chatflow-failed chatflow-failed-quietly chatflow-failed-open error error-event "
            "error-after-text error-without-code endless-line"
        ),
        provider_paused="chatflow-paused form-file form-mail",
        provider_empty="empty",
    )
    ends = coded(
        provider_truncated="eof eof-close-delimited drop drop-in-a-line",
        provider_error="eof-without-text drop-at-once",
        provider_timeout="ping-only pings-after-text silent silent-close-delimited no-headers drip-bytes",
        answer_timeout="drip-events",
    )
    failures: Mapping[str, str] = {**breaks, **reported, **ends}

    def __init__(self, folder: Path) -> None:
        self.far: MockDify = MockDify(ping_every=0.02, slow=0.001).start()

    def provider(self, *, timeout: float = TIMEOUT, grace: float = TIMEOUT) -> BaseRAGProvider:
        return self._at(self.far.base_url, timeout=timeout, end_grace=grace, failure_grace=grace, linger=grace)

    def unreachable(self) -> BaseRAGProvider:
        return self._at(f"http://127.0.0.1:{free_port()}")

    def _at(self, url: str, **seconds: Any) -> BaseRAGProvider:
        return dify_provider(base_url=url, api_keys=[KEY], backoff=0.01, **seconds)

    def check(self, script: str, answer: Answer) -> None:
        assert not isinstance(answer.error, ConversationGone)
        assert isinstance(answer.error, StreamBroken) or script not in self.breaks
        assert not isinstance(answer.error, StreamBroken) or script not in self.reported
        if script not in self.failures:
            assert answer.ids.conversation_id in self.far.conversations
        elif script in self.breaks and "-silence-" not in script:
            assert answer.ids.name_run is not script.endswith("-unheard")

    def expected(self, question: str) -> str:
        return self.far.expected_answer(question)

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        return [request.body for request in list(self.far.requests)]

    @property
    def open_streams(self) -> int:
        return self.far.open_streams

    @property
    def connections(self) -> int:
        return self.far.accepted_connections

    def close(self) -> None:
        self.far.close()


class AnsweringDriver(Driver):
    """A provider whose mock is one of `demo.mocks.answering`; a subclass begins it with `begin`."""

    far: MockAnswering
    _make: Callable[[str, float, float], BaseRAGProvider]

    def begin(self, far: MockAnswering, make: Callable[[str, float, float], BaseRAGProvider]) -> None:
        """Start the mock; `make` returns a provider of its address, with its timeout and its grace in seconds."""
        self.far = far.start()
        self._make = make

    def provider(self, *, timeout: float = TIMEOUT, grace: float = TIMEOUT) -> BaseRAGProvider:
        return self._make(self.far.address, timeout, grace)

    def unreachable(self) -> BaseRAGProvider:
        return self._make(f"http://127.0.0.1:{free_port()}", TIMEOUT, TIMEOUT)

    def expected(self, question: str) -> str:
        return self.far.expected_answer(question)

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        return [asked.body for asked in list(self.far.asked)]

    @property
    def open_streams(self) -> int:
        return self.far.open_streams

    @property
    def connections(self) -> int:
        return self.far.accepted_connections

    def close(self) -> None:
        self.far.close()


class OpenAIDriver(AnsweringDriver):
    answered = tuple(name for name, script in openai.SCRIPTS.items() if script.answer("年假"))
    repeated = dict.fromkeys(["429-once", "429-soon", "500-once", "502-once"], 2)
    repeated |= dict.fromkeys(["429", "500", "502", "503"], 3)
    failures = coded(
        provider_rejected="400 422 error-of-vllm",
        provider_filtered="400-filter 400-inspection content-filter sensitive",
        provider_unauthorized="401 402 403 429-quota",
        provider_not_found="404",
        provider_busy="429 429-later rate-limit-in-stream",
        provider_error=(
            "503-later 500 502 503 nothing error-at-once error-after-text error-named error-is-text "
            "counted-then-failed broken-json drop-at-once endless-line html"
        ),
        answer_too_long="length model-length",
        provider_truncated="network-error eof eof-close-delimited counted-then-dropped drop drop-in-a-line",
        provider_tools="tool-calls function-call",
        provider_empty="only-reasoning empty blank",
        provider_timeout="counted-then-silent silent no-headers drip-bytes",
        answer_timeout="comments-only silent-after-text drip",
    )

    def __init__(self, folder: Path) -> None:
        def make(address: str, timeout: float, grace: float) -> BaseRAGProvider:
            limits: dict[str, Any] = {"timeout": timeout, "backoff": 0.01, "end_grace": grace, "linger": grace}
            return openai_provider(base_url=address, api_key=KEY, model="m1", **limits)

        self.begin(openai.MockOpenAI(), make)

    def earlier(self, body: Mapping[str, Any]) -> Any:
        return [message["content"] for message in body["messages"][:-1]]


class CustomDriver(AnsweringDriver):
    answered = tuple(name for name, script in custom.SCRIPTS.items() if script.answer("年假"))
    repeated = dict.fromkeys(["429-once", "500-once", "502-once"], 2) | dict.fromkeys(["429", "500", "502"], 3)
    failures = coded(
        provider_rejected="400 422",
        provider_unauthorized="401",
        provider_not_found="404 redirect",
        provider_busy="429",
        provider_error=(
            "500 502 whole-cut whole-error html words nothing error-after-text error-after-usage "
            "error-event broken-json drop-at-once endless-line endless-body"
        ),
        provider_empty="empty whole-empty whole-other",
        provider_timeout="silent no-headers signs-of-life",
        answer_timeout="drip",
        provider_truncated="drop drop-in-a-line",
    )

    def __init__(self, folder: Path) -> None:
        def make(address: str, timeout: float, grace: float) -> BaseRAGProvider:
            limits: dict[str, Any] = {"timeout": timeout, "backoff": 0.01, "end_grace": grace, "linger": grace}
            return custom_provider(api_url=f"{address}/ask", api_key=KEY, **limits)

        self.begin(custom.MockCustom(), make)

    def earlier(self, body: Mapping[str, Any]) -> Any:
        return [words for turn in body["history"] for words in (turn["question"], turn["answer"])]


class OwnDriver(AnsweringDriver):
    """The example provider of docs/providers.md, with the client that it is built on."""

    counts_tokens = False
    answered = ("normal", "split-utf8", "500-once")
    repeated = dict.fromkeys(["429"], 3) | dict.fromkeys(["500-once"], 2)
    failures = coded(
        provider_rejected="400",
        provider_unauthorized="401",
        provider_not_found="404",
        provider_busy="429",
        provider_timeout="silent",
        answer_timeout="drip",
        provider_truncated="drop-in-a-line",
        provider_error="endless-line",
    )

    def __init__(self, folder: Path) -> None:
        (folder / f"{MODULE}.py").write_text(shown_file(), "utf-8")
        sys.path.insert(0, str(folder))
        shown = import_module(MODULE).Ollama

        def make(address: str, timeout: float, grace: float) -> BaseRAGProvider:
            provider: Any = shown()
            provider.url, provider.service = f"{address}/api", JSONService(ClientLimits(timeout, backoff=0.01))
            return provider  # type: ignore[no-any-return]

        self.begin(MockOllama(), make)

    def close(self) -> None:
        super().close()
        sys.path.pop(0)
        sys.modules.pop(MODULE, None)


class KeepingDriver(AnsweringDriver):
    """A plug-in whose service keeps its answers."""

    counts_tokens = False
    lost = "drop-in-a-line"
    answered, repeated, failures = OwnDriver.answered, OwnDriver.repeated, OwnDriver.failures

    def __init__(self, folder: Path) -> None:
        def make(address: str, timeout: float, grace: float) -> BaseRAGProvider:
            return Keeping(f"{address}/api", ClientLimits(timeout, backoff=0.01))

        self.begin(MockKeeping(), make)


class MockDriver(Driver):
    """The built-in mock provider, which calls no service; it fails only by its deadline."""

    answered = ("normal",)
    repeated = dict.fromkeys(["normal"], 0)
    drip = unauthorized = "normal"

    def __init__(self, folder: Path) -> None:
        """Do nothing: there is no service to start."""

    def provider(self, *, timeout: float = TIMEOUT, grace: float = TIMEOUT) -> BaseRAGProvider:
        return MockProvider(delay=0.0)

    def unreachable(self) -> BaseRAGProvider:
        return MockProvider(delay=0.0)

    def expected(self, question: str) -> str:
        return mock_answer(question)

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        return []

    @property
    def open_streams(self) -> int:
        return 0

    @property
    def connections(self) -> int:
        return 0

    def close(self) -> None:
        """Do nothing: there is no service to stop."""


#: By the provider's name. What the suite asks of each follows from its class.
DRIVERS: Mapping[str, type[Driver]] = {
    "dify": DifyDriver,
    "openai": OpenAIDriver,
    "custom": CustomDriver,
    "ollama": OwnDriver,
    "keeping": KeepingDriver,
    "mock": MockDriver,
}
#: The names of providers whose service can fail, and every provider with each of its scripts.
FAILING = [name for name, kind in DRIVERS.items() if kind.failures]
EVERY_SCRIPT = [(name, script) for name, kind in DRIVERS.items() for script in (*kind.answered, *kind.failures)]
#: Those that report tokens, and those that send earlier turns.
COUNTING = [name for name, kind in DRIVERS.items() if kind.counts_tokens]
SENDING_TURNS = [name for name, kind in DRIVERS.items() if kind.earlier is not Driver.earlier]
#: Those that find the answer of a run whose stream broke off.
RECOVERING = [name for name, kind in DRIVERS.items() if kind.lost]
