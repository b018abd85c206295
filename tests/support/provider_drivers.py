"""Drivers with one interface for every provider and the mock of its service; the contract suite runs on them."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from demo.mocks.answering import MockAnswering
from demo.mocks.custom.server import MockCustom
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from services.providers.base import BaseRAGProvider
from services.providers.client.asking_service import AskingService
from services.providers.custom.provider import CustomProvider
from services.providers.dify.provider import DifyProvider
from services.providers.mock import MockProvider, mock_answer
from services.providers.openai.provider import OpenAIProvider
from tests.support.own_provider import MODULE, MockOllama, shown_file
from tests.support.servers.processes import free_port

#: The API key of these tests: a fixed text, so that tests can search logs and requests for it.
KEY = "key-fake-0123456789"


class Driver(ABC):
    """One provider and the mock service that it calls."""

    #: Scripts of the mock that end in an error, by the error's code.
    faults: Mapping[str, str] = {}
    #: Whether it reports the tokens of an answer.
    counts_tokens = True
    #: Scripts that every mock has: no byte, an endless answer, an answer in single bytes, one 500 before the answer.
    silent, drip, bytewise, refused_once = "silent", "drip", "split-utf8", "500-once"

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Start the mock service; `folder` is for the files of this driver."""

    @abstractmethod
    def provider(self, *, timeout: float = 30.0) -> BaseRAGProvider:
        """Return a new provider that calls the mock."""

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

    def costing_nothing(self) -> AbstractContextManager[None]:
        """Fail if a request reaches the generating endpoint within the block."""
        return _unasked(self)

    def earlier(self, body: Mapping[str, Any]) -> Any:
        """Return the texts of earlier turns in a request's body, as one flat list."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Stop the mock service."""


@contextmanager
def _unasked(driver: Driver) -> Iterator[None]:
    before = len(driver.asked)
    yield
    assert len(driver.asked) == before, "the address that generates was reached, which costs"


class DifyDriver(Driver):
    drip, bytewise = "drip-events", "split-utf8"
    faults = {  # noqa: RUF012
        "provider_unauthorized": "401-unauthorized",
        "provider_busy": "429-too_many_requests",
        "provider_error": "endless-line",
        "provider_empty": "empty",
        "provider_truncated": "drop",
        "provider_timeout": "ping-only",
        "answer_timeout": "drip-events",
    }

    def __init__(self, folder: Path) -> None:
        self.far = MockDify(ping_every=0.02, slow=0.02).start()

    def provider(self, *, timeout: float = 30.0) -> BaseRAGProvider:
        return self._at(self.far.base_url, timeout)

    def unreachable(self) -> BaseRAGProvider:
        return self._at(f"http://127.0.0.1:{free_port()}", 30.0)

    def _at(self, url: str, timeout: float) -> BaseRAGProvider:
        return DifyProvider(base_url=url, api_keys=[KEY], timeout=timeout, backoff=0.01, linger=0.1)

    def expected(self, question: str) -> str:
        return self.far.expected_answer(question)

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        return [request.body for request in list(self.far.requests)]

    @property
    def open_streams(self) -> int:
        return self.far.open_streams

    def close(self) -> None:
        self.far.close()


class AnsweringDriver(Driver):
    """A provider whose mock is one of `demo.mocks.answering`; a subclass begins it with `begin`."""

    far: MockAnswering
    _make: Callable[[str, float], BaseRAGProvider]

    faults = {  # noqa: RUF012
        "provider_unauthorized": "401",
        "provider_not_found": "404",
        "provider_rejected": "400",
        "provider_busy": "429",
        "provider_error": "endless-line",
        "provider_empty": "empty",
        "provider_truncated": "drop-in-a-line",
        "provider_timeout": "silent",
        "answer_timeout": "drip",
    }

    def begin(self, far: MockAnswering, make: Callable[[str, float], BaseRAGProvider]) -> None:
        """Start the mock; `make` returns a provider of its address, with a longest silence in seconds."""
        self.far = far.start()
        self._make = make

    def provider(self, *, timeout: float = 30.0) -> BaseRAGProvider:
        return self._make(self.far.address, timeout)

    def unreachable(self) -> BaseRAGProvider:
        return self._make(f"http://127.0.0.1:{free_port()}", 30.0)

    def expected(self, question: str) -> str:
        return self.far.expected_answer(question)

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        return [asked.body for asked in list(self.far.asked)]

    @property
    def open_streams(self) -> int:
        return self.far.open_streams

    def costing_nothing(self) -> AbstractContextManager[None]:
        return self.far.costing_nothing()

    def close(self) -> None:
        self.far.close()


class OpenAIDriver(AnsweringDriver):
    name = "openai"

    def __init__(self, folder: Path) -> None:
        def make(address: str, timeout: float) -> BaseRAGProvider:
            return OpenAIProvider(
                name=self.name, base_url=address, api_key=KEY, model="m1", timeout=timeout, backoff=0.01, linger=0.1
            )

        self.begin(MockOpenAI(), make)

    def earlier(self, body: Mapping[str, Any]) -> Any:
        return [message["content"] for message in body["messages"][:-1]]


class ContextDriver(OpenAIDriver):
    name = "context"


class CustomDriver(AnsweringDriver):
    def __init__(self, folder: Path) -> None:
        def make(address: str, timeout: float) -> BaseRAGProvider:
            return CustomProvider(api_url=f"{address}/ask", api_key=KEY, timeout=timeout, backoff=0.01, linger=0.1)

        self.begin(MockCustom(), make)

    def earlier(self, body: Mapping[str, Any]) -> Any:
        return [words for turn in body["history"] for words in (turn["question"], turn["answer"])]


class OwnDriver(AnsweringDriver):
    """The example provider of docs/providers.md, with the client that it is built on."""

    faults = {name: script for name, script in AnsweringDriver.faults.items() if name != "provider_empty"}  # noqa: RUF012
    counts_tokens = False

    def __init__(self, folder: Path) -> None:
        (folder / f"{MODULE}.py").write_text(shown_file(), "utf-8")
        sys.path.insert(0, str(folder))
        shown = import_module(MODULE).Ollama

        def make(address: str, timeout: float) -> BaseRAGProvider:
            provider: Any = shown()
            provider.url, provider.service = f"{address}/api", AskingService(timeout=timeout, backoff=0.01)
            return provider  # type: ignore[no-any-return]

        self.begin(MockOllama(), make)

    def close(self) -> None:
        super().close()
        sys.path.pop(0)
        sys.modules.pop(MODULE, None)


class MockDriver(Driver):
    """The built-in mock provider, which calls no service; it fails only by its deadline."""

    silent = drip = bytewise = refused_once = "normal"

    def __init__(self, folder: Path) -> None:
        """Do nothing: there is no service to start."""

    def provider(self, *, timeout: float = 30.0) -> BaseRAGProvider:
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

    def close(self) -> None:
        """Do nothing: there is no service to stop."""


#: By the provider's name. What the suite asks of each follows from its class.
DRIVERS: Mapping[str, type[Driver]] = {
    "dify": DifyDriver,
    "openai": OpenAIDriver,
    "context": ContextDriver,
    "custom": CustomDriver,
    "ollama": OwnDriver,
    "mock": MockDriver,
}
#: The names of providers whose service can fail, and each with each of its faults.
FAILING = [name for name, kind in DRIVERS.items() if kind.faults]
EVERY_FAULT = [(name, code) for name, kind in DRIVERS.items() for code in kind.faults]
#: Those that report tokens, and those that send earlier turns.
COUNTING = [name for name, kind in DRIVERS.items() if kind.counts_tokens]
SENDING_TURNS = [name for name, kind in DRIVERS.items() if kind.earlier is not Driver.earlier]
