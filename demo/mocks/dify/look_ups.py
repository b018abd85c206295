"""The mock Dify's replies about earlier questions: the history, a user's conversations, a run."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from demo.mocks.dify.answers import is_chinese
from demo.mocks.dify.error_replies import (
    INVALID_USER,
    NO_ADDRESS,
    NO_CONVERSATION,
    NO_MESSAGE,
    NO_RUN,
    NO_SUGGESTIONS,
    NOT_A_WORKFLOW,
    MockErrorReply,
)
from demo.mocks.dify.wire import SOURCE, Feedback, Run

if TYPE_CHECKING:
    from demo.mocks.dify.server import MockDify

#: The form of `outputs` in a run's result. It differs by Dify version; some have none.
Outputs = Literal["object", "string", "none"]


@dataclass(frozen=True, slots=True)
class LookUp:
    """A request about an earlier question; `kind` is messages, conversations, suggested, run, events or form."""

    kind: str
    query: Mapping[str, str]
    authorization: str


def messages(dify: MockDify, query: Mapping[str, str]) -> MockErrorReply | dict[str, Any]:
    """Return the latest rows of a conversation, oldest first."""
    conversation_id, limit = query.get("conversation_id", ""), int(query.get("limit", "20"))
    if not query.get("user"):
        return INVALID_USER
    if not is_uuid(conversation_id):
        return MockErrorReply.api(400, "invalid_param", "conversation_id must be a valid UUID")
    if not 1 <= limit <= 100:
        return MockErrorReply.api(400, "invalid_param", "limit must be between 1 and 100")
    if dify.conversations.get(conversation_id) != query["user"]:
        return NO_CONVERSATION
    turns = dify.runs.turns(conversation_id)
    rows = [_row(run, turns[place - 1] if place else None) for place, run in enumerate(turns)]
    return {"limit": limit, "has_more": len(rows) > limit, "data": rows[-limit:]}


def suggested(dify: MockDify, message_id: str, user: str) -> MockErrorReply | dict[str, Any]:
    """Return the questions suggested after a message; another user's message is reported as unknown."""
    if not user:
        return INVALID_USER
    run = dify.runs.find(message_id, user)
    if run is None or run.message_id != message_id:
        return NO_MESSAGE
    if dify.suggested is None:
        return NO_SUGGESTIONS
    dify.closing.wait(dify.suggested_after)
    english = () if is_chinese(run.query) else dify.suggested_in_english
    return {"result": "success", "data": list(english or dify.suggested)}


def conversations(dify: MockDify, query: Mapping[str, str]) -> MockErrorReply | dict[str, Any]:
    """Return a user's conversations, latest first, each named after its first question."""
    limit = int(query.get("limit", "20"))
    if not query.get("user"):
        return INVALID_USER
    if not 1 <= limit <= 100:
        return MockErrorReply.api(400, "invalid_param", "limit must be between 1 and 100")
    own = [name for name, user in dify.conversations.copy().items() if user == query["user"]]
    talks = [(name, turns) for name in own if (turns := dify.runs.turns(name))]
    # Sorted ascending and then reversed: of conversations of the same second, the one begun last comes first.
    oldest_first = sorted((_conversation(*talk) for talk in talks), key=lambda row: row["updated_at"])
    return {"limit": limit, "has_more": len(talks) > limit, "data": oldest_first[::-1][:limit]}


def _conversation(conversation_id: str, turns: list[Run]) -> dict[str, Any]:
    return {
        "id": conversation_id,
        "name": turns[0].query,
        "inputs": {},
        "status": "normal",
        "introduction": "",
        "created_at": turns[0].created_at,
        "updated_at": turns[-1].created_at,
    }


def is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _row(run: Run, parent: Run | None) -> dict[str, Any]:
    thought = {"id": "th1", "position": 1, "thought": run.final if run.in_thoughts else "", "tool": "", "files": []}
    return {
        "id": run.message_id,
        "conversation_id": run.conversation_id,
        "parent_message_id": parent.message_id if parent else None,
        "inputs": {},
        "query": run.query,
        "answer": "" if run.in_thoughts else run.saved,
        "status": run.message_status,
        "error": "Run failed" if run.message_status == "error" else None,
        "message_files": [],
        "feedback": {"rating": run.feedback.rating} if run.feedback else None,
        "retriever_resources": [SOURCE] if run.is_saved else [],
        "agent_thoughts": [thought] if run.in_thoughts else [],
        "created_at": run.created_at,
        "extra_contents": [],
        **_cost(run),
    }


def _cost(run: Run) -> Mapping[str, Any]:
    """Return the cost fields that Dify writes when it saves a message, or their defaults before that."""
    if not run.is_saved:
        nothing = {"message_tokens": 0, "answer_tokens": 0, "total_tokens": 0}
        return nothing | {"provider_response_latency": 0.0, "total_price": None, "currency": "USD"}
    return {
        "message_tokens": run.usage["prompt_tokens"],
        "answer_tokens": run.usage["completion_tokens"],
        "total_tokens": run.usage["total_tokens"],
        "provider_response_latency": run.usage["latency"],
        "total_price": run.usage["total_price"],
        "currency": run.usage["currency"],
    }


def rate(dify: MockDify, message_id: str, body: Any) -> MockErrorReply | dict[str, Any]:
    """Keep a user's rating of a message; null withdraws it. Another user's message is reported as unknown."""
    if not isinstance(body, dict) or not body.get("user"):
        return INVALID_USER
    rating, content = body.get("rating"), body.get("content")
    if rating not in ("like", "dislike", None) or not (content is None or isinstance(content, str)):
        return MockErrorReply.api(400, "invalid_param", "rating must be like, dislike or null")
    run = dify.runs.find(message_id, str(body["user"]))
    if run is None or run.message_id != message_id:
        return NO_MESSAGE
    if rating is None and run.feedback is None:
        return MockErrorReply.api(400, "invalid_param", "rating cannot be None when feedback not exists")
    run.feedback = Feedback(rating, content or "") if rating else None
    return {"result": "success"}


def run_result(dify: MockDify, run_id: str) -> MockErrorReply | dict[str, Any]:
    """Return a run's result. A run in progress has no outputs."""
    run = dify.runs.find(run_id)
    if dify.mode not in ("advanced-chat", "workflow"):
        return NOT_A_WORKFLOW
    if run is None:
        return NO_RUN
    working = run.status == "running"
    outputs: Any = None if working or dify.outputs == "none" else run.outputs
    return {
        "id": run.run_id,
        "workflow_id": "w1",
        "status": run.status,
        "inputs": json.dumps({"sys.query": run.query, "sys.user_id": run.user}, ensure_ascii=False),
        "outputs": json.dumps(outputs, ensure_ascii=False) if dify.outputs == "string" and outputs else outputs,
        "error": None,
        "total_steps": 4,
        "total_tokens": 0 if working else run.usage["total_tokens"],
        "created_at": run.created_at,
        "finished_at": None if working else int(time.time()),
        "elapsed_time": 12.3,
    }


def run_to_follow(dify: MockDify, run_id: str, user: str) -> MockErrorReply | Run:
    """Return the run whose event stream is requested; another user's run is reported as unknown."""
    if not dify.events:
        return NO_ADDRESS
    return (dify.runs.find(run_id, user) or NO_RUN) if user else INVALID_USER
