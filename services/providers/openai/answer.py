"""The state machine of one answer of an OpenAI-compatible server, without I/O.

Servers differ in what they leave out: `choices` may be missing, null or empty, `[DONE]` or `finish_reason` may never
arrive, `usage` may be in every record or in one after the last, and the last record may repeat the complete message. A
model's thoughts arrive in a field of their own and are put before the answer as `<think>…</think>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from services.errors import ProviderError
from services.models import Delta, Metadata, ProviderEvent, ProviderIds, Replacement, Usage
from services.providers.client.errors import stream_error
from services.providers.client.json_fields import mapping, mappings, text, usage_of
from services.providers.client.record_stream import RecordState
from utils.formats.json_records import Record

_TOO_LONG = ("answer_too_long", "the model's limit of tokens ended the answer")
_FILTERED = ("provider_filtered", "a content filter ended the answer")
#: Sources of one answer at most.
_MOST_CITED = 100
#: Fields of a model's request for a tool call.
_CALLS = ("tool_calls", "function_call")
_STOPPED = ("provider_truncated", "the server stopped")
#: Code and message by the `finish_reason` of a failed answer. An unknown reason counts as `stop`.
_FAILURES = {
    "length": _TOO_LONG,
    "max_tokens": _TOO_LONG,
    "model_length": _TOO_LONG,  # Mistral
    "content_filter": _FILTERED,
    "sensitive": _FILTERED,  # Zhipu
    "error": ("provider_error", "the model failed"),
    "abort": _STOPPED,
    "network_error": _STOPPED,  # Zhipu
    "insufficient_system_resource": _STOPPED,  # DeepSeek
}


class OpenAIAnswer:
    """Call `take` with each record, and `close` at the stream's end."""

    def __init__(self) -> None:
        self.state: RecordState = "running"
        self.usage = Usage()
        self._model = ""
        self._finish_reason = ""
        self._message_id = ""
        #: Whether `<think>` has been opened and not closed yet.
        self._thinking = False
        #: Thoughts and answer so far, to compare with a message that repeats them.
        self._thoughts: list[str] = []
        self._words: list[str] = []
        self._calls_tools = False

    def take(self, record: Record) -> Iterator[ProviderEvent]:
        """Yield the events of a record.

        Raises:
            ProviderError: the record reports an error.
        """
        fields = record.fields
        if record.last:
            self.state = "done"
        if record.event == "error" or fields.get("error") or fields.get("object") == "error":
            raise stream_error(fields)
        if not self._message_id and (message_id := text(fields.get("id"))):
            self._message_id = message_id
            yield ProviderIds(message_id=message_id)
        self._model = text(fields.get("model")) or self._model
        if usage := mapping(fields.get("usage")):
            self.usage = replace(usage_of(usage), sources=self.usage.sources)
        self._cite(mappings(fields.get("search_results")))  # Perplexity
        for choice in mappings(fields.get("choices")):
            if not choice.get("index"):
                yield from self._take_choice(choice, complete=fields.get("object") == "chat.completion")

    def close(self) -> Iterator[ProviderEvent]:
        """Yield the remaining events after the stream has ended.

        Raises:
            ProviderError: the answer was cut off, ended in failure, or has no text.
        """
        yield from self.leave()
        if self.state == "running":
            code = "provider_truncated" if self._thoughts or self._words else "provider_error"
            raise ProviderError("the stream ended before the answer did", code=code)
        # Gemini appends details after a colon: "content_filter: PROHIBITED_CONTENT".
        if failure := _FAILURES.get(self._finish_reason.partition(":")[0]):
            raise ProviderError(failure[1], code=failure[0])
        if "".join(self._words).strip():
            return
        if self._calls_tools:
            raise ProviderError("the model requests tools, which are not run here", code="provider_tools")
        raise ProviderError("the answer has no text", code="provider_empty")

    def leave(self) -> Iterator[ProviderEvent]:
        """Yield the metadata and usage known so far, also for an answer that broke off."""
        yield from self._stop_thinking()
        known = {"model": self._model, "finish_reason": self._finish_reason}
        if facts := {name: word for name, word in known.items() if word}:
            yield Metadata(facts)
        if self.usage != Usage():
            yield self.usage

    def _take_choice(self, choice: Mapping[str, Any], *, complete: bool) -> Iterator[ProviderEvent]:
        """Read a choice's delta and message; `complete` is whether the record is a complete reply, not a chunk."""
        reason = text(choice.get("finish_reason"))
        delta, message = mapping(choice.get("delta")), mapping(choice.get("message"))
        self._calls_tools = self._calls_tools or any(piece.get(name) for piece in (delta, message) for name in _CALLS)
        self._cite([_citation(each) for piece in (delta, message) for each in mappings(piece.get("annotations"))])
        yield from self._add(*_words_of(delta))
        thought, words = _words_of(message)
        yield from self._take_message(thought, words, complete=complete, closing=complete or bool(reason))
        if reason:
            self._finish_reason = reason
            self.state = "done" if self.state == "done" else "finishing"

    def _cite(self, found: list[Mapping[str, Any]]) -> None:
        """Add the sources with an address that is not known yet: records repeat them."""
        known = {source["url"]: source for source in self.usage.sources}
        known |= {url: source for source in found if (url := text(source.get("url"))) and url not in known}
        if len(known) > len(self.usage.sources):
            self.usage = replace(self.usage, sources=tuple(known.values())[:_MOST_CITED])

    def _take_message(self, thought: str, words: str, *, complete: bool, closing: bool) -> Iterator[ProviderEvent]:
        """Append the part of a message that is not in the text so far.

        A server that does not stream sends the answer as one message, MiniMax repeats it at the end, others send a
        message that grows, or each piece as a message. A complete reply with a different text replaces the text.
        """
        if thought and not self._words:
            more = _addition("".join(self._thoughts), thought, closing=closing)
            yield from self._add(thought if more is None else more, "")
        more = _addition("".join(self._words), words, closing=closing)
        if more is None and complete:
            yield self._begin_anew(words)
        else:
            yield from self._add("", words if more is None else more)

    def _add(self, thought: str, words: str) -> Iterator[ProviderEvent]:
        if thought:
            opening = "" if self._thinking else "<think>"
            self._thinking = True
            self._thoughts.append(thought)
            yield Delta(opening + thought)
        if words:
            yield from self._stop_thinking()
            self._words.append(words)
            yield Delta(words)

    def _begin_anew(self, words: str) -> Replacement:
        self._thinking, self._words = False, [words]
        thoughts = "".join(self._thoughts)
        return Replacement(f"<think>{thoughts}</think>{words}" if thoughts else words)

    def _stop_thinking(self) -> Iterator[ProviderEvent]:
        if self._thinking:
            self._thinking = False
            yield Delta("</think>")


def _citation(annotation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the title, the address and, where a server sends it, the content of a cited page."""
    cited = mapping(annotation.get("url_citation")) or annotation
    return {name: text(cited.get(name)) for name in ("title", "url", "content") if text(cited.get(name))}


def _words_of(piece: Mapping[str, Any]) -> tuple[str, str]:
    """Return the thoughts and the answer text of a delta or message."""
    content = piece.get("content")
    thought = text(piece.get("reasoning_content")) or text(piece.get("reasoning")) or _parts(content, "thinking")
    words = _parts(content, "text") if isinstance(content, list) else text(content)
    # `refusal` is the model's own text to the user, in the place of an answer.
    return thought, words or text(piece.get("refusal"))


def _parts(content: Any, kind: str) -> str:
    """Join the texts of a message's content parts of one kind. Mistral's thinking parts contain text parts."""
    found = [part.get(kind) for part in mappings(content) if part.get("type") == kind]
    return "".join(_parts(each, "text") if isinstance(each, list) else text(each) for each in found)


def _addition(before: str, message: str, *, closing: bool) -> str | None:
    """Return the part of a message that follows `before`; None if the message does not start with it.

    A closing message may lack whitespace around the text, or the text's end.
    """
    if message.startswith(before):
        return message[len(before) :]
    if closing and before.strip().startswith(message.strip()):
        return ""
    if closing and message.lstrip().startswith(before.lstrip()):
        return message.lstrip()[len(before.lstrip()) :]
    return None
