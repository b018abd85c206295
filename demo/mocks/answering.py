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

from demo.mocks.answering_http import BAD_GATEWAY, AnsweringHandler, AnswerScript, ReceivedQuestion, WholeReply
from demo.mocks.dify.answers import marker
from demo.mocks.http import HttpMock

__all__ = ["BAD_GATEWAY", "AnswerScript", "MockAnswering", "ReceivedQuestion", "WholeReply"]


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
    asked: list[ReceivedQuestion] = field(default_factory=list)
    #: What was looked at without asking: (path, Authorization).
    looks: list[tuple[str, str]] = field(default_factory=list)

    #: The path whose requests cost.
    generating = ""

    def __post_init__(self) -> None:
        self._errors_sent: Counter[str] = Counter()
        self.listen(self.host, self.port, AnsweringHandler)

    @abstractmethod
    def scripts(self) -> Mapping[str, AnswerScript]:
        """Return what it can do with a question, by name."""

    @abstractmethod
    def question(self, body: Mapping[str, Any]) -> str | None:
        """Return what a request asks, None where it is none."""

    def field_error(self, body: Mapping[str, Any]) -> WholeReply | None:
        """Return the refusal of a request whose fields the service does not take, None where it takes them."""
        return None

    @abstractmethod
    def look(self, path: str) -> WholeReply | None:
        """Return what a free address answers, None where there is none."""

    @abstractmethod
    def error_reply(self, status: int, code: str) -> WholeReply:
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

    def record(self, asked: ReceivedQuestion) -> None:
        with self._lock:
            self.asked.append(asked)

    def sends_error(self, script: AnswerScript, question: str) -> bool:
        """Tell whether the script refuses this request, counting it."""
        if script.error_reply is None:
            return False
        with self._lock:
            self._errors_sent[question] += 1
            return script.error_times is None or self._errors_sent[question] <= script.error_times
