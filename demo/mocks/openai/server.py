"""A mock of an OpenAI-compatible server: its chat API over real HTTP, with answers scripted by the question.

    with MockOpenAI() as server:
        requests.post(f"{server.base_url}/chat/completions", …)

or `python -m demo.mock_openai --port 5002`. A question that contains `[[name]]` is answered by that script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demo.mocks.answering import BAD_GATEWAY, AnswerScript, MockAnswering, WholeReply
from demo.mocks.command import answering_arguments, serve_until_interrupted
from demo.mocks.dify.answers import answer_to
from demo.mocks.dify.scripts import bytewise, crlf, no_answer, separators
from demo.mocks.openai import faults, plays
from demo.mocks.openai.plays import MODEL, REFUSED, THOUGHT, Chat, Play


@dataclass
class MockOpenAI(MockAnswering):
    """One account with one model. If `takes_usage` is False, `stream_options` are rejected, as by older servers.

    `version` is the path before the API's endpoints, `query` the query string that each request must have.
    """

    takes_usage: bool = True
    version: str = "/v1"
    query: str = ""

    def __post_init__(self) -> None:
        self.generating = f"{self.version}/chat/completions{self.query}"
        super().__post_init__()

    @property
    def base_url(self) -> str:
        """The URL with the version."""
        return self.address + self.version

    def scripts(self) -> Mapping[str, AnswerScript]:
        return SCRIPTS

    def question(self, body: Mapping[str, Any]) -> str | None:
        messages = body.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        text = _said(last.get("content")) if isinstance(last, dict) and last.get("role") == "user" else None
        return text if isinstance(text, str) and isinstance(body.get("model"), str) else None

    def field_error(self, body: Mapping[str, Any]) -> WholeReply | None:
        """Return the error reply to a request with a field that this server does not know."""
        if "stream_options" not in body or self.takes_usage:
            return None
        return WholeReply.json({"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}, 422)

    def look(self, path: str) -> WholeReply | None:
        if path != f"{self.version}/models{self.query}":
            return None
        return WholeReply.json({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "demo"}]})

    def error_reply(self, status: int, code: str) -> WholeReply:
        return error_reply(status, code)


def _said(content: Any) -> Any:
    """Return a message's text: its content, or the first part of a content with pictures."""
    if not isinstance(content, list):
        return content
    known = all(isinstance(part, dict) and part.get("type") in ("text", "image_url") for part in content)
    return content[0].get("text") if content and known else None


def error_reply(status: int, code: str, kind: str = "invalid_request_error", *, retry_after: str = "") -> WholeReply:
    """Return an error reply in OpenAI's envelope."""
    error = {"message": "the mock refuses: sk-secret in https://secret.example", "type": kind, "param": None}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return WholeReply.json({"error": error | {"code": code}}, status, headers=headers)


def _script(play: Play, answer: Callable[[str], str] = answer_to, **options: Any) -> AnswerScript:
    said = answer_to if answer is no_answer else answer
    return AnswerScript(lambda asked, mock: play(Chat(asked, mock, said(asked.question))), answer, **options)


def _fails(play: Play, **options: Any) -> AnswerScript:
    return _script(play, no_answer, **options)


def _replies_with_error(reply: WholeReply, times: int | None = None) -> AnswerScript:
    return _script(plays.normal, no_answer if times is None else answer_to, error_reply=reply, error_times=times)


def _thinks(play: Play) -> AnswerScript:
    def ends_up(question: str) -> str:
        return f"<think>{THOUGHT}</think>{answer_to(question)}"

    return AnswerScript(lambda asked, mock: play(Chat(asked, mock, answer_to(asked.question))), ends_up)


def _cut_short(finish: str) -> AnswerScript:
    """Return a script that sends the answer's first piece and ends with this `finish_reason`."""
    play = plays.ends_with(finish)
    return AnswerScript(lambda asked, mock: play(Chat(asked, mock, answer_to(asked.question))), no_answer)


ERROR_REPLIES = {
    "400": error_reply(400, "context_length_exceeded"),
    "400-filter": error_reply(400, "content_filter"),
    "400-inspection": error_reply(400, "data_inspection_failed", "data_inspection_failed"),
    "401": error_reply(401, "invalid_api_key"),
    "402": error_reply(402, "insufficient_balance"),
    "403": error_reply(403, "unsupported_country"),
    "404": error_reply(404, "model_not_found"),
    "422": error_reply(422, "unprocessable"),
    "429-later": error_reply(429, "rate_limit_exceeded", "requests", retry_after="30"),
    "503-later": error_reply(503, "", "server_error", retry_after="30"),
    "429": error_reply(429, "rate_limit_exceeded", "requests"),
    "429-quota": error_reply(429, "insufficient_quota", "insufficient_quota"),
    "500": error_reply(500, "", "server_error"),
    "502": BAD_GATEWAY,
    "503": error_reply(503, "", "server_error"),
}

SCRIPTS: dict[str, AnswerScript] = {
    "normal": _script(plays.normal),
    "split-utf8": _script(plays.normal, cut=bytewise),
    "crlf": _script(plays.normal, cut=crlf),
    "close-delimited": _script(plays.normal, chunked=False),
    "separators": _script(plays.normal, separators),
    "cited": _script(plays.cited),
    "search-results": _script(plays.search_results),
    "choices-null": _script(plays.choices_null),
    "delta-null": _script(plays.delta_null),
    "usage-everywhere": _script(plays.usage_everywhere),
    "two-choices": _script(plays.two_choices),
    "parts": _script(plays.parts),
    "refusal": _script(plays.refusal, lambda question: REFUSED),
    "reasoning": _thinks(plays.reasoning("reasoning_content")),
    "thinking-parts": _thinks(plays.thinking_parts),
    "reasoning-short-name": _thinks(plays.reasoning("reasoning")),
    "closing-message": _thinks(plays.closing_message()),
    "closing-message-chunk": _thinks(plays.closing_message(kind="chat.completion.chunk")),
    "closing-message-adds": _thinks(plays.closing_message(1)),
    "closing-message-alone": _thinks(plays.closing_message(0)),
    "closing-message-trimmed": _script(plays.closing_message_trimmed, lambda question: f"\n\n{answer_to(question)}"),
    "closing-message-differs": _script(plays.closing_message_differs),
    "growing-messages": _script(plays.growing_messages),
    "message-pieces": _script(plays.message_pieces),
    "without-done": _script(plays.without_done),
    "without-finish": _script(plays.without_finish),
    "open-after-end": _script(plays.open_after_end),
    "open-after-done": _script(plays.open_after_done),
    "comments": _script(plays.comments),
    "keep-alive": _script(plays.keep_alive),
    "no-space": _script(plays.no_space),
    "glued": _script(plays.glued),
    "odd": _script(plays.odd),
    "whole": _script(lambda chat: chat.whole()),
    "slow": _script(plays.normal),
    "length": _cut_short("length"),
    "content-filter": _cut_short("content_filter"),
    "sensitive": _cut_short("sensitive"),
    "model-length": _cut_short("model_length"),
    "network-error": _cut_short("network_error"),
    "tool-calls": _fails(plays.tool_calls),
    "function-call": _fails(plays.function_call),
    "only-reasoning": _fails(plays.only_reasoning),
    "empty": _fails(faults.empty),
    "blank": _fails(faults.blank),
    "eof": _fails(faults.eof),
    "eof-close-delimited": _fails(faults.eof, chunked=False),
    "nothing": _fails(faults.nothing),
    "error-at-once": _fails(faults.error_at_once),
    "error-after-text": _fails(faults.error_after_text),
    "error-named": _fails(faults.error_named),
    "error-of-vllm": _fails(faults.error_of_vllm),
    "error-is-text": _fails(faults.error_is_text),
    "rate-limit-in-stream": _fails(faults.rate_limit_in_stream),
    "counted-then-dropped": _fails(faults.counted_then_dropped),
    "counted-then-failed": _fails(faults.counted_then_failed),
    "counted-then-silent": _fails(faults.counted_then_silent),
    "broken-json": _fails(faults.broken_json),
    "silent": _fails(faults.silent),
    "no-headers": _fails(faults.silent, headers_after=float("inf")),
    "comments-only": _fails(faults.comments_only),
    "silent-after-text": _fails(faults.silent_after_text),
    "drip": _fails(faults.drip),
    "drip-bytes": _fails(faults.drip_bytes),
    "drop": _fails(faults.drop),
    "drop-at-once": _fails(faults.drop_at_once),
    "drop-in-a-line": _fails(faults.drop_in_a_line),
    "endless-line": _fails(faults.endless_line),
    "html": _fails(faults.html),
    **{name: _replies_with_error(reply) for name, reply in ERROR_REPLIES.items()},
    "429-soon": _replies_with_error(error_reply(429, "rate_limit_exceeded", "requests", retry_after="1"), 1),
    **{f"{name}-once": _replies_with_error(ERROR_REPLIES[name], 1) for name in ("429", "500", "502")},
}


def main() -> None:
    """Serve until interrupted."""
    description = "A mock of the chat API."
    parser = answering_arguments("python -m demo.mock_openai", description, port=5002, scripts=SCRIPTS)
    with MockOpenAI(**vars(parser.parse_args()), limit=600.0) as server:
        serve_until_interrupted(
            f"mock model server on {server.base_url}, any key; scripts: {' '.join(sorted(SCRIPTS))}"
        )
