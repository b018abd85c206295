"""One answer of an OpenAI-compatible server, record by record: a state machine without I/O.

Servers differ in what they leave out: `choices` may be missing, null or empty, `[DONE]` or `finish_reason` may never
come, `usage` may be in every record or in one after the last. What a model thinks comes in a field of its own, and
stands in front of the answer as `<think>…</think>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from services.errors import ProviderError
from services.models import Delta, ProviderEvent, ProviderIds, Told, Usage
from services.providers.json_fields import mapping, mappings, text
from services.providers.usage_fields import usage_of
from services.refusals import stream_error
from utils.json_records import Record

#: running: read on · finishing: the answer is over, its usage may follow · done: stop reading.
State = Literal["running", "finishing", "done"]

#: How an answer can end other than well, by its `finish_reason`; one that is not known is an end like `stop`.
_FAILURES = {
    "length": ("answer_too_long", "the model's limit of tokens ended the answer"),
    "content_filter": ("provider_rejected", "a content filter ended the answer"),
    "error": ("provider_error", "the model failed"),
    "abort": ("provider_truncated", "the server stopped"),
    "insufficient_system_resource": ("provider_truncated", "the server stopped"),
}


class OpenAITurn:
    """Feed it each record; at the stream's end, `close` says how it went."""

    def __init__(self) -> None:
        self.state: State = "running"
        self.usage = Usage()
        self._model = ""
        self._finish_reason = ""
        self._message_id = ""
        self._thinking = False
        self._said = False
        self._answered = False

    def take(self, record: Record) -> Iterator[ProviderEvent]:
        """Yield what a record tells us.

        Raises:
            ProviderError: the server says that it failed.
        """
        fields = record.fields
        if record.last:
            self.state = "done"
        if record.event == "error" or fields.get("error") or fields.get("object") == "error":
            raise stream_error(fields)
        yield from self._learn_id(text(fields.get("id")))
        self._model = text(fields.get("model")) or self._model
        if usage := mapping(fields.get("usage")):
            self.usage = usage_of(usage)
        for choice in mappings(fields.get("choices")):
            if not choice.get("index"):
                yield from self._take_choice(choice)

    def close(self) -> Iterator[ProviderEvent]:
        """Yield what is left when no record comes any more.

        Raises:
            ProviderError: the answer was cut off, ended badly, or is without a word.
        """
        yield from self._stop_thinking()
        yield from self._last_words()
        if self.state == "running":
            code = "provider_truncated" if self._said else "provider_error"
            raise ProviderError("the stream ended before the answer did", code=code)
        if self._finish_reason in _FAILURES:
            code, message = _FAILURES[self._finish_reason]
            raise ProviderError(message, code=code)
        if not self._answered:
            raise ProviderError("the answer has no text", code="provider_empty")

    def _last_words(self) -> Iterator[ProviderEvent]:
        told = {"model": self._model, "finish_reason": self._finish_reason}
        if known := {name: word for name, word in told.items() if word}:
            yield Told(known)
        if self.usage != Usage():
            yield self.usage

    def _learn_id(self, message_id: str) -> Iterator[ProviderEvent]:
        if message_id and not self._message_id:
            self._message_id = message_id
            yield ProviderIds(message_id=message_id)

    def _take_choice(self, choice: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        # A server that does not stream sends the whole message where a piece would be.
        piece = mapping(choice.get("delta")) or mapping(choice.get("message"))
        if thought := text(piece.get("reasoning_content")) or text(piece.get("reasoning")):
            yield self._think(thought)
        # A refusal is the model's own word to who asked, in the place of an answer.
        if said := _content(piece.get("content")) or text(piece.get("refusal")):
            yield from self._stop_thinking()
            yield self._answer(said)
        if reason := text(choice.get("finish_reason")):
            self._finish_reason = reason
            self.state = "done" if self.state == "done" else "finishing"

    def _think(self, thought: str) -> Delta:
        opening = "" if self._thinking else "<think>"
        self._thinking = self._said = True
        return Delta(opening + thought)

    def _stop_thinking(self) -> Iterator[ProviderEvent]:
        if self._thinking:
            self._thinking = False
            yield Delta("</think>")

    def _answer(self, said: str) -> Delta:
        self._said = True
        self._answered = self._answered or not said.isspace()
        return Delta(said)


def _content(value: Any) -> str:
    """Return a message's text, which may be a list of parts."""
    if isinstance(value, list):
        return "".join(text(part.get("text")) for part in mappings(value) if part.get("type") == "text")
    return text(value)
