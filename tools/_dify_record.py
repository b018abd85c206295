"""What a Dify app tells beside its text: events, counted; thoughts and files, a line each; the bill at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

from services.models import ProviderIds, Usage
from services.providers.json_fields import mapping, mappings, text

#: Every event that Dify's documents or its versions so far know of a chat app.
KNOWN = frozenset(
    """
    message agent_message message_replace message_end message_file error agent_thought agent_log reasoning_chunk
    tts_message tts_message_end workflow_started workflow_finished workflow_paused node_started node_finished node_retry
    iteration_started iteration_next iteration_completed loop_started loop_next loop_completed
    parallel_branch_started parallel_branch_finished text_chunk text_replace
    human_input_required human_input_form_filled human_input_form_timeout
    """.split()  # noqa: SIM905 - names read better as words
)
#: Characters of a thought or a tool's reply that are shown: some hold whole documents.
_NOTE = 300
#: A line of the report: what it tells, and its value.
Field = tuple[str, str]


class Record:
    """Feed it each event; it takes any for what it should be, or for nothing."""

    def __init__(self, root: str = "") -> None:
        """`root` is the API's address: files that Dify names by their path alone lie beside it."""
        self._files = root.removesuffix("/v1") + "/"
        self._shown: set[str] = set()
        self.counts: Counter[str] = Counter()
        #: Why the run failed, in Dify's own words.
        self.complaint = ""

    def take(self, event: Mapping[str, Any], answer: str = "") -> Iterator[str]:
        """Count an event and yield what is worth a line: an agent's step or a file, each once; not what it answered."""
        name = text(event.get("event")) or "(without a name)"
        self.counts[name] += 1
        self.complaint = _complaint(name, event) or self.complaint
        for note in self._notes(name, event, answer):
            if note not in self._shown:
                self._shown.add(note)
                yield note

    def _notes(self, name: str, event: Mapping[str, Any], answer: str) -> Iterator[str]:
        if name == "agent_thought":
            yield from _thoughts(event, answer)
        elif name == "message_file" and event.get("belongs_to") != "user":
            yield from self._file(event, text(event.get("url")))
        elif name == "message_replace":
            yield f"[message_replace] {text(event.get('reason')) or 'without a reason'}"
        elif name == "message_end":
            for file in mappings(event.get("files")):
                yield from self._file(file, text(file.get("url")) or text(file.get("remote_url")))

    def _file(self, file: Mapping[str, Any], url: str) -> Iterator[str]:
        if url:
            yield f"[file] {text(file.get('type')) or 'file'} {urljoin(self._files, url)}"

    def fields(self) -> Iterator[Field]:
        """Yield how many events came, and those that nobody here knows."""
        yield "events", f"{self.counts.total()}: {_listed(self.counts)}" if self.counts else "0"
        if unknown := Counter({name: n for name, n in self.counts.items() if name not in KNOWN}):
            yield "unknown", _listed(unknown)


def _complaint(name: str, event: Mapping[str, Any]) -> str:
    if name == "error":
        return text(event.get("message"))
    return text(mapping(event.get("data")).get("error")) if name == "workflow_finished" else ""


def _thoughts(event: Mapping[str, Any], answer: str) -> Iterator[str]:
    """Yield a step's fields as far as they are filled; a last thought often repeats the answer."""
    thought, tool = text(event.get("thought")).strip(), text(event.get("tool"))
    if thought and thought not in answer:
        yield f"[thought] {_short(thought)}"
    if tool:
        yield f"[tool] {tool} {_short(text(event.get('tool_input')))}".rstrip()
    if observation := text(event.get("observation")):
        yield f"[result] {_short(observation)}"


def _short(words: str) -> str:
    flat = " ".join(words.split())
    return flat if len(flat) <= _NOTE else f"{flat[:_NOTE]}… ({len(flat)} characters)"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def bill(usage: Usage, ids: ProviderIds) -> Iterator[Field]:
    """Yield what an answer cost, its ids, and where it is from."""
    counted = f"{usage.total_tokens} ({usage.prompt_tokens} prompt, {usage.completion_tokens} answer)"
    yield "tokens", counted if usage.total_tokens else "Dify did not tell"
    yield "price", f"{usage.total_price} {usage.currency}" if usage.total_price else "Dify did not tell"
    for name in ("conversation_id", "message_id", "task_id", "run_id"):
        if found := getattr(ids, name):
            yield name.removesuffix("_id"), found
    for place, source in enumerate(usage.sources, 1):
        yield f"source {place}", _source(source)


def _source(source: Mapping[str, Any]) -> str:
    score = source.get("score")
    known = f"score {score:.2f}" if isinstance(score, (int, float)) else "no score"
    dataset = text(source.get("dataset_name")) or "a dataset without a name"
    return f"{text(source.get('document_name')) or 'a document without a name'}, {known}, from {dataset}"
