"""The state machine of one answer of a Dify app, without I/O. It decides when the answer is over.

Which events arrive, and which is the last, differs by app type and Dify version. All are handled alike: `message_end`
is success, `error` is a failure, `workflow_finished` may be either, and events may follow it. `workflow_paused` ends an
answer with its forms; it is a failure where a form cannot be answered in words. Pictures and files are `message_file`
events and the `files` of `message_end`; the running step is a chatflow's node that has started, or an agent's tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from services.attachments import AnswerFile, Attached
from services.errors import ConversationGone, ProviderError, StreamBroken
from services.models import Delta, ProviderEvent, ProviderIds, Replacement, Step, Usage
from services.providers.client.json_fields import count, mapping, mappings, price, text
from services.providers.dify.errors import paused_error, stream_error
from services.providers.dify.form_events import forms_of, is_form

#: Types of nodes that do no work of their own.
QUIET_NODES = ("start", "end", "answer")
#: Tools of one thought that are named.
MAX_TOOLS = 3
#: Dify's languages of a tool's label, by ours.
LANGUAGES = {"zh": "zh_Hans", "en": "en_US"}


def started_node(data: Mapping[str, Any]) -> Sequence[Step]:
    """Return the step of a `node_started` event's data; none for nodes without a title and for quiet ones."""
    title = text(data.get("title"))
    return (Step(title),) if title and data.get("node_type") not in QUIET_NODES else ()


def used_tools(event: Mapping[str, Any]) -> Sequence[Step]:
    """Return the step of an `agent_thought` event; none for a thought that uses no tool.

    The names of several tools are joined by semicolons. A label may be missing in a language, or altogether.
    """
    tools = [name for name in text(event.get("tool")).split(";") if name.strip()][:MAX_TOOLS]
    if not tools:
        return ()
    known = mapping(event.get("tool_labels"))
    labels = {ours: _joined(tools, known, theirs) for ours, theirs in LANGUAGES.items()}
    return (Step(", ".join(tools), labels),)


def _joined(tools: Sequence[str], labels: Mapping[str, Any], language: str) -> str:
    return ", ".join(text(mapping(labels.get(tool)).get(language)) or tool for tool in tools)


def answer_files(items: Iterable[Mapping[str, Any]]) -> tuple[AnswerFile, ...]:
    """Return the files that the app made; those that came with the question are left out."""
    return tuple(_read(item) for item in items if _address(item) and _is_answer(item))


def _read(item: Mapping[str, Any]) -> AnswerFile:
    is_picture = text(item.get("type")) == "image" or text(item.get("mime_type")).startswith("image/")
    return AnswerFile(_address(item), text(item.get("filename")), is_picture)


def _address(item: Mapping[str, Any]) -> str:
    return text(item.get("url")) or text(item.get("remote_url"))


def _is_answer(item: Mapping[str, Any]) -> bool:
    belongs_to = text(item.get("belongs_to"))
    # `message_end` lists a person's uploads too, without saying whose they are: these are local files.
    return belongs_to == "assistant" or (not belongs_to and text(item.get("transfer_method")) != "local_file")


#: running: read on · finishing, failing: the run is over, a last event may follow · done: stop reading.
DifyState = Literal["running", "finishing", "failing", "done"]
_Handler = Callable[[Mapping[str, Any]], Iterable[ProviderEvent]]


class DifyAnswer:
    """Call `take` with each event, and `close` at the stream's end."""

    def __init__(self) -> None:
        self.state: DifyState = "running"
        self.ids = ProviderIds()
        self.usage = Usage()
        self._pieces: list[str] = []
        #: The ids of the previous event: each event of a run repeats them, so most need no comparison of fields.
        self._last_ids: tuple[Any, ...] = ()
        self._from_agent = False
        self._has_files = False
        self._outputs_answer = ""
        self._form_events: list[Mapping[str, Any]] = []
        #: Whether the run has paused until a person answers its forms.
        self.paused = False
        self._handlers: Mapping[str, _Handler] = {
            "message": self._message,
            "agent_message": self._agent_message,
            "message_file": self._message_file,
            "message_replace": self._message_replace,
            "message_end": self._message_end,
            "error": self._error,
            "workflow_started": self._workflow_started,
            "workflow_finished": self._workflow_finished,
            "workflow_paused": self._workflow_paused,
            "node_started": _node_started,
            "agent_thought": _agent_thought,
            "human_input_required": self._human_input_required,
        }

    def take(self, event: Mapping[str, Any]) -> Iterable[ProviderEvent]:
        """Return the provider events of a Dify event. Speech and unknown events yield at most ids.

        Raises:
            ConversationGone: Dify does not know the conversation, and no text has arrived.
            ProviderError: the answer failed.
        """
        get = event.get
        ids = (get("conversation_id"), get("message_id"), get("task_id"), get("workflow_run_id"))
        handler = self._handlers.get(text(get("event")), _nothing)
        return handler(event) if ids == self._last_ids else self._with_new_ids(ids, handler, event)

    def _with_new_ids(
        self, ids: tuple[Any, ...], handler: _Handler, event: Mapping[str, Any]
    ) -> Iterator[ProviderEvent]:
        self._last_ids = ids
        names = ("conversation_id", "message_id", "task_id", "run_id")
        yield from self._learn_ids(**dict(zip(names, ids, strict=True)))
        yield from handler(event)

    @property
    def text(self) -> str:
        """The text so far. Joined on access, because appending to a string would copy it with each delta."""
        return "".join(self._pieces)

    def close(self) -> Iterator[ProviderEvent]:
        """Yield the remaining events after the stream has ended.

        Raises:
            StreamBroken: the stream ended before the answer did.
            ProviderError: the run failed, or the answer has no text.
        """
        if self.state == "failing":
            raise ProviderError("the workflow failed", code="provider_error")
        if self.state == "running":
            code = "provider_truncated" if self._pieces else "provider_error"
            raise StreamBroken("the stream ended before the answer did", code=code)
        if self.paused:
            return
        if not self._pieces and self._outputs_answer:
            yield self._append(self._outputs_answer)
        if not self._pieces and not self._has_files:
            raise ProviderError("the answer has no text", code="provider_empty")

    def _learn_ids(self, **found: Any) -> Iterator[ProviderEvent]:
        known = replace(self.ids, **{name: value for name, value in found.items() if value and isinstance(value, str)})
        if known != self.ids:
            self.ids = known
            yield known

    def _append(self, text: str) -> Delta:
        self._pieces.append(text)
        return Delta(text)

    def _message(self, event: Mapping[str, Any]) -> Sequence[ProviderEvent]:
        answer = text(event.get("answer"))
        # A `message` after `agent_message` events is the last one of a New Agent and repeats the complete answer.
        if self._from_agent:
            return (self._replacement(answer),) if answer and answer != self.text else ()
        return (self._append(answer),) if answer else ()

    def _agent_message(self, event: Mapping[str, Any]) -> Sequence[ProviderEvent]:
        self._from_agent = True
        answer = text(event.get("answer"))
        return (self._append(answer),) if answer else ()

    def _message_replace(self, event: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        yield self._replacement(text(event.get("answer")))
        if self._has_files:
            self._has_files = False
            yield Attached(())

    def _replacement(self, answer: str) -> Replacement:
        self._pieces = [answer] if answer else []
        return Replacement(answer)

    def _message_file(self, event: Mapping[str, Any]) -> Sequence[ProviderEvent]:
        return self._attach((event,))

    def _attach(self, items: Iterable[Mapping[str, Any]]) -> Sequence[ProviderEvent]:
        files = answer_files(items)
        self._has_files = self._has_files or bool(files)
        return (Attached(files),) if files else ()

    def _message_end(self, event: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        if self.state != "failing":
            yield from self._attach(mappings(event.get("files")))
            self.state = "done"
            self.usage = _usage(mapping(event.get("metadata")))
            yield self.usage

    def _error(self, event: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        error = stream_error(event)
        if isinstance(error, ConversationGone) and self._pieces:
            raise ProviderError(str(error), code="provider_error", http_status=error.http_status)
        raise error

    def _workflow_started(self, event: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        if not self.ids.run_id:
            yield from self._learn_ids(run_id=mapping(event.get("data")).get("id"))

    def _workflow_finished(self, event: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        run = mapping(event.get("data"))
        if run.get("status") == "paused":
            yield from self._workflow_paused(event)
            return
        self.state = "failing" if run.get("status") == "failed" else "finishing"
        self._outputs_answer = text(mapping(run.get("outputs")).get("answer"))

    def _human_input_required(self, event: Mapping[str, Any]) -> Sequence[ProviderEvent]:
        self._form_events.append(mapping(event.get("data")))
        return ()

    def _workflow_paused(self, event: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        # The reasons repeat the forms. They are needed where Dify's event bus has lost the forms' own events.
        reasons = [reason for reason in mappings(mapping(event.get("data")).get("reasons")) if is_form(reason)]
        forms = forms_of(self._form_events or reasons, self.ids, self.text)
        if not forms:
            raise paused_error()
        self.state, self.paused = "done", True
        yield from forms


def _node_started(event: Mapping[str, Any]) -> Sequence[Step]:
    return started_node(mapping(event.get("data")))


def _agent_thought(event: Mapping[str, Any]) -> Sequence[Step]:
    return used_tools(event)


def _nothing(_event: Mapping[str, Any]) -> Sequence[ProviderEvent]:
    return ()


def _usage(metadata: Mapping[str, Any]) -> Usage:
    usage = mapping(metadata.get("usage"))
    return Usage(
        total_tokens=count(usage.get("total_tokens")),
        prompt_tokens=count(usage.get("prompt_tokens")),
        completion_tokens=count(usage.get("completion_tokens")),
        total_price=price(usage.get("total_price")),
        currency=text(usage.get("currency")),
        sources=tuple(mappings(metadata.get("retriever_resources"))),
    )
