"""The example provider of docs/providers.md, and a mock of the service that it calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo.mocks.answering import AnswerScript, MockAnswering, WholeReply
from demo.mocks.custom import server as mock_custom

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
