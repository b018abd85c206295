"""The sockets' JSON Schema: complete, exact, consistent with the document, and published."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator

from channels.web.pages.docs import FRAMES, docs_blueprint
from config.texts import ZH, Texts
from tests.support.sockets.frames import DOCUMENT, SCHEMA, SIDES, Example, examples, faults, kinds

DEFINED = [name for name in SCHEMA["$defs"] if name.count(".") == 2]
CODES = {"PROVIDER_TIMEOUT", "PROVIDER_ERROR"}
STREAM_ID = "aa65853a50e4ed54b013b58037014e5b"
NOW = "2026-11-21T03:56:55.361Z"


def test_the_schema_is_valid() -> None:
    """It is valid by JSON Schema 2020-12."""
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("side", SIDES)
def test_a_side_lists_all_its_frames(side: str) -> None:
    """Each side lists all frames whose names begin with its own."""
    named = {alternative["$ref"].removeprefix("#/$defs/") for alternative in SCHEMA["$defs"][side]["oneOf"]}

    assert named == {name for name in DEFINED if name.startswith(f"{side}.")}


@pytest.mark.parametrize("name", DEFINED)
def test_every_frame_has_a_description_and_an_example(name: str) -> None:
    """Each frame has a description in the schema and an example in the document."""
    assert SCHEMA["$defs"][name]["description"]
    assert name in {example.name for example in examples()}


@pytest.mark.parametrize("example", examples(), ids=str)
def test_every_example_is_valid_as_the_frame_it_names(example: Example) -> None:
    """The example is valid as the frame it is named, and as no other frame of its side."""
    side = example.name.rpartition(".")[0]

    assert faults(example.name, example.frame) == []
    assert kinds(side, example.frame) == [example.name]
    assert faults(side, example.frame) == []


@pytest.mark.parametrize("name", [name for name in DEFINED if ".server." in name])
def test_a_server_frame_has_no_other_members(name: str) -> None:
    """A server's frame has only members of the schema; a client's frame may have others."""
    shown = next(example.frame for example in examples() if example.name == name)

    assert faults(name, {**shown, "surprise": 1})


def test_a_client_frame_may_have_other_members() -> None:
    """Older clients send members of their own."""
    assert kinds("chat.client", {"type": "chat", "content": "hello", "client_id": "x", "timestamp": 1}) == [
        "chat.client.chat"
    ]


#: The frames of the original services' protocol that are kept, as their clients send them.
SENT_BY_OLD_CLIENTS: list[tuple[str, dict[str, Any]]] = [
    ("realtime", {"type": "asr_chunk", "text": "hello"}),
    ("realtime", {"type": "asr_chunk", "text": "hello", "is_final": True, "timestamp": 1, "session_id": "s"}),
    ("realtime", {"type": "control", "action": "pause"}),
    ("realtime", {"type": "control", "action": "resume", "session_id": "s"}),
    ("realtime", {"type": "control", "action": "stop"}),
    ("realtime", {"type": "control", "action": "instant_query"}),
    ("realtime", {"type": "keepalive"}),
    ("realtime", {"type": "keepalive", "session_id": "s"}),
    ("chat", {"type": "chat", "content": "hello"}),
    ("chat", {"content": "hello"}),
    ("chat", {"type": "ping", "timestamp": 1790000105}),
    ("chat", {"type": "ping", "timestamp": NOW}),
    ("chat", {"type": "pong", "timestamp": NOW}),
    ("chat", {"type": "offer", "sdp": ""}),
    ("chat", {"type": "ice-candidate", "candidate": {}}),
]


@pytest.mark.parametrize(("endpoint", "frame"), SENT_BY_OLD_CLIENTS, ids=str)
def test_frames_of_old_clients_are_still_valid(endpoint: str, frame: dict[str, Any]) -> None:
    """Each documented frame of the original clients is valid as exactly one of ours."""
    assert len(kinds(f"{endpoint}.client", frame)) == 1


#: The frames that the original clients read, with the members that their protocol names.
READ_BY_OLD_CLIENTS = [
    ("realtime.server.ack_connected", {"type": "ack", "message": "connected"}, {"session_id"}),
    ("realtime.server.ack", {"type": "ack"}, {"received_type", "session_id", "is_final", "message"}),
    ("realtime.server.status", {"type": "status"}, {"stage", "note", "question", "mode", "session_id"}),
    ("realtime.server.answer", {"type": "answer"}, {"stream_index", "content", "final", "session_id"}),
    ("realtime.server.error", {"type": "error"}, {"code", "message", "session_id"}),
    (
        "realtime.server.batch_progress",
        {"type": "batch_progress"},
        {"task_id", "progress", "status", "message", "timestamp"},
    ),
    ("chat.server.system", {"type": "system"}, {"content", "timestamp", "client_id"}),
    ("chat.server.chat_user", {"type": "chat", "role": "user"}, {"content", "client_id", "timestamp"}),
    ("chat.server.chat_assistant", {"type": "chat", "role": "assistant"}, {"content", "client_id", "timestamp"}),
    ("chat.server.typing", {"type": "typing"}, {"status"}),
    ("chat.server.pong", {"type": "pong"}, {"timestamp"}),
    ("chat.server.heartbeat", {"type": "heartbeat"}, {"timestamp"}),
    ("chat.server.error", {"type": "error"}, {"content"}),
]


@pytest.mark.parametrize(
    ("name", "fixed", "members"), READ_BY_OLD_CLIENTS, ids=[name for name, _, _ in READ_BY_OLD_CLIENTS]
)
def test_members_that_old_clients_read_are_kept(name: str, fixed: dict[str, str], members: set[str]) -> None:
    """The frame has its type as before, and every member that those clients read."""
    properties = SCHEMA["$defs"][name]["properties"]

    assert {key: properties[key].get("const") for key in fixed} == fixed
    assert members <= properties.keys()


def test_every_stage_of_the_originals_is_kept() -> None:
    """The nine stages are those of the original protocol."""
    stages = SCHEMA["$defs"]["realtime.server.status"]["properties"]["stage"]["enum"]

    assert set(stages) == {
        *("listening", "paused", "waiting_for_question", "analyzing", "instant_query"),
        *("querying_rag", "interrupting", "idle", "closed"),
    }


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("chat.client", {"type": "chat"}),
        ("chat.client", {"type": "chat", "content": " \n"}),
        ("chat.client", {"type": "chat", "content": 7}),
        ("chat.client", {"type": "chat", "content": "x" * 10_001}),
        ("chat.client", {"type": "chat", "content": "x", "id": ""}),
        ("chat.client", {"type": "chat", "content": "x", "id": "x" * 65}),
        ("chat.client", {"type": "chat", "content": "x", "conversation": "yes"}),
        ("chat.client", {"type": "chat", "content": "x", "render": "pdf"}),
        ("chat.client", {"type": "resume", "stream_id": STREAM_ID, "cursor": -1}),
        ("chat.client", {"type": "resume"}),
        ("chat.client", {"type": "feedback", "stream_id": STREAM_ID}),
        ("chat.client", {"type": "feedback", "stream_id": STREAM_ID, "rating": "love"}),
        ("chat.client", {"type": "feedback", "stream_id": STREAM_ID, "rating": "like", "content": "x" * 2001}),
        ("chat.client", {"type": "auth"}),
        ("chat.client", {"type": "asr_chunk", "text": "x"}),
        ("chat.client", ["chat"]),
        ("chat.server", {"type": "typing", "status": 1, "stream_id": STREAM_ID}),
        ("chat.server", {"type": "system", "content": "x", "client_id": "c", "timestamp": "today"}),
        ("chat.server", {"type": "error", "code": "not_upper", "content": "x"}),
        ("chat.server", {"type": "chat", "role": "user", "content": "x", "client_id": "c", "timestamp": NOW}),
        ("realtime.client", {"type": "asr_chunk", "text": "x", "is_final": "yes"}),
        ("realtime.client", {"type": "asr_chunk", "text": "x", "timestamp": "1"}),
        ("realtime.client", {"type": "asr_chunk"}),
        ("realtime.client", {"type": "control", "action": "dance"}),
        ("realtime.client", {"type": "subscribe"}),
        ("realtime.client", {"type": "unsubscribe", "task_id": ""}),
        ("realtime.server", {"type": "status", "stage": "thinking", "session_id": "s"}),
        ("realtime.server", {"type": "status", "stage": "idle"}),
        ("realtime.server", {"type": "answer", "stream_index": 0, "content": "x", "final": "no"}),
    ],
    ids=str,
)
def test_a_wrong_member_makes_a_frame_invalid(name: str, frame: Any) -> None:
    """A member that is missing, of a wrong type or beyond its limit makes a frame invalid."""
    assert faults(name, frame)


# The document


def test_every_documented_code_has_its_sentence() -> None:
    """Each code in the document's tables has a sentence in the texts."""
    cells = re.findall(r"^\| ((?:[A-Z_]+(?:, )?)+) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    codes = {code for cell in cells for code in cell.split(", ")}

    assert len(codes) >= 14
    assert {code.lower() for code in codes | CODES} - ZH.keys() == {"invalid_fields"}, (
        "whose sentence is in requests.py"
    )


# The published file


@pytest.fixture
def docs_client() -> Any:
    """A client of an application that serves only the documentation."""
    app = Flask(__name__)
    app.register_blueprint(docs_blueprint(name="Lai<b>ao", version="1.2.3", realtime_path="/ws/asr", texts=Texts("en")))
    return app.test_client()


def test_the_schema_is_published_unchanged(docs_client: Any) -> None:
    """/docs/websocket.json is the file, byte for byte."""
    reply = docs_client.get("/docs/websocket.json")

    assert (reply.status_code, reply.mimetype) == (200, "application/schema+json")
    assert reply.data == FRAMES.read_bytes()
    assert json.loads(reply.data) == SCHEMA
