"""Replies in OpenAI's shape: complete answers, chunks of a stream, and the members that both have."""

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
from services.streams.long_text import FullAnswer
from utils.citations import source_link, source_title

#: The finish reason of answers that end with these error codes; their text so far is the answer.
CUT = {"answer_too_long": "length", "provider_filtered": "content_filter"}


def finish_reason(end: Ended) -> str:
    """Return an answer's finish reason, "" where it failed."""
    return "stop" if end.full.status == "completed" else CUT.get(end.full.error_code, "")


def failure(end: Ended, texts: Texts) -> RestError:
    """Return the error of an answer that failed or was cancelled."""
    full = end.full
    code = "cancelled" if full.status == "cancelled" else full.error_code or "answer_failed"
    return openai_refusal(code, texts, sentence=end.sentence, retry_after=full.retry_after, limit=full.limit)


def cited_sources(full: FullAnswer, length: int) -> list[dict[str, Any]]:
    """Return the sources of an answer of `length` characters; each concerns all of it."""
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
        for source in full.sources
    ]


def usage(full: FullAnswer) -> dict[str, int]:
    figures = full.usage
    return {
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "total_tokens": figures.total_tokens,
    }


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """The members with which all parts of a reply begin."""

    stream_id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, full: FullAnswer, finish: str) -> dict[str, Any]:
        """Return a complete answer; raises the errors of `FullAnswer.text`."""
        thinking, content = thinking_and_answer(full.text)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        message |= {"reasoning_content": thinking} if thinking else {}
        message |= {"annotations": cited} if (cited := cited_sources(full, len(content))) else {}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(full)}

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, *, counts: bool) -> bytes:
        """Return one chunk as an event; where usage is sent at the end, every other chunk has none."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event(
            {**self._head("chat.completion.chunk"), "choices": [choice], **({"usage": None} if counts else {})}
        )

    def usage_chunk(self, full: FullAnswer) -> bytes:
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(full)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.stream_id}", "object": kind, "created": self.created, "model": self.model}


def error_chunk(error: RestError, texts: Texts) -> bytes:
    return event({"error": error_object(error, texts)})


def event(data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event. JSON has no line ends: one data line is enough."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
