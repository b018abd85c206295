"""The mock Dify's HTTP handler: reads requests, sends Dify's error replies, passes streams to the player."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from demo.mocks.dify.answers import marker
from demo.mocks.dify.error_replies import (
    INVALID_USER,
    NO_ADDRESS,
    NO_BLOCKING,
    NO_CONVERSATION,
    UNAUTHORIZED,
    MockErrorReply,
)
from demo.mocks.dify.features.files import FOLDER, file, is_signed
from demo.mocks.dify.features.uploads import read_upload
from demo.mocks.dify.look_ups import (
    LookUp,
    conversations,
    is_uuid,
    messages,
    rate,
    run_result,
    run_to_follow,
    suggested,
)
from demo.mocks.dify.player import Player, StreamClient, follow
from demo.mocks.dify.plays import Play
from demo.mocks.dify.scripts import SCRIPTS, DifyScript
from demo.mocks.dify.wire import METADATA, Run
from demo.mocks.http import ClientGone, Handler

if TYPE_CHECKING:
    from demo.mocks.dify.server import MockDify

_MAX_BODY = 1024 * 1024
#: Bytes of the largest upload, as of the proxy before Dify.
_MAX_UPLOAD = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A question as it was received, including rejected ones. `at` is a reading of the monotonic clock."""

    body: Mapping[str, Any]
    authorization: str
    at: float
    headers: Mapping[str, str]


class DifyHandler(Handler):
    mock: MockDify
    timeout = 60.0

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = time.time() + self.mock.clock_ahead
        return super().date_time_string(now if timestamp is None else timestamp)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.mock.calls[f"{self.command} {self.path}"] += 1

    def get(self) -> None:
        dify, address = self.mock, urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        if address.path.startswith(FOLDER):
            self._file(address.path.removeprefix(FOLDER), query)
            return
        if not self._authorized():
            self._send_error_reply(UNAUTHORIZED)
            return
        match address.path.split("/")[1:]:
            case ["v1", "info"]:
                self.reply({"name": "mock", "description": "", "tags": [], "mode": dify.mode, "author_name": "demo"})
            case ["v1", "parameters"]:
                opening = {"opening_statement": dify.opening, "suggested_questions": list(dify.begins_with)}
                self.reply({**opening, "user_input_form": dify.user_input_form})
            case ["v1", "messages"]:
                self._look_up("messages", query, lambda: messages(dify, query))
            case ["v1", "messages", message_id, "suggested"]:
                self._look_up("suggested", query, lambda: suggested(dify, message_id, query.get("user", "")))
            case ["v1", "conversations"]:
                self._look_up("conversations", query, lambda: conversations(dify, query))
            case ["v1", "workflows", "run", run_id]:
                self._look_up("run", query, lambda: run_result(dify, run_id))
            case ["v1", "form", "human_input", token]:
                self._look_up("form", query, lambda: dify.forms.find(token))
            case ["v1", "workflow", run_id, "events"]:
                self._look_up("events", query, lambda: run_to_follow(dify, run_id, query.get("user", "")))
            case _:
                self._send_error_reply(NO_ADDRESS)

    def _file(self, name: str, query: dict[str, str]) -> None:
        """Send a file by its signed address, which needs no key, while the signature is valid."""
        found = file(name)
        if not is_signed(name, query) or not self.mock.files_alive:
            self._send_error_reply(MockErrorReply.api(403, "forbidden", "File not found or signature is invalid"))
        elif found is None or not self.mock.gives(name):
            self._send_error_reply(NO_ADDRESS)
        else:
            named = f"attachment; filename*=UTF-8''{quote(found.name)}" if found.name else ""
            self.send(200, found.content, found.type, {"Content-Disposition": named} if named else {})

    def _look_up(
        self, kind: str, query: Mapping[str, str], find: Callable[[], MockErrorReply | dict[str, Any] | Run]
    ) -> None:
        dify = self.mock
        dify.record_look_up(LookUp(kind, query, self.authorization))
        match dify.outage or find():
            case MockErrorReply() as reply:
                self._send_error_reply(reply)
            case Run() as run:
                self._follow(run, snapshot=query.get("include_state_snapshot") == "true")
            case payload:
                self.reply(payload)

    def _follow(self, run: Run, *, snapshot: bool) -> None:
        dify = self.mock
        client = StreamClient(self.connection, limit=dify.limit)
        self._begin_stream(chunked=True)
        with dify.listening():
            bounds: dict[str, Any] = {"ping_every": dify.ping_every, "limit": dify.limit, "closing": dify.closing}
            follow(run, client, snapshot=snapshot, **bounds)

    def post(self) -> None:
        if self.path == "/v1/files/upload":
            self._upload()
            return
        body = self.json_body(_MAX_BODY)
        if not self._authorized():
            self._send_error_reply(UNAUTHORIZED)
        elif self.path == "/v1/chat-messages":
            self._chat(body)
        elif self.path.startswith("/v1/chat-messages/") and self.path.endswith("/stop"):
            self._stop(body)
        elif self.path.startswith("/v1/form/human_input/"):
            self._submit(self.path.split("/")[-1], body)
        elif self.path.startswith("/v1/messages/") and self.path.endswith("/feedbacks"):
            self._rate(body)
        else:
            self._send_error_reply(NO_ADDRESS)

    def _upload(self) -> None:
        dify, length = self.mock, int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, _MAX_UPLOAD))
        found = dify.refuses_uploads or read_upload(self.headers.get("Content-Type", ""), body)
        if not self._authorized():
            found = UNAUTHORIZED
        if isinstance(found, MockErrorReply):
            self._send_error_reply(found)
            return
        dify.store(found)
        self.reply(found.reply(), 201)

    def _authorized(self) -> bool:
        scheme, _, key = self.authorization.partition(" ")
        wanted = self.mock.api_key
        return scheme.lower() == "bearer" and bool(key) and (not wanted or key.split(" ")[0] == wanted)

    def _submit(self, token: str, body: Any) -> None:
        taken = self.mock.submit(token, body)
        if taken is None:
            self.reply({})
        else:
            self._send_error_reply(taken)

    def _stop(self, body: Any) -> None:
        user = body.get("user") if isinstance(body, dict) else None
        if not user:
            self._send_error_reply(INVALID_USER)
            return
        self.mock.stop(self.path.split("/")[-2], str(user))
        self.reply({"result": "success"})

    def _rate(self, body: Any) -> None:
        dify, message_id = self.mock, self.path.split("/")[-2]
        match dify.outage or rate(dify, message_id, body):
            case MockErrorReply() as reply:
                self._send_error_reply(reply)
            case payload:
                dify.record_rating(message_id, body, self.authorization)
                self.reply(payload)

    def _chat(self, body: Any) -> None:
        dify = self.mock
        # An empty object is a health check of the chat URL, not a question.
        if isinstance(body, dict) and body:
            dify.record(ReceivedRequest(body, self.authorization, time.monotonic(), dict(self.headers)))
        problem = _problem(body)
        files = dify.files_of(body) if problem is None else problem
        if isinstance(files, MockErrorReply):
            problem = files
        if problem is not None:
            self._send_error_reply(problem)
            return
        script = SCRIPTS.get(marker(body["query"]) or dify.default)
        if script is None:
            self._send_error_reply(MockErrorReply.api(400, "invalid_param", "no such script"))
            return
        play: Play | None = script.play
        named = body.get("conversation_id")
        if named and dify.conversations.get(named) != body["user"]:
            play = script.stale
        if script.error_reply is not None and dify.sends_error(script, body):
            self._send_error_reply(script.error_reply)
        elif play is None:
            self._send_error_reply(NO_CONVERSATION)
        elif body.get("response_mode") == "streaming":
            self._stream(script, play, dify.begin(script, body, answers=play is script.play))
        else:
            self._blocking(script, dify.begin(script, body))

    def _blocking(self, script: DifyScript, run: Run) -> None:
        # An agent app rejects blocking mode; the app's mode is set by the mock or by the script.
        error_reply = NO_BLOCKING.get(self.mock.mode) or NO_BLOCKING.get(script.mode)
        if error_reply is not None:
            self._send_error_reply(error_reply)
            return
        ids = {"task_id": run.task_id, "id": run.message_id, "message_id": run.message_id}
        run.end()
        reply = {"event": "message", **ids, "conversation_id": run.conversation_id, "mode": script.mode}
        self.reply(reply | {"answer": run.answer, "metadata": METADATA, "created_at": run.created_at})

    def _stream(self, script: DifyScript, play: Play, run: Run) -> None:
        dify = self.mock
        client = StreamClient(self.connection, limit=dify.limit, chunked=script.chunked, cut=script.cut)
        player, steps = Player(run, client, limit=dify.limit, closing=dify.closing), play(run)
        try:
            with dify.streaming():
                if not player.wait(script.headers_after):
                    self.close_connection = True
                    return
                self._begin_stream(chunked=script.chunked)
                self.close_connection = not (player.play(steps) and script.chunked)
        except (ClientGone, OSError):
            dify.left_alone(run, player, steps)
            raise

    def _begin_stream(self, *, chunked: bool) -> None:
        self.begin_stream("text/event-stream; charset=utf-8", chunked=chunked, headers={"Cache-Control": "no-cache"})

    def _send_error_reply(self, reply: MockErrorReply) -> None:
        challenge = {"WWW-Authenticate": 'Bearer realm="api"'} if reply.status == 401 else {}
        self.send(reply.status, reply.body, reply.content_type, challenge)


def _problem(body: Any) -> MockErrorReply | None:
    if not isinstance(body, dict):
        return MockErrorReply.api(400, "bad_request", "Failed to decode JSON object")
    if not isinstance(body.get("user"), str) or not body["user"]:
        return INVALID_USER
    if not isinstance(body.get("query"), str) or not isinstance(body.get("inputs"), dict):
        return MockErrorReply.api(400, "invalid_param", "query and inputs are required")
    if "conversation_id" in body and not is_uuid(body["conversation_id"]):
        return MockErrorReply.api(400, "invalid_param", "conversation_id must be a valid UUID")
    return None
