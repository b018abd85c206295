"""Replies in OpenAI's shape: complete answers, chunks of a stream, and the members that both have.

A stream's chunks cannot be taken back: a digest of the text that was sent is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from channels.following import Ended, WaitStep
from channels.openai.errors import error_object, openai_refusal
from channels.thinking import thinking_and_answer
from channels.waiting.connection import ClientConnection
from channels.web.rest import RestError
from config.texts import Texts
from services.conversations.session_store import TextDigest
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from utils.citations import source_link, source_title
from utils.thinking import Piece, ThinkingStream

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


log = logging.getLogger(__name__)

#: Seconds of silence after which a comment is sent to keep the connection open.
PING_SECONDS = 15.0
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


class AnswerRun:
    """One request's part in a run."""

    def __init__(
        self, cancel: Callable[[], object], answered: Callable[[TextDigest], None], *, resumable: bool
    ) -> None:
        """`answered` keeps the conversation; a `resumable` run goes on without its client, which can return."""
        self._cancel = cancel
        self._answered = answered
        self._resumable = resumable
        self.ended = False

    def end(self, answer: TextDigest | None = None) -> None:
        """Note that the answer has ended, completed with the text of `answer` as the client sees it, or failed."""
        self.ended = True
        if answer:
            self._answered(answer)

    def leave(self) -> None:
        """Cancel the run, if its client goes away before the end and cannot come back."""
        if self.ended or self._resumable:
            return
        with suppress(StoreUnavailable):
            self._cancel()


class AnswerReplaced(Exception):
    """The answer was replaced by a text that does not begin with the text that was sent."""


class SentText:
    """Follows a stream's text and returns its new part. Keeps the length and the digest of the text that was sent."""

    def __init__(self) -> None:
        self._length = 0
        self._sent = hashlib.sha256()
        #: Of a text that replaces the one before: the characters that have to be equal still, and those that came.
        self._left = 0
        self._replayed = hashlib.sha256()

    def take(self, update: Update) -> str:
        """Return the text that the client has not got yet.

        Raises:
            AnswerReplaced: the text was replaced, and its beginning differs from the text that was sent.
        """
        if update.reset:
            self._left, self._replayed = self._length, hashlib.sha256()
        text = "".join(chunk.content for chunk in update.chunks)
        if self._left:
            known, text = text[: self._left], text[self._left :]
            self._left -= len(known)
            self._replayed.update(known.encode())
            if not self._left and self._replayed.digest() != self._sent.digest():
                raise AnswerReplaced
        self._length += len(text)
        self._sent.update(text.encode())
        return text

    def end(self) -> None:
        """Check that the ended text is not shorter than the text that was sent.

        Raises:
            AnswerReplaced: it is.
        """
        if self._left:
            raise AnswerReplaced


class CompletionStream:
    """The body of a reply, to be iterated once."""

    def __init__(
        self,
        head: ReplyHead,
        run: AnswerRun,
        steps: Iterable[WaitStep],
        connection: ClientConnection,
        texts: Texts,
        *,
        counts: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the steps of the answer from its beginning on; `counts` whether the usage is sent at the end."""
        self._head = head
        self._run = run
        self._steps = steps
        self._connection = connection
        self._texts = texts
        self._counts = counts
        self._clock = clock
        self._sent_at = clock()
        self._sent = SentText()
        self._thinking = ThinkingStream()
        self._length = 0
        self._digest = TextDigest()

    def __iter__(self) -> Iterator[bytes]:
        for sent in self._events():
            self._sent_at = self._clock()
            yield sent

    def _events(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        try:
            for step in self._steps:
                if self._connection.gone:
                    return
                yield from self._shown(step)
            if not self._run.ended:
                yield self._error("draining")
        except AnswerReplaced:
            yield self._error("answer_replaced")
        except (StreamUnknown, StoreUnavailable) as exc:
            yield self._error(exc.code)
        except BrokenPipeError:
            # The server handles a broken reply.
            raise
        except Exception:
            log.exception("following an answer failed", extra={"stream_id": self._head.stream_id})
            yield self._error("server_error")

    def _shown(self, step: WaitStep) -> Iterator[bytes]:
        match step:
            case Update():
                if text := self._sent.take(step):
                    yield from map(self._piece, self._thinking.feed(text))
            case Ended():
                yield from self._end(step)
            case _ if self._clock() - self._sent_at >= PING_SECONDS:
                yield PING

    def _end(self, end: Ended) -> Iterator[bytes]:
        finish = finish_reason(end)
        if not finish:
            self._run.end()
            yield error_chunk(failure(end, self._texts), self._texts)
            return
        self._sent.end()
        yield from map(self._piece, self._thinking.end())
        # Before the last chunk: the client may ask its next question as soon as it has this one.
        self._run.end(self._digest if finish == "stop" else None)
        cited = cited_sources(end.full, self._length)
        yield self._chunk({"annotations": cited} if cited else {}, finish)
        if self._counts:
            yield self._head.usage_chunk(end.full)
        yield DONE

    def _piece(self, piece: Piece) -> bytes:
        if piece.thinking:
            return self._chunk({"reasoning_content": piece.text})
        self._length += len(piece.text)
        self._digest.add(piece.text)
        return self._chunk({"content": piece.text})

    def _chunk(self, delta: dict[str, object], finish: str | None = None) -> bytes:
        return self._head.chunk(delta, finish, counts=self._counts)

    def _error(self, code: str) -> bytes:
        return error_chunk(openai_refusal(code, self._texts), self._texts)
