"""A mock of a company's own answer service: JSON requests and replies, in every form a stream may have.

    with MockCustom() as service:
        requests.post(service.url, json={"question": "…"})

or `python -m demo.mock_custom --port 5003`. A question that contains `[[name]]` is answered by that script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demo.mocks.answering import BAD_GATEWAY, AnswerScript, MockAnswering, WholeReply
from demo.mocks.command import answering_arguments, serve_until_interrupted
from demo.mocks.custom import plays
from demo.mocks.custom.plays import METADATA, Play, PlayedAnswer
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.scripts import bytewise, crlf, no_answer, separators

LINES = "application/x-ndjson"


@dataclass
class MockCustom(MockAnswering):
    """One service at one path. `healthy` sets the reply of its health path."""

    healthy: bool = True
    generating: str = "/ask"

    @property
    def url(self) -> str:
        """The URL that questions are posted to."""
        return self.address + self.generating

    def scripts(self) -> Mapping[str, AnswerScript]:
        return SCRIPTS

    def question(self, body: Mapping[str, Any]) -> str | None:
        question = body.get("question")
        return question if isinstance(question, str) else None

    def look(self, path: str) -> WholeReply | None:
        if path not in (f"{self.generating}/health", "/status"):
            return None
        return WholeReply.json({"status": "ok" if self.healthy else "down"}, 200 if self.healthy else 503)

    def error_reply(self, status: int, code: str) -> WholeReply:
        return error_reply(status, code)


def error_reply(status: int, code: str) -> WholeReply:
    return WholeReply.json({"error": {"code": code, "message": "sk-secret in https://secret.example"}}, status)


def _script(play: Play, answer: Callable[[str], str] = answer_to, **options: Any) -> AnswerScript:
    said = answer_to if answer is no_answer else answer
    return AnswerScript(lambda asked, mock: play(PlayedAnswer(asked, mock, said(asked.question))), answer, **options)


def _lined(play: Play, answer: Callable[[str], str] = answer_to, **options: Any) -> AnswerScript:
    return _script(play, answer, media=LINES, **options)


def _fails(play: Play, **options: Any) -> AnswerScript:
    return _lined(play, no_answer, **options)


def _replies_with_error(reply: WholeReply, times: int | None = None) -> AnswerScript:
    return _lined(plays.lines, no_answer if times is None else answer_to, error_reply=reply, error_times=times)


ERROR_REPLIES = {
    "400": error_reply(400, "bad_question"),
    "401": error_reply(401, "unauthorized"),
    "404": WholeReply(404, b"<html>Not Found</html>", "text/html"),
    "422": WholeReply.json({"detail": [{"loc": ["body", "question"], "msg": "field required"}]}, 422),
    "429": error_reply(429, "rate_limit"),
    "500": WholeReply(500, b"Internal Server Error", "text/plain"),
    "502": BAD_GATEWAY,
    "redirect": WholeReply(302, b"", "text/html"),
}

SCRIPTS: dict[str, AnswerScript] = {
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
    "whole": _script(lambda answer: WholeReply.json(answer.whole())),
    "whole-content": _script(lambda answer: WholeReply.json(answer.whole("content"))),
    "whole-response": _script(lambda answer: WholeReply.json({"response": answer.text})),
    "whole-pretty": _script(lambda answer: WholeReply.json(answer.whole(answer=answer.text), indent=2)),
    "open-after-done": _script(plays.open_after_done),
    "open-after-last": _lined(plays.open_after_last),
    "slow": _lined(plays.lines),
    "empty": _fails(plays.empty),
    "whole-empty": _script(lambda answer: WholeReply.json({"answer": "", "metadata": METADATA}), no_answer),
    "whole-other": _script(lambda answer: WholeReply.json({"text": answer.text}), no_answer),
    "whole-cut": _script(lambda answer: WholeReply(200, b'{"answer": "half'), no_answer),
    "whole-error": _script(lambda answer: WholeReply.json({"error": "sk-secret"}), no_answer),
    "html": _script(
        lambda answer: WholeReply(200, b"<html><body>Welcome to nginx</body></html>", "text/html"), no_answer
    ),
    "words": _script(lambda answer: WholeReply(200, answer.text.encode(), "text/plain"), no_answer),
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
    **{name: _replies_with_error(reply) for name, reply in ERROR_REPLIES.items()},
    **{f"{name}-once": _replies_with_error(ERROR_REPLIES[name], 1) for name in ("429", "500", "502")},
}


def main() -> None:
    """Serve until interrupted."""
    description = "A mock of a company's service."
    parser = answering_arguments("python -m demo.mock_custom", description, port=5003, scripts=SCRIPTS)
    with MockCustom(**vars(parser.parse_args()), limit=600.0) as service:
        serve_until_interrupted(f"mock answer service at {service.url}, any key", SCRIPTS)
