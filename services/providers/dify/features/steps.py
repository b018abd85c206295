"""What a run of Dify is doing: the node of a chatflow that has started, or the tools that an agent uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.models import Step
from services.providers.client.json_fields import mapping, text

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
