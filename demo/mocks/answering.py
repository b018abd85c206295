"""What the mock answer services share: who asked what, scripts by name, and a trip-wire for probes.

A service has one address that generates, and so costs; everything else about it is free to look at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from demo.mocks.answering_http import BAD_GATEWAY, AnsweringHandler, Asked, Script, Whole
from demo.mocks.dify.answers import marker
from demo.mocks.http import HttpMock

__all__ = ["BAD_GATEWAY", "Asked", "MockAnswering", "Script", "Whole"]


@dataclass
class MockAnswering(HttpMock, ABC):
    """The mock and what it saw. Every script ends within `limit` seconds, whatever the client does."""

    host: str = "127.0.0.1"
    port: int = 0
    #: The script of a question that names none.
    default: str = "normal"
    #: Seconds: between two pieces of an answer, between the pieces of a slow answer, at most in all.
    delay: float = 0.0
    slow: float = 0.02
    limit: float = 30.0
    #: The one key that is let in; "" lets any in.
    api_key: str = ""
    asked: list[Asked] = field(default_factory=list)
    #: What was looked at without asking: (path, Authorization).
    looks: list[tuple[str, str]] = field(default_factory=list)
    open_streams: int = 0
    peak_streams: int = 0

    #: The path whose requests cost.
    generating = ""

    def __post_init__(self) -> None:
        self._refused: Counter[str] = Counter()
        self.listen(self.host, self.port, AnsweringHandler)

    @abstractmethod
    def scripts(self) -> Mapping[str, Script]:
        """Return what it can do with a question, by name."""

    @abstractmethod
    def question(self, body: Mapping[str, Any]) -> str | None:
        """Return what a request asks, None where it is none."""

    def refused(self, body: Mapping[str, Any]) -> Whole | None:
        """Return the refusal of a request whose fields the service does not take, None where it takes them."""
        return None

    @abstractmethod
    def look(self, path: str) -> Whole | None:
        """Return what a free address answers, None where there is none."""

    @abstractmethod
    def refusal(self, status: int, code: str) -> Whole:
        """Return the service's own way to refuse."""

    def expected_answer(self, question: str) -> str:
        """Return the text a client must end up with, the present default considered."""
        return self.scripts()[marker(question) or self.default].answer(question)

    @contextmanager
    def costing_nothing(self) -> Iterator[None]:
        """Let the block do anything that costs nothing.

        Raises:
            AssertionError: it reached the address that generates.
        """
        before = len(self.asked)
        yield
        if len(self.asked) != before:
            raise AssertionError(f"{self.generating} was reached, which costs")

    def record(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def refuses(self, script: Script, question: str) -> bool:
        """Tell whether the script refuses this request, counting it."""
        if script.refusal is None:
            return False
        with self._lock:
            self._refused[question] += 1
            return script.refusals is None or self._refused[question] <= script.refusals

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count a stream for the block."""
        with self._lock:
            self.open_streams += 1
            self.peak_streams = max(self.peak_streams, self.open_streams)
        try:
            yield
        finally:
            with self._lock:
                self.open_streams -= 1
