"""A company's own answer service to try things with: JSON in, JSON out, in each form a stream of it may have.

    with MockCustom() as service:
        requests.post(service.url, json={"question": "…"})

or `python -m demo.mock_custom --port 5003`. A question that holds `[[name]]` is answered by that script.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from demo.mocks.answering import BAD_GATEWAY, MockAnswering, Script, Whole
from demo.mocks.custom import plays
from demo.mocks.custom.plays import METADATA, Answer, Play
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.scripts import bytewise, crlf, no_answer, separators

LINES = "application/x-ndjson"


@dataclass
class MockCustom(MockAnswering):
    """One service at one path. `healthy` is what its health address says."""

    healthy: bool = True
    generating: str = "/ask"

    @property
    def url(self) -> str:
        """The full address that takes questions."""
        return self.address + self.generating

    def scripts(self) -> Mapping[str, Script]:
        return SCRIPTS

    def question(self, body: Mapping[str, Any]) -> str | None:
        question = body.get("question")
        return question if isinstance(question, str) else None

    def look(self, path: str) -> Whole | None:
        if path not in (f"{self.generating}/health", "/status"):
            return None
        return Whole.json({"status": "ok" if self.healthy else "down"}, 200 if self.healthy else 503)

    def refusal(self, status: int, code: str) -> Whole:
        return refusal(status, code)


def refusal(status: int, code: str) -> Whole:
    return Whole.json({"error": {"code": code, "message": "sk-secret in https://secret.example"}}, status)


def _script(play: Play, answer: Callable[[str], str] = answer_to, **options: Any) -> Script:
    said = answer_to if answer is no_answer else answer
    return Script(lambda asked, mock: play(Answer(asked, mock, said(asked.question))), answer, **options)


def _lined(play: Play, answer: Callable[[str], str] = answer_to, **options: Any) -> Script:
    return _script(play, answer, media=LINES, **options)


def _fails(play: Play, **options: Any) -> Script:
    return _lined(play, no_answer, **options)


def _refuses(refused: Whole, times: int | None = None) -> Script:
    return _lined(plays.lines, no_answer if times is None else answer_to, refusal=refused, refusals=times)


REFUSALS = {
    "400": refusal(400, "bad_question"),
    "401": refusal(401, "unauthorized"),
    "404": Whole(404, b"<html>Not Found</html>", "text/html"),
    "422": Whole.json({"detail": [{"loc": ["body", "question"], "msg": "field required"}]}, 422),
    "429": refusal(429, "rate_limit"),
    "500": Whole(500, b"Internal Server Error", "text/plain"),
    "502": BAD_GATEWAY,
    "redirect": Whole(302, b"", "text/html"),
}

SCRIPTS: dict[str, Script] = {
    "normal": _lined(plays.lines),
    "lines": _lined(plays.lines),
    "lines-bare": _lined(plays.lines_bare),
    "lines-as-json": _script(plays.lines, media="application/json"),
    "lines-as-events": _script(plays.lines),
    "lines-without-last-newline": _lined(plays.lines_without_last_newline),
    "lines-repeated": _lined(plays.lines_repeated),
    "lines-corrected": _lined(plays.lines_corrected),
    "lines-close-delimited": _lined(plays.lines, chunked=False),
    "both-fields": _lined(plays.both_fields),
    "events": _script(plays.events),
    "events-as-text": _script(plays.events, media="text/plain"),
    "events-bare": _script(plays.events_bare),
    "events-named": _script(plays.events_named),
    "events-done-bare": _script(plays.events_done_bare),
    "events-noisy": _script(plays.events_noisy),
    "events-split-utf8": _script(plays.events, cut=bytewise),
    "split-utf8": _lined(plays.lines, cut=bytewise),
    "crlf": _lined(plays.lines, cut=crlf),
    "events-crlf": _script(plays.events, cut=crlf),
    "separators": _lined(plays.lines, separators),
    "odd": _lined(plays.odd),
    "whole": _script(lambda answer: Whole.json(answer.whole())),
    "whole-content": _script(lambda answer: Whole.json(answer.whole("content"))),
    "whole-response": _script(lambda answer: Whole.json({"response": answer.text})),
    "whole-pretty": _script(lambda answer: Whole.json(answer.whole(answer=answer.text), indent=2)),
    "open-after-done": _script(plays.open_after_done),
    "open-after-last": _lined(plays.open_after_last),
    "slow": _lined(plays.lines),
    "empty": _fails(plays.empty),
    "whole-empty": _script(lambda answer: Whole.json({"answer": "", "metadata": METADATA}), no_answer),
    "whole-other": _script(lambda answer: Whole.json({"text": answer.text}), no_answer),
    "whole-cut": _script(lambda answer: Whole(200, b'{"answer": "half'), no_answer),
    "whole-error": _script(lambda answer: Whole.json({"error": "sk-secret"}), no_answer),
    "html": _script(lambda answer: Whole(200, b"<html><body>Welcome to nginx</body></html>", "text/html"), no_answer),
    "words": _script(lambda answer: Whole(200, answer.text.encode(), "text/plain"), no_answer),
    "nothing": _fails(plays.nothing),
    "error-after-text": _fails(plays.error_after_text),
    "error-after-usage": _fails(plays.error_after_usage),
    "error-event": _script(plays.error_event, no_answer),
    "broken-json": _fails(plays.broken_json),
    "silent": _fails(plays.silent),
    "no-headers": _fails(plays.silent, headers_after=float("inf")),
    "signs-of-life": _fails(plays.signs_of_life),
    "drip": _fails(plays.drip),
    "drop": _fails(plays.dead),
    "drop-at-once": _fails(plays.dead_at_once),
    "drop-in-a-line": _fails(plays.dead_in_a_line),
    "endless-line": _fails(plays.endless_line),
    "endless-body": _fails(plays.endless_body),
    **{name: _refuses(refused) for name, refused in REFUSALS.items()},
    **{f"{name}-once": _refuses(REFUSALS[name], 1) for name in ("429", "500", "502")},
}


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m demo.mock_custom", description="A mock of a company's service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5003)
    parser.add_argument("--default", choices=sorted(SCRIPTS), default="normal", help="what an ordinary question gets")
    parser.add_argument("--delay", type=float, default=0.06, help="seconds between two pieces of an answer")
    with MockCustom(**vars(parser.parse_args()), limit=600.0) as service:
        print(f"mock answer service at {service.url}, any key; scripts: {' '.join(sorted(SCRIPTS))}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
