"""An answer as one JSON reply, as an error with an HTTP status and a stable reason, or as server-sent events.

Event ids are cursors, so that a client resumes with the last id it received.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from math import ceil
from typing import Any

from channels.following import AnswerWait, Ended, WaitStep
from channels.options import ThinkingMode
from channels.thinking import ShownText, text_members
from channels.waiting.connection import ClientConnection
from channels.web.errors import UNKNOWN_CODE, retry_headers, status_of_code
from channels.web.rest import STORE_CODE, RestError, enveloped
from config.texts import Texts
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from utils.formats.json_slices import json_pieces
from utils.thinking import Piece

#: Envelope codes that differ from the default of their HTTP status.
CODES = {
    "store_unavailable": STORE_CODE,
    "store_refused": STORE_CODE,
    "service_unavailable": STORE_CODE,
    "answer_failed": UNKNOWN_CODE,
    "server_error": UNKNOWN_CODE,
}
#: Bytes of the longest text a JSON reply holds in memory; a longer one is read from Redis while it is sent.
WHOLE_BYTES = 64 * 1024


MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

#: The id of the last event; a client that reconnects with it has the whole answer.
END = "end"
#: Seconds of silence after which a comment is sent to keep the connection open.
PING_SECONDS = 15.0
PING = b": ping\n\n"
#: Tells browsers to reconnect after 1000 ms.
RETRY = b"retry: 1000\n\n"

log = logging.getLogger(__name__)


def answered(
    stream_id: str, full: FullAnswer, *, thinking: ThinkingMode = "show", most: int = WHOLE_BYTES
) -> dict[str, Any]:
    """Return the data of a completed answer; a text longer than `most` bytes comes in slices.

    Raises:
        StreamUnknown, StoreUnavailable: a long text cannot be read to separate its thinking.
    """
    data = {
        "stream_id": stream_id,
        **text_members(full, thinking, most),
        "status": full.status,
        "sources": list(full.sources),
        "files": list(full.files),
        "suggestions": full.suggestions,
        "usage": full.usage.figures(),
        "metadata": full.metadata,
    }
    return {**data, "mock": True} if full.mock else data


def refusal(
    code: str, texts: Texts, *, sentence: str = "", retry_after: float = 0.0, limit: str = "", **data: object
) -> RestError:
    """Return the error reply of a code; `sentence` defaults to the text of the code.

    `retry_after` is the provider's Retry-After in seconds, 0.0 when it sent none; `limit` is as of `AnswerError.limit`.
    """
    seconds = ceil(retry_after)
    return RestError(
        status_of_code(code),
        sentence or texts.error(code),
        code=CODES.get(code, 0),
        reason=code,
        data={**data, "retry_after": seconds} if seconds else data,
        headers={"Cache-Control": "no-store", **retry_headers(code, retry_after, limit)},
    )


def failed(
    stream_id: str,
    full: FullAnswer,
    sentence: str,
    texts: Texts,
    *,
    thinking: ThinkingMode = "show",
    most: int = WHOLE_BYTES,
) -> RestError:
    """Return the error reply of an answer that was not completed, with its text so far; raises what `answered` does."""
    code = "cancelled" if full.status == "cancelled" else full.error_code or "answer_failed"
    data: dict[str, object] = {"stream_id": stream_id, **text_members(full, thinking, most)}
    cost = {"usage": full.usage.known} if full.usage.known else {}
    later, limit = full.retry_after, full.limit
    return refusal(code, texts, sentence=sentence, retry_after=later, limit=limit, **data, **cost)


class EventStream:
    """The body of a reply, to be iterated once. A client that did not get the event with id `END` must reconnect."""

    def __init__(
        self,
        stream_id: str,
        cursor: int,
        wait: AnswerWait,
        connection: ClientConnection,
        texts: Texts,
        *,
        thinking: ThinkingMode = "show",
        anew: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the client's cursor and the steps of the answer after it; with `anew` they begin with the text."""
        self._stream_id = stream_id
        self._cursor = cursor
        self._wait = wait
        self._connection = connection
        self._texts = texts
        self._thinking = thinking
        self._anew = anew
        self._text = ShownText(thinking)
        self._clock = clock
        self._sent_at = clock()

    def __iter__(self) -> Iterator[bytes]:
        yield RETRY + event("start", {"stream_id": self._stream_id}, self._cursor)
        if self._anew:
            yield RESET
        try:
            for step in self._wait.steps():
                if step is None and self._connection.gone:
                    return
                for sent in self._events(step):
                    self._sent_at = self._clock()
                    yield sent
        except (StreamUnknown, StoreUnavailable) as exc:
            yield self._error(refusal(exc.code, self._texts, stream_id=self._stream_id))
        except BrokenPipeError:
            # The server handles a broken reply.
            raise
        except Exception:
            log.exception("following an answer failed", extra={"stream_id": self._stream_id})
            yield self._error(refusal("server_error", self._texts, stream_id=self._stream_id))

    def _events(self, step: WaitStep) -> Iterator[bytes]:
        match step:
            case Update():
                yield from self._update(step)
            case Ended():
                yield from self._end(step)
            case _ if self._clock() - self._sent_at >= PING_SECONDS:
                yield PING

    def _update(self, update: Update) -> Iterator[bytes]:
        if update.reset:
            self._text = ShownText(self._thinking)
        text = "".join(chunk.content for chunk in update.chunks)
        pieces = self._text.feed(text)
        self._cursor = update.cursor
        if events := (RESET if update.reset else b"") + self._pieces(pieces):
            yield events

    def _pieces(self, pieces: Iterable[Piece]) -> bytes:
        """Return the events of a text's pieces."""
        events = b""
        for thinking, group in groupby(pieces, key=lambda piece: piece.thinking):
            text = "".join(piece.text for piece in group)
            if text:
                events += event("reasoning" if thinking else "delta", {"content": text}, self._cursor)
        return events

    def _end(self, end: Ended) -> Iterator[bytes]:
        """Yield the last event.

        Raises:
            BrokenPipeError: it broke off. The client discards an incomplete event and reconnects.
        """
        if rest := self._pieces(self._text.end()):
            yield rest
        yield from self._connection.unless_missing(self._last(end))

    def _last(self, end: Ended) -> Iterator[bytes]:
        if end.full.status == "completed":
            data = answered(self._stream_id, end.full, thinking=self._thinking, most=0)
            yield from event_pieces("done", data, END)
        else:
            error = failed(self._stream_id, end.full, end.sentence, self._texts, thinking=self._thinking, most=0)
            yield from event_pieces("error", self._enveloped(error), END)

    def _error(self, error: RestError) -> bytes:
        return b"".join(event_pieces("error", self._enveloped(error), END))

    def _enveloped(self, error: RestError) -> Mapping[str, Any]:
        return enveloped(error.data, status=error.status, code=error.code, message=error.message)


def event(name: str, data: Mapping[str, Any], id: int | str) -> bytes:
    """Return one event."""
    return b"".join(event_pieces(name, data, id))


def event_pieces(name: str, data: Mapping[str, Any], id: int | str) -> Iterator[bytes]:
    """Yield one event, in pieces if a text in it comes in slices. JSON has no line ends: one data line is enough."""
    waiting = f"id: {id}\nevent: {name}\ndata: ".encode()
    for number, piece in enumerate(json_pieces(data)):
        if number:
            yield waiting
            waiting = b""
        waiting += piece
    yield waiting + b"\n\n"


#: Tells the client to discard the text. It has id 0: a client that loses the connection before the new text resumes
#: from the beginning.
RESET = event("reset", {}, 0)
