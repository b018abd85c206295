"""The example provider of docs/providers.md, one that recovers answers, and mocks of the services that they call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo.mocks.answering import AnswerScript, MockAnswering, WholeReply
from demo.mocks.custom import server as mock_custom
from services.errors import StreamBroken, Unrecoverable
from services.http.service import HTTPService
from services.models import Delta, ProviderEvent, ProviderIds, Query
from services.providers.base import BaseRAGProvider, Recovered
from services.providers.client.json_service import JSONService
from services.providers.client.limits import ClientLimits
from services.providers.recovery import Poller
from utils.deadline import Deadline

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"
MODULE = "my_provider"


def shown_file() -> str:
    """Return the document's Python file, as a reader would copy it."""
    (file,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(file)


@dataclass
class MockOllama(MockAnswering):
    """Ollama's native API: one JSON object a line, with its text in `response`."""

    generating: str = "/api/generate"

    def scripts(self) -> Mapping[str, AnswerScript]:
        return SCRIPTS

    def question(self, body: Mapping[str, Any]) -> str | None:
        prompt = body.get("prompt")
        return prompt if isinstance(prompt, str) else None

    def look(self, path: str) -> WholeReply | None:
        return WholeReply.json({"models": []}) if path == "/api/tags" else None

    def error_reply(self, status: int, code: str) -> WholeReply:
        return WholeReply.json({"error": "the mock refuses"}, status)


def _renamed(cut: Callable[[bytes], list[bytes]]) -> Callable[[bytes], list[bytes]]:
    return lambda data: cut(data.replace(b'"content"', b'"response"'))


#: The scripts of the custom provider's mock; the lines carry their text under Ollama's name.
SCRIPTS = {name: replace(script, cut=_renamed(script.cut)) for name, script in mock_custom.SCRIPTS.items()}
SCRIPTS["eof"] = SCRIPTS["drop-in-a-line"]


@dataclass
class MockKeeping(MockOllama):
    """The same service with the answers kept, also those whose stream broke off: `/api/answers/<id of the request>`."""

    def look(self, path: str) -> WholeReply | None:
        kept = {f"/api/answers/{asked.body['id']}": asked.body["prompt"] for asked in list(self.asked)}
        return WholeReply.json({"answer": self.expected_answer(kept[path])}) if path in kept else super().look(path)


class Keeping(BaseRAGProvider):
    """A provider of one's own whose service keeps answers by an id that the client chooses."""

    name = app = "keeping"

    def __init__(self, url: str, limits: ClientLimits) -> None:
        self._url = url
        self._service, self._http = JSONService(limits), HTTPService()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        chosen, done = f"answer-{abs(hash(query.text))}", False
        body = {"id": chosen, "prompt": query.text}
        with self._service.post(f"{self._url}/generate", body, headers={}, deadline=deadline) as records:
            yield ProviderIds(message_id=chosen)
            for record in records:
                yield Delta(str(record.fields.get("response", "")))
                done = record.fields.get("done", False)
        if not done:
            raise StreamBroken("the stream ended before the answer did", code="provider_truncated")

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        if not ids.message_id:
            raise Unrecoverable("the answer has no id")
        return Poller(deadline).poll(lambda: self._kept(ids.message_id, deadline))

    def _kept(self, message_id: str, deadline: Deadline) -> Recovered | None:
        url = f"{self._url}/answers/{message_id}"
        with self._http.exchange("GET", url, deadline=deadline, timeout=5.0, headers={}) as reply:
            kept = json.loads(reply.read_all(limit=65536, timeout=5.0)) if reply.status == 200 else {}
        return Recovered(kept["answer"]) if kept else None

    def health_check(self) -> bool:
        return self._service.is_healthy(f"{self._url}/tags", headers={})

    def close(self) -> None:
        self._service.close()
        self._http.close()
