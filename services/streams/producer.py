"""One producer: turns a question into its finished stream, also when the provider fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.texts import Texts
from services import metrics
from services.attachments import Attached
from services.errors import AnswerError, AuthError, StoreUnavailable, StreamClosed
from services.metrics import currency_label
from services.models import (
    Attempt,
    Complete,
    Delta,
    Identity,
    Metadata,
    Mocked,
    ProviderIds,
    Question,
    Replacement,
    Usage,
)
from services.redis.store import Call
from services.streams.answer_events import (
    AnswerEvent,
    AnswerFiles,
    AppChosen,
    AskedBack,
    Asking,
    LateDelivery,
    Reserved,
    Resumed,
    StepNote,
    Suggested,
    Uploaded,
    Waiting,
    fingerprint,
    written_metadata,
    written_sources,
    written_usage,
)
from services.streams.owned_stream import LEAVING, OwnedStream
from services.streams.traces import AnswerTrace, Emit
from utils.citations import citation_lines
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Outcomes logged at WARNING, because an administrator cannot mend them: user or words not allowed, too many
#: questions, or a choice of a form that is over or not known.
OF_THE_PERSON = (
    *("unknown_user", "not_allowed", "turns_full", "forbidden_words", "quota_used"),
    *("form_answered", "form_expired", "form_gone"),
)

Answer = Callable[[Question, str, Deadline, Attempt | None], Iterator[AnswerEvent]]


@dataclass(frozen=True, slots=True)
class AnswerHandlers:
    """The handlers of every answer of a replica."""

    #: Yields the events of an answer.
    events: Answer
    #: Returns the keeper of an answer's files; None where they are not kept.
    files: Callable[[Question, OwnedStream], AnswerFiles | None]
    #: Sends late messages in the producers' threads, so that a drain waits for them and slots bound them.
    late: LateDelivery
    #: Returns the calls that settle what an ended stream has taken, by its id and a reader of its fields.
    settled: Callable[[str, Callable[[str], str]], Sequence[Call]]
    #: Takes the spans of answers; None where they are not traced.
    spans: Emit | None = None


class Producer:
    """Writes one answer into one stream."""

    def __init__(
        self,
        stream: OwnedStream,
        question: Question,
        handlers: AnswerHandlers,
        *,
        texts: Texts,
        attempt: Attempt | None = None,
        log_content: bool = False,
    ) -> None:
        """Take the stream and its question; `attempt` belongs to a stream that was taken over."""
        self._stream = stream
        self._question = question
        self._answer = handlers.events
        self._files = handlers.files(question, stream)
        self._late = handlers.late
        self._texts = texts
        self._past = attempt
        self._log_content = log_content
        self._spoke = attempt is not None
        #: The cause of a failed answer for its log line; an unexpected exception is logged with its traceback.
        self._cause = ""
        self._unexpected: Exception | None = None
        #: The sentence of a refusal that has one of its own; else that of the code is shown.
        self._sentence = ""
        self._usage = Usage()
        # A search reports its hits before the answer, and again with the answer's usage.
        self._sources_counted = 0
        spans = handlers.spans if question.trace.is_sampled else None
        self._trace = AnswerTrace(spans, stream, question, attempt) if spans else None

    def run(self) -> str:
        """Write the whole answer and its end; return the error's code, "" for none."""
        stream = self._stream
        code = ""
        if self._log_content:
            log.debug("question", extra={"content": self._question.text})
        self._grew(stream.text)
        events = self._answer(self._question, stream.stream_id, stream.deadline, self._past)
        try:
            for event in events:
                self._take(event)
        except StreamClosed as exc:
            return str(exc)
        except AnswerError as exc:
            code = self._code(exc)
        except StoreUnavailable as exc:
            code, self._cause = exc.code, str(exc)
            if stream.stalled:
                # Another replica takes the stream over when Redis is back, and continues the run at the provider.
                stream.deadline.abort("lost")
                stream.release()
                return "lost"
        except Exception as exc:
            self._unexpected = exc
            code = "answer_failed"
        finally:
            self._close(events)
        return self.end(code)

    def end(self, code: str = "") -> str:
        """End the stream, with the sentence of `code` unless it is ""; return the code."""
        if self._files:
            self._files.collect()
        overflows = self._overflows(code)
        if code:
            sentence = self._sentence or self._texts.error(code)
            self._stream.finish("error", error_code=code, sentence=sentence, overflows=overflows)
        else:
            self._stream.finish("completed", overflows=overflows)
        return code

    def deliver(self) -> None:
        """Send the late message, if the stream's end claimed it."""
        if self._stream.late:
            began = time.time_ns()
            outcome = self._late.deliver(self._question, self._stream)
            if self._trace:
                self._trace.delivered(outcome, began)

    def _overflows(self, code: str) -> bool:
        """Return whether the answer is larger than its frame; False where no address for the rest is known."""
        if not self._stream.field("reply"):
            return False
        try:
            return self._late.overflows(self._question, self._stream, code)
        except Exception:
            # The answer's end must not depend on it.
            log.exception("late message not prepared", extra={"stream_id": self._stream.stream_id})
            return False

    def report(self, outcome: str) -> None:
        """Write the stream's one canonical log line, at ERROR if the answer failed, and count its outcome."""
        outcome = outcome or "completed"
        seconds = self._stream.owned_seconds
        ids = {**self._stream.about, "channel": self._question.channel}
        ids |= {"app": app} if (app := self._stream.field("app")) else {}
        figures = {"outcome": outcome, "ms": round(seconds * 1000), **self._stream.figures, **self._cost}
        cause = {"cause": self._cause} if self._cause else {}
        log.log(self._level(outcome), "stream", extra={**ids, **figures, **cause}, exc_info=self._unexpected)
        if outcome not in LEAVING:
            metrics.STREAMS.labels(self._question.channel, outcome).inc()
            metrics.STREAM_SECONDS.labels(self._question.channel).observe(seconds)
        if self._trace:
            self._trace.ended(outcome, self._usage)

    def _level(self, outcome: str) -> int:
        if self._unexpected:
            return logging.ERROR
        if outcome in ("completed", "cancelled", *LEAVING):
            return logging.INFO
        return logging.WARNING if outcome in OF_THE_PERSON else logging.ERROR

    @property
    def _cost(self) -> dict[str, Any]:
        """Return the provider, its usage and the number of sources as log fields."""
        usage = self._usage
        tokens = {"tokens": usage.total_tokens, "prompt": usage.prompt_tokens, "completion": usage.completion_tokens}
        price = {"price": usage.total_price, "currency": usage.currency, "sources": len(usage.sources)}
        return {"provider": self._stream.field("provider"), **tokens, **price}

    def _close(self, events: Iterator[AnswerEvent]) -> None:
        """Close the answer's generator; an exception there must not keep the stream from its end."""
        try:
            events.close()  # type: ignore[attr-defined]
        except Exception:
            log.exception("answer not closed", extra={"stream_id": self._stream.stream_id})

    def _code(self, error: AnswerError) -> str:
        """Return the code of what ended the answer: the deadline comes before the provider's error."""
        stream, self._cause = self._stream, str(error)
        if isinstance(error, AuthError):
            stream.set(auth_state=error.code)
        self._sentence = error.sentence
        stream.set(**error.fields)
        if stream.deadline.over and not stream.deadline.aborted:
            return "answer_timeout"
        log.warning("answer error", extra={"stream_id": stream.stream_id, "code": error.code, "cause": str(error)})
        return error.code

    def _take(self, event: AnswerEvent) -> None:
        stream = self._stream
        if self._trace:
            self._trace.saw(event)
        match event:
            case Delta(text):
                self._note_first_text()
                stream.emit(text)
                self._grew(text)
                self._debug(text)
            case Replacement(text):
                stream.replace(text)
                self._grew(text)
            case ProviderIds():
                ids = {"conversation_id": event.conversation_id, "message_id": event.message_id}
                stream.set(**ids, task_id=event.task_id, run_id=event.run_id)
            case StepNote(title, soon):
                stream.mention(soon=soon, step=title)
            case AskedBack(choices):
                stream.mention(choices=choices)
            case Suggested(lines):
                # Written together with the end, so that the finished frame has them the first time it is shown.
                stream.mention(suggested=lines)
            case Waiting(waiting):
                stream.set(waiting="1" if waiting else "")
            case Identity():
                user_info = event.user.to_json() if event.user else ""
                stream.set(auth_state=event.state, user_info=user_info, token=fingerprint(event.token))
            case AppChosen(name):
                # Nothing depends on it before the first upload or request, and both are stored first.
                stream.mention(app=name)
            case Asking():
                self._note_asking(event)
            case Reserved(quotas):
                stream.set(quotas=quotas)
                stream.wait_stored()
            case Uploaded(files, names):
                self._note_upload(files, names)
            case Resumed():
                self._note_recovery(event)
            case Usage():
                self._note_usage(event)
            case Metadata(fields):
                stream.set(reported=written_metadata(fields))
            case Attached(files):
                if self._files:
                    self._files.attached(files)
            case Mocked():
                stream.set(mock="1")
            case Complete():
                # Written with the last chunk: if the owner is lost before the end, the next one need not ask again.
                stream.set(whole=str(stream.figures["bytes"]))

    def _grew(self, text: str) -> None:
        if self._files:
            self._files.grew(text)

    def _note_upload(self, files: tuple[str, ...], names: tuple[str, ...]) -> None:
        """Store the ids of uploaded files with the question, so that another owner does not upload them again."""
        is_new = files != self._question.files
        self._question = replace(self._question, files=files, file_names=names)
        self._stream.set(question=self._question.to_json())
        if is_new:
            self._stream.wait_stored()

    def _note_asking(self, asking: Asking) -> None:
        """Store the count of requests before the provider is asked, so that a crash cannot exceed the limit."""
        asks = {"asks": str(asking.asks), "asked_at": f"{time.time():.3f}", "provider": asking.provider}
        asks |= {"speaker": asking.speaker} if asking.speaker else {}
        # The ids of an earlier run are not those of this one.
        ids = {"message_id": asking.ids.message_id, "task_id": asking.ids.task_id, "run_id": asking.ids.run_id}
        # The pictures of an earlier run are not those of this one; a run that goes on keeps its own.
        attached = self._stream.field("attached") if asking.form else ""
        kept = {"attached": attached, "form": asking.form, "resets": asking.resets}
        kept |= {"choices": ""} if self._stream.field("choices") else {}
        self._stream.set(**asks, **ids, **kept, whole="", conversation_id=asking.conversation_id)
        self._stream.wait_stored()
        if asking.cause:
            metrics.REASKS.inc()
            log.warning("question asked again", extra={"cause": asking.cause, **self._owners})

    def _note_usage(self, usage: Usage) -> None:
        cited = citation_lines(usage.sources)
        self._stream.set(usage=written_usage(usage), sources=written_sources(usage.sources), cited=cited)
        self._usage = usage
        labels = (self._question.bot, self._stream.field("provider"))
        metrics.TOKENS.labels(*labels, "prompt").inc(usage.prompt_tokens)
        metrics.TOKENS.labels(*labels, "completion").inc(usage.completion_tokens)
        # Some providers report only a total, or a total that contains more than both parts.
        unsplit = usage.total_tokens - usage.prompt_tokens - usage.completion_tokens
        metrics.TOKENS.labels(*labels, "total").inc(max(0, unsplit))
        metrics.SOURCES.labels(*labels).inc(max(0, len(usage.sources) - self._sources_counted))
        self._sources_counted = max(self._sources_counted, len(usage.sources))
        if price := usage.price:
            metrics.PRICE.labels(*labels, currency_label(usage.currency)).inc(price)

    def _note_recovery(self, resumed: Resumed) -> None:
        metrics.RECOVERIES.labels(resumed.outcome, resumed.reason).inc()
        fields = {"outcome": resumed.outcome, "reason": resumed.reason, **self._owners}
        if resumed.outcome == "lost":
            log.warning("answer not recovered", extra={"cause": resumed.cause, **fields})
        else:
            log.info("answer recovered", extra=fields)

    @property
    def _owners(self) -> dict[str, Any]:
        return {
            "stream_id": self._stream.stream_id,
            "owner": self._stream.owner,
            "former_owner": self._past.owner if self._past else "",
        }

    def _note_first_text(self) -> None:
        if not self._spoke:
            self._spoke = True
            metrics.FIRST_TEXT_SECONDS.labels(self._question.channel).observe(self._stream.owned_seconds)

    def _debug(self, text: str) -> None:
        """Log the two lines that the original system documents for every piece of an answer."""
        if not log.isEnabledFor(logging.DEBUG):
            return
        shown = f"{text[:100]}..." if self._log_content else "***"
        log.debug("[调试] Dify返回内容块 (长度: %d): %s", len(text), shown)
        figures = self._stream.figures
        log.debug("[调试] 累计内容长度: %d, 消息队列长度: %d", len(self._stream.text), figures["chunks"])
