"""Collects the events of one answer of a Dify app, and selects the lines to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

from services.providers.client.json_fields import mapping, mappings, text
from services.providers.dify.answer import DifyAnswer

#: All events of chat apps in Dify's documentation and in its versions so far.
KNOWN = frozenset(
    """
    message agent_message message_replace message_end message_file error agent_thought agent_log reasoning_chunk
    tts_message tts_message_end workflow_started workflow_finished workflow_paused node_started node_finished node_retry
    iteration_started iteration_next iteration_completed loop_started loop_next loop_completed
    parallel_branch_started parallel_branch_finished text_chunk text_replace
    human_input_required human_input_form_filled human_input_form_timeout
    """.split()  # noqa: SIM905 - names read better as words
)
#: Characters shown of a thought or a tool's reply: some contain whole documents.
_NOTE = 300
_UNTOLD = "Dify did not tell"
#: A line of the report: name and value.
Field = tuple[str, str]


class AnswerRecord:
    """The events and the answer of one question. Unknown or malformed events are counted and cause no error."""

    def __init__(self, root: str = "") -> None:
        """`root` is the API's address, the base of file paths that Dify sends without a host."""
        self._files = root.removesuffix("/v1") + "/"
        self._shown: set[str] = set()
        self.turn = DifyAnswer()
        self.counts: Counter[str] = Counter()
        self.answer = ""
        self.pings = 0
        #: Dify's own message of why the run failed.
        self.complaint = ""
        #: Seconds from the question to the first text (None in blocking mode), and to the end.
        self.first_word: float | None = None
        self.seconds = 0.0

    def notes(self, event: Mapping[str, Any]) -> Iterator[str]:
        """Count an event and yield the lines to print: agent steps and files, each once. The answer is not included."""
        name = text(event.get("event")) or "(without a name)"
        self.counts[name] += 1
        if name == "error":
            self.complaint = text(event.get("message")) or self.complaint
        if name == "workflow_finished":
            self.complaint = text(mapping(event.get("data")).get("error")) or self.complaint
        for note in self._notes(name, event):
            if note not in self._shown:
                self._shown.add(note)
                yield note

    def _notes(self, name: str, event: Mapping[str, Any]) -> Iterator[str]:
        if name == "agent_thought":
            yield from self._step(event)
        elif name == "message_replace":
            yield f"[message_replace] {text(event.get('reason')) or 'without a reason'}"
        elif name in ("message_file", "message_end") and event.get("belongs_to") != "user":
            for file in mappings(event.get("files")) if name == "message_end" else [event]:
                if url := text(file.get("url")) or text(file.get("remote_url")):
                    yield f"[file] {text(file.get('type')) or 'file'} {urljoin(self._files, url)}"

    def _step(self, event: Mapping[str, Any]) -> Iterator[str]:
        """Yield the filled parts of an agent's step. A thought that repeats the answer is skipped."""
        thought, tool = text(event.get("thought")).strip(), text(event.get("tool"))
        if thought and thought not in self.answer:
            yield f"[thought] {_short(thought)}"
        if tool:
            yield f"[tool] {tool} {_short(text(event.get('tool_input')))}".rstrip()
        if observation := text(event.get("observation")):
            yield f"[result] {_short(observation)}"

    def report(self) -> Iterator[Field]:
        """Yield the cost, ids, sources, events and times of the answer."""
        usage = self.turn.usage
        tokens = f"{usage.total_tokens} ({usage.prompt_tokens} prompt, {usage.completion_tokens} answer)"
        yield "tokens", tokens if usage.total_tokens else _UNTOLD
        yield "price", f"{usage.total_price} {usage.currency}" if usage.total_price else _UNTOLD
        for name in ("conversation_id", "message_id", "task_id", "run_id"):
            if found := getattr(self.turn.ids, name):
                yield name.removesuffix("_id"), found
        for place, source in enumerate(usage.sources, 1):
            yield f"source {place}", _source(source)
        yield "events", f"{self.counts.total()}: {_listed(self.counts)}"
        if unknown := Counter({name: n for name, n in self.counts.items() if name not in KNOWN}):
            yield "unknown", _listed(unknown)
        first = "" if self.first_word is None else f", {self.first_word:.2f} s to the first word"
        yield "time", f"{self.seconds:.2f} s{first}"

    def to_dict(self) -> dict[str, Any]:
        """Return the answer, its ids, cost and sources as a JSON object; times are in seconds."""
        usage, ids = self.turn.usage, self.turn.ids
        names = ("conversation_id", "message_id", "task_id", "run_id")
        return {
            "answer": self.answer,
            **{name: getattr(ids, name) for name in names},
            "usage": usage.known,
            "sources": [dict(source) for source in usage.sources],
            "events": dict(self.counts),
            "first_word": self.first_word,
            "seconds": self.seconds,
        }

    def summary(self) -> str:
        """Return the answer's length, time and cost."""
        first = "" if self.first_word is None else f", the first after {self.first_word:.2f} s"
        tokens = f", {self.turn.usage.total_tokens} tokens" if self.turn.usage.total_tokens else ""
        return f"{len(self.answer)} characters in {self.seconds:.2f} s{first}{tokens}"


def _short(words: str) -> str:
    flat = " ".join(words.split())
    return flat if len(flat) <= _NOTE else f"{flat[:_NOTE]}… ({len(flat)} characters)"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _source(source: Mapping[str, Any]) -> str:
    score = source.get("score")
    known = f"score {score:.2f}" if isinstance(score, (int, float)) else "no score"
    dataset = text(source.get("dataset_name")) or "a dataset without a name"
    return f"{text(source.get('document_name')) or 'a document without a name'}, {known}, from {dataset}"
