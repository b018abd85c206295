"""A mock of serper.dev over real HTTP: its search, its account, and the credits each search costs.

    with MockSerper() as serper:
        SerperSearch(api_key="any", base_url=serper.base_url)

or `python -m demo.mock_serper --port 5004`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from demo.mocks.command import mock_arguments, serve_until_interrupted
from demo.mocks.http import Handler, HttpMock

Behaviour = Literal[
    "normal", "slow", "drip", "hang", "unauthorized", "busy", "error", "no_credits", "empty", "malformed"
]

_ERRORS: dict[Behaviour, tuple[int, str]] = {
    "unauthorized": (403, "Unauthorized."),
    "busy": (429, "Too many requests"),
    "error": (500, "Internal server error"),
    "no_credits": (400, "Not enough credits"),
}


def results(query: str, num: int) -> list[dict[str, Any]]:
    """Return the organic results of a search for `query`."""
    return [
        {
            "title": f"{query} ({number})",
            "link": f"https://example.com/{number}",
            "snippet": f"What page {number} says about {query}.",
            "position": number,
        }
        for number in range(1, num + 1)
    ]


@dataclass
class MockSerper(HttpMock):
    """The mock and the requests it received. `behaviour` applies to all later requests."""

    host: str = "127.0.0.1"
    port: int = 0
    behaviour: Behaviour = "normal"
    #: Seconds that "slow" takes, and seconds between two bytes of "drip".
    delay: float = 1.0
    #: The only accepted key; "" accepts any.
    api_key: str = ""
    balance: int = 2500
    spent: int = 0
    #: The bodies of all searches, including failed ones.
    searches: list[dict[str, Any]] = field(default_factory=list)
    #: Method and path of every request.
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._scripted: tuple[int, bytes] | None = None
        self.listen(self.host, self.port, _SerperHandler)

    @property
    def base_url(self) -> str:
        return self.address

    def says(self, status: int, body: Any) -> None:
        """Answer every search with this status and body: bytes unchanged, anything else as JSON."""
        self._scripted = status, body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(self, method: str, path: str, key: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Record a request and return the reply's status and body."""
        with self._lock:
            self.requests.append((method, path))
        if (self.api_key and key != self.api_key) or self.behaviour == "unauthorized":
            return _message(*_ERRORS["unauthorized"])
        if (method, path) == ("GET", "/account"):
            return self._account()
        if (method, path) == ("POST", "/search"):
            return self._search(body)
        return _message(404, "Not Found")

    def _account(self) -> tuple[int, bytes]:
        if self.behaviour == "error":
            return _message(*_ERRORS["error"])
        left = 0 if self.behaviour == "no_credits" else self.balance - self.spent
        return 200, json.dumps({"balance": left, "rateLimit": 50}).encode()

    def _search(self, body: dict[str, Any]) -> tuple[int, bytes]:
        with self._lock:
            self.searches.append(body)
        if self.closing.wait({"slow": self.delay, "hang": None}.get(self.behaviour, 0.0)):
            raise ConnectionAbortedError("the mock is closing")
        if self._scripted:
            return self._scripted
        if self.behaviour in _ERRORS:
            return _message(*_ERRORS[self.behaviour])
        with self._lock:
            self.spent += 1
        if self.behaviour == "malformed":
            return 200, b"<html><body>Maintenance</body></html>"
        return 200, json.dumps(self._found(body), ensure_ascii=False).encode()

    def _found(self, body: dict[str, Any]) -> dict[str, Any]:
        query = str(body.get("q", ""))
        asked = {name: value for name, value in body.items() if name != "num"}
        found: dict[str, Any] = {"searchParameters": {**asked, "type": "search", "engine": "google"}}
        found["organic"] = [] if self.behaviour == "empty" else results(query, int(body.get("num", 10)))
        if found["organic"] and "weather" in query.lower():
            found["answerBox"] = {"title": "Weather", "answer": "21 °C, sunny", "link": "https://example.com/weather"}
        return {**found, "credits": 1}

    @property
    def byte_pause(self) -> float:
        """Seconds between two bytes of a reply."""
        return self.delay if self.behaviour == "drip" else 0.0

    def pause(self, seconds: float) -> bool:
        """Wait; return False if the mock is closing."""
        return not self.closing.wait(seconds)


def _message(status: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"message": message, "statusCode": status}).encode()


class _SerperHandler(Handler):
    mock: MockSerper

    def get(self) -> None:
        self._answer({})

    def post(self) -> None:
        body = self.json_body()
        self._answer(body if isinstance(body, dict) else {})

    def _answer(self, body: dict[str, Any]) -> None:
        serper = self.mock
        status, reply = serper.answer(self.command, self.path, self.headers.get("X-API-KEY", ""), body)
        if not serper.byte_pause:
            self.send(status, reply)
            return
        self.send_head(status, {"Content-Type": "application/json", "Content-Length": str(len(reply))})
        for place in range(len(reply)):
            self.wfile.write(reply[place : place + 1])
            if not serper.pause(serper.byte_pause):
                return


def main() -> None:
    """Serve until interrupted."""
    parser = mock_arguments("python -m demo.mock_serper", "A mock of serper.dev.", port=5004)
    parser.add_argument("--behaviour", choices=get_args(Behaviour), default="normal", help="what a search gets")
    with MockSerper(**vars(parser.parse_args())) as serper:
        serve_until_interrupted(f"mock Serper on {serper.base_url}, any key")
