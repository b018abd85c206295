"""The base of the mock answer services: recorded requests and scripts by name.

A service has one path that generates answers and so costs money. All its other paths are free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.mocks.answering_http import BAD_GATEWAY, AnsweringHandler, AnswerScript, ReceivedQuestion, WholeReply
from demo.mocks.dify.answers import marker
from demo.mocks.http import HttpMock

__all__ = ["BAD_GATEWAY", "AnswerScript", "MockAnswering", "ReceivedQuestion", "WholeReply"]


@dataclass
class MockAnswering(HttpMock, ABC):
    """A mock and the requests it received. Every script ends within `limit` seconds, whatever the client does."""

    host: str = "127.0.0.1"
    port: int = 0
    #: The script for questions that name none.
    default: str = "normal"
    #: Seconds between two pieces of an answer, between the pieces of a slow answer, and at most in all.
    delay: float = 0.0
    slow: float = 0.02
    limit: float = 30.0
    #: The only accepted key; "" accepts any.
    api_key: str = ""
    asked: list[ReceivedQuestion] = field(default_factory=list)
    #: GET requests to free paths: (path, Authorization).
    looks: list[tuple[str, str]] = field(default_factory=list)

    #: The path that generates answers.
    generating = ""

    def __post_init__(self) -> None:
        self._errors_sent: Counter[str] = Counter()
        self.listen(self.host, self.port, AnsweringHandler)

    @abstractmethod
    def scripts(self) -> Mapping[str, AnswerScript]:
        """Return the scripts by name."""

    @abstractmethod
    def question(self, body: Mapping[str, Any]) -> str | None:
        """Return the question in a request's body; None if there is none."""

    def field_error(self, body: Mapping[str, Any]) -> WholeReply | None:
        """Return the error reply to a request with unsupported fields; None if all are supported."""
        return None

    @abstractmethod
    def look(self, path: str) -> WholeReply | None:
        """Return the reply to a GET of a free path; None if the path is unknown."""

    @abstractmethod
    def error_reply(self, status: int, code: str) -> WholeReply:
        """Return an error reply in the service's own format."""

    def expected_answer(self, question: str) -> str:
        """Return the complete answer a client must have received, by the question's script or the current default."""
        return self.scripts()[marker(question) or self.default].answer(question)

    def record(self, asked: ReceivedQuestion) -> None:
        with self._lock:
            self.asked.append(asked)

    def sends_error(self, script: AnswerScript, question: str) -> bool:
        """Return whether this request gets the script's error reply, and count it."""
        if script.error_reply is None:
            return False
        with self._lock:
            self._errors_sent[question] += 1
            return script.error_times is None or self._errors_sent[question] <= script.error_times
