"""Replies in OpenAI's shape: whole answers, chunks of a stream, and what both say of the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from channels.following import Ended
from channels.openai.errors import error_object, openai_refusal
from channels.thinking import thinking_and_answer
from channels.web.rest import RestError
from config.texts import Texts
from services.streams.long_text import Whole
from utils.citations import source_link, source_title

#: The finish reason of answers that end with these error codes; their text so far is the answer.
CUT = {"answer_too_long": "length", "provider_filtered": "content_filter"}


def finish_reason(end: Ended) -> str:
    """Return an answer's finish reason, "" where it failed."""
    return "stop" if end.whole.status == "completed" else CUT.get(end.whole.error_code, "")


def failure(end: Ended, texts: Texts) -> RestError:
    """Return the error of an answer that failed or was cancelled."""
    whole = end.whole
    code = "cancelled" if whole.status == "cancelled" else whole.error_code or "answer_failed"
    return openai_refusal(code, texts, sentence=end.sentence, retry_after=whole.retry_after)


def cited_sources(whole: Whole, length: int) -> list[dict[str, Any]]:
    """Return the sources of an answer of `length` characters; each is one of the whole answer."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "title": source_title(source),
                "url": source_link(source.get("url")),
                "start_index": 0,
                "end_index": length,
            },
        }
        for source in whole.sources
    ]


def usage(whole: Whole) -> dict[str, int]:
    figures = whole.usage
    return {
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "total_tokens": figures.total_tokens,
    }


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What all parts of a reply begin with."""

    stream_id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, whole: Whole, finish: str) -> dict[str, Any]:
        """Return a whole answer; raises what `Whole.text` does."""
        thinking, content = thinking_and_answer(whole.text)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        message |= {"reasoning_content": thinking} if thinking else {}
        message |= {"annotations": cited} if (cited := cited_sources(whole, len(content))) else {}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(whole)}

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, *, counts: bool) -> bytes:
        """Return one chunk as an event; where usage is sent at the end, every other chunk has none."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event(
            {**self._head("chat.completion.chunk"), "choices": [choice], **({"usage": None} if counts else {})}
        )

    def usage_chunk(self, whole: Whole) -> bytes:
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(whole)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.stream_id}", "object": kind, "created": self.created, "model": self.model}


def error_chunk(error: RestError, texts: Texts) -> bytes:
    return event({"error": error_object(error, texts)})


def event(data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event. JSON has no line ends: one data line is enough."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
