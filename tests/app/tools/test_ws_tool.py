"""`python -m tools.ws`: the frames it sends and waits for, its exit statuses, and that it never prints the key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.support.servers.processes import free_port, wait_until
from tests.support.servers.raw_server import RawServer
from tools import ws
from tools._ws.frames import AnswerLog, Pattern, Seen, frame_of, read_steps

ROOT = Path(__file__).parents[3]
KEY = "not-a-real-key-0123456789"
GREETING = {"type": "system", "content": "hello", "client_id": "c", "timestamp": "2026-11-21T03:56:55.361Z"}
WHOLE = {"type": "chat", "role": "assistant", "content": "一二", "stream_id": "s1", "status": "completed"}
ANSWER = [
    {"type": "chat", "role": "user", "content": "q", "stream_id": "s1"},
    {"type": "typing", "status": True, "stream_id": "s1"},
    {"type": "chat_delta", "stream_id": "s1", "cursor": 1, "content": "一"},
    {"type": "chat_delta", "stream_id": "s1", "cursor": 2, "content": "二"},
    WHOLE,
    {"type": "typing", "status": False, "stream_id": "s1"},
]


Captured = pytest.CaptureFixture[str]


class Endpoint:
    """A server of the test: it sends frames on connect, replies to each frame it receives, and closes after the last.

    A number among the frames is a close code.
    """

    def __init__(
        self, *greets: Any, replies: Callable[[dict[str, Any]], Iterable[Any]] = lambda frame: [], last: int = 0
    ) -> None:
        self.greets = greets
        self.replies = replies
        #: How many frames it receives before it closes; 0 for no limit.
        self.last = last
        self.received: list[dict[str, Any]] = []
        self.headers = Headers()
        self.path = ""
        self.close_codes: list[int | None] = []
        self.http_reply: Response | None = None

    def handle(self, connection: ServerConnection) -> None:
        assert connection.request
        self.headers, self.path = connection.request.headers, connection.request.path
        try:
            self._send(connection, self.greets)
            while True:
                self.received.append(json.loads(connection.recv()))
                self._send(connection, self.replies(self.received[-1]))
                if len(self.received) == self.last:
                    self._send(connection, [1000])
        except ConnectionClosed:
            self.close_codes.append(connection.close_code)

    def _send(self, connection: ServerConnection, frames: Any) -> None:
        for frame in frames:
            if isinstance(frame, int):
                connection.close(frame, "said so")
            else:
                connection.send(json.dumps(frame, ensure_ascii=False))

    def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers = request.headers
        return self.http_reply


@contextmanager
def opened(endpoint: Endpoint) -> Iterator[str]:
    """Serve an endpoint and return its URL without a path."""
    with serve(endpoint.handle, "127.0.0.1", 0, process_request=endpoint.process_request) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


def run(endpoint: Endpoint, *argv: str) -> int:
    """Run the tool against an endpoint and return its status, also after a usage error."""
    with opened(endpoint) as url:
        return status_of(*argv, "--url", url)


def status_of(*argv: str) -> int:
    try:
        return ws.main(argv)
    except SystemExit as exc:
        return int(exc.code or 0)


def answers(frame: dict[str, Any]) -> list[Any]:
    return ANSWER if frame.get("type") == "chat" else []


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation ends by a frame or a close, not because the machine is slow, and the environment has no key."""
    monkeypatch.setattr("tools._ws.talk.QUIET", 60.0)
    for name in ("LAIBAO_WS_KEY", "LAIBAO_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., list[str]]:
    """Write lines into a script and return the options that name it."""

    def write(*lines: object) -> list[str]:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "script.jsonl").write_text("\n".join(texts), "utf-8")
        return ["--script", str(tmp_path / "script.jsonl")]

    return write


# Expectations


def test_expected_frames_end_the_tool_with_success(capsys: Captured) -> None:
    """Patterns that arrive in their order end the tool with 0; frames are printed with their times."""
    endpoint = Endpoint(GREETING, replies=answers)

    assert (
        run(endpoint, "--send", "q", "--expect", "hello", "--expect", '{"role": "assistant", "status": "completed"}')
        == 0
    )

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(f"> {json.dumps(endpoint.received[0], ensure_ascii=False)}")
    assert any(line.lstrip()[0].isdigit() and " < " in line and '"一二"' in line for line in printed)
    assert endpoint.received == [{"type": "chat", "content": "q"}]
    assert endpoint.path == "/ws/chat"
    wait_until(lambda: endpoint.close_codes == [1000])


@pytest.mark.parametrize(
    "patterns",
    [
        ['{"type": "chat_delta", "cursor": 3}'],
        ['{"role": "assistant"}', '{"role": "user"}'],
        ["二", "no such words"],
    ],
)
def test_a_missing_frame_is_named(patterns: list[str], capsys: Captured) -> None:
    """At the end of the session, a missing frame or another order ends the tool with 1."""
    expects = [word for pattern in patterns for word in ("--expect", pattern)]

    assert run(Endpoint(GREETING, replies=answers, last=1), "--send", "q", *expects) == 1
    assert f"did not come: {patterns[-1]}" in capsys.readouterr().err


def test_an_expected_text_may_span_frames() -> None:
    """A text is found in an answer's deltas although no single frame contains it."""
    pieces = [{"type": "answer", "stream_id": "s", "content": piece, "final": False} for piece in ("年假", "申请")]

    assert run(Endpoint(*pieces), "--timeout", "60", "--expect", "年假申请") == 0


def test_without_expectations_it_ends_after_the_answer(
    monkeypatch: pytest.MonkeyPatch, script: Callable[..., list[str]], capsys: Captured
) -> None:
    """It ends when nothing has come for a while, but a pause during an answer does not end the conversation."""
    monkeypatch.setattr("tools._ws.talk.QUIET", 0.1)

    def thinks(frame: dict[str, Any]) -> Iterator[Any]:
        yield from ANSWER[:3]
        threading.Event().wait(0.4)
        yield from ANSWER[3:]

    chat = {"type": "chat", "content": "q"}
    assert run(Endpoint(replies=thinks), *script(chat, {"expect": {"type": "chat_delta"}})) == 0
    assert '"一二"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("endpoint", "argv", "complaint"),
    [
        (Endpoint(replies=lambda frame: ANSWER[:3], last=1), ["--send", "q"], "an answer did not come to its end"),
        (Endpoint(4409), ["--send", "q"], "closed with 4409"),
        (Endpoint(GREETING), ["--expect", "never", "--timeout", "0.4"], "did not come: never"),
        (Endpoint(GREETING, 4408), ["--expect", '{"type": "closed", "code": 4408, "reason": "said so"}'], ""),
    ],
    ids=["unfinished", "closed", "timeout", "expected close"],
)
def test_a_session_ends_with_what_was_wrong(
    endpoint: Endpoint, argv: list[str], complaint: str, capsys: Captured
) -> None:
    """The server's close counts as a frame with code and reason; an unexpected one other than 1000 is a failure."""
    assert run(endpoint, *argv) == (1 if complaint else 0)
    # A close that comes before the text is sent has a second line.
    assert capsys.readouterr().err.partition("\n")[0] == complaint


def test_a_rejected_frame_ends_it_at_once(capsys: Captured) -> None:
    """A frame or text of --reject ends the tool at once and is named."""
    endpoint = Endpoint(GREETING, replies=lambda frame: [*ANSWER[:3], {"type": "error", "code": "PROVIDER_TIMEOUT"}])

    options = ["--expect", "never", "--reject", '{"type": "error"}', "--timeout", "3600"]
    assert run(endpoint, "--send", "q", *options) == 1
    assert capsys.readouterr().err == 'came, and was not to: {"type": "error"}\n'
    assert run(Endpoint(GREETING, replies=answers, last=1), "--send", "q", "--reject", '{"type": "error"}') == 0


def test_every_frame_is_one_json_object(capsys: Captured) -> None:
    """--json prints time, direction and frame of each."""
    assert run(Endpoint(GREETING, replies=answers, last=1), "--json", "--send", "q") == 0

    *lines, closed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["frame"] for line in lines if line["direction"] == "out"] == [{"type": "chat", "content": "q"}]
    assert [line["frame"] for line in lines if line["direction"] == "in"] == [GREETING, *ANSWER]
    assert all(line["time"] >= 0 for line in lines)
    assert (closed["direction"], closed["frame"]["code"]) == ("closed", 1000)


# Sent frames


def test_a_script_waits_and_expects(script: Callable[..., list[str]]) -> None:
    """Lines are sent in order; `sleep` delays the next one, `expect` waits for a frame."""
    chat, stop = {"type": "chat", "content": "q"}, {"type": "stop"}
    endpoint = Endpoint(GREETING, replies=answers, last=2)

    lines = ["# a comment", "", chat, {"expect": {"type": "typing", "status": False}}, {"sleep": 0.05}, stop]
    assert run(endpoint, *script(*lines)) == 0
    assert endpoint.received == [chat, stop]


def test_a_script_whose_frame_is_missing_is_a_failure(script: Callable[..., list[str]], capsys: Captured) -> None:
    """The missing frame is named, and the later lines are not sent."""
    endpoint = Endpoint(GREETING)

    assert run(endpoint, *script({"expect": "never"}, {"type": "stop"}), "--timeout", "0.4") == 1
    assert "did not come: never" in capsys.readouterr().err
    assert endpoint.received == []


@pytest.mark.parametrize(
    ("argv", "frames", "path"),
    [
        (["--send", "q", "r"], [{"type": "chat", "content": "q"}, {"type": "chat", "content": "r"}], "/ws/chat"),
        (
            ["chat", "--send", "q", "--send", "r", "s", "--json"],
            [{"type": "chat", "content": text} for text in ("q", "r", "s")],
            "/ws/chat",
        ),
        (
            ["--send", "-", "--send=q", "--timeout", "60"],
            [{"type": "chat", "content": "-"}, {"type": "chat", "content": "q"}],
            "/ws/chat",
        ),
        (
            ["--resume", "s1:7", "--send", '{"type": "stop"}', "--client-id", "me"],
            [{"type": "resume", "stream_id": "s1", "cursor": 7}, {"type": "stop"}],
            "/ws/chat/me",
        ),
        (
            ["realtime", "--send", "年假怎么申请？"],
            [{"type": "asr_chunk", "text": "年假怎么申请？", "is_final": True}],
            "/ws/realtime-asr",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_texts_are_sent_in_order(argv: list[str], frames: list[dict[str, Any]], path: str) -> None:
    """--send takes one text or more, and may be repeated; --resume is sent first; an object is sent unchanged."""
    endpoint = Endpoint(last=len(frames))

    assert run(endpoint, *argv) == 0
    assert (endpoint.received, endpoint.path) == (frames, path)


@pytest.mark.parametrize(
    ("line", "endpoint", "frame"),
    [
        ("hello", "chat", {"type": "chat", "content": "hello"}),
        ("/stop", "chat", {"type": "stop"}),
        ("/stop", "realtime", {"type": "control", "action": "stop"}),
        ("/instant_query", "realtime", {"type": "control", "action": "instant_query"}),
        ("/keepalive", "realtime", {"type": "keepalive"}),
        ("/no way", "chat", {"type": "chat", "content": "/no way"}),
        ('{"type": "ping"}', "chat", {"type": "ping"}),
        ("{broken", "chat", {"type": "chat", "content": "{broken"}),
    ],
)
def test_a_line_is_a_frame(line: str, endpoint: str, frame: dict[str, Any]) -> None:
    """Text is a chat message, /word a command, a JSON object is sent unchanged."""
    assert frame_of(line, endpoint) == frame


# The key


@pytest.mark.parametrize("way", ["option", "environment"])
def test_the_key_is_sent_in_a_header_and_not_printed(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The key comes from the option or the environment; it is masked even if the server sends it back."""
    endpoint = Endpoint({"type": "system", "content": f"Bearer {KEY}"})
    if way == "environment":
        monkeypatch.setenv("LAIBAO_KEY", KEY)

    assert run(endpoint, "--expect", "system", *(["--key", KEY] if way == "option" else [])) == 0

    printed = capsys.readouterr()
    assert endpoint.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in printed.out + printed.err
    assert "Bearer ***" in printed.out


def test_the_key_is_sent_as_the_first_frame_if_asked_for(capsys: Captured) -> None:
    """A proxy may have removed the header."""
    endpoint = Endpoint({"type": "auth_required"}, replies=lambda frame: [GREETING])

    assert run(endpoint, "--key", KEY, "--expect", "hello") == 0
    assert endpoint.received == [{"type": "auth", "token": KEY}]
    assert KEY not in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        *(["--url", f"ws://127.0.0.1:1/ws/chat?{name}={KEY}"] for name in ("token", "API_KEY", "access_token")),
        ["--url", f"ws://me:{KEY}@127.0.0.1:1/"],
        ["--key", f"{KEY}\r\nX-Admin: 1"],
    ],
)
def test_a_key_in_the_wrong_place_is_a_usage_error(argv: list[str], capsys: Captured) -> None:
    """A key in the URL would be in logs, a line break in it could start another header; it is not printed."""
    assert status_of(*argv, "--send", "q") == 2
    assert KEY not in capsys.readouterr().err


# Failed connections


def test_the_service_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAIBAO_URL is the service's address, as for every tool."""
    endpoint = Endpoint(last=1)
    with opened(endpoint) as url:
        monkeypatch.setenv("LAIBAO_URL", f"http{url[2:]}")
        status_of("realtime", "--send", "年假")

    assert (endpoint.path, len(endpoint.received)) == ("/ws/realtime-asr", 1)


def test_a_rejected_handshake_is_printed(capsys: Captured) -> None:
    """Status, message and code of the reply are printed; the exit status is 3."""
    endpoint = Endpoint()
    body = json.dumps({"code": 401, "message": "The key is wrong", "data": None}).encode()
    endpoint.http_reply = Response(401, "Unauthorized", Headers({"Content-Length": str(len(body))}), body)

    assert run(endpoint, "--key", KEY, "--send", "q") == 3
    refusal = capsys.readouterr().err
    assert "refused: HTTP 401, The key is wrong (code 401)" in refusal
    assert "API_KEYS" in refusal


def test_a_failed_connection_is_one_line(capsys: Captured) -> None:
    """Close code 4401 names the variable of the key; a closed port and a server that speaks no HTTP are told apart."""
    port = free_port()

    assert run(Endpoint({"type": "auth_required"}, 4401), "--send", "q") == 3
    assert capsys.readouterr().err == "refused: no key was given: set LAIBAO_KEY\n"
    assert run(Endpoint({"type": "auth_required"}, 4401), "--send", "q", "--key", KEY) == 3
    assert capsys.readouterr().err.startswith("refused: the key is wrong, or no longer valid; LAIBAO_KEY")
    assert status_of("--url", f"ws://127.0.0.1:{port}", "--send", "q") == 3
    absent = capsys.readouterr().err
    assert absent.startswith(f"cannot connect to 127.0.0.1:{port}")
    assert "LAIBAO_URL" in absent
    with RawServer(b"220 mail\r\n") as server:
        assert status_of("--url", server.url.replace("http", "ws"), "--send", "q") == 3
    assert "opens no WebSocket there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["--url", "http://127.0.0.1/"],
        ["--url", "ws://"],
        ["--url", "ws://127.0.0.1:99999"],
        ["--resume", "s1"],
        ["--resume", ":1"],
        ["--resume", "s1:x"],
        ["--expect", "{broken"],
        ["--expect", " "],
        ["--timeout", "0"],
        ["--timeout", "soon"],
        ["--timeout", "inf"],
        ["--script", "/no/such/file"],
        ["realtime", "--client-id", "me"],
        ["telegraph"],
    ],
    ids=" ".join,
)
def test_a_usage_error_is_reported_before_connecting(argv: list[str]) -> None:
    """Invalid options end the tool with 2."""
    assert status_of(*argv, "--send", "q") == 2


@pytest.mark.parametrize("line", ["[1]", "{", '{"sleep": -1}', '{"sleep": "1"}', '{"expect": ""}', '{"expect": 1}'])
def test_a_wrong_line_of_a_script_is_named(line: str, script: Callable[..., list[str]], capsys: Captured) -> None:
    """A wrong script line is a usage error with its number; nothing is sent."""
    assert status_of(*script({"type": "ping"}, line)) == 2
    assert "line 2 of the script" in capsys.readouterr().err


# Standard input


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Replace standard input by a pipe; bytes written to the descriptor are typed."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield write
    # A test closes the descriptor to end the input.


def test_typed_lines_are_sent_and_the_last_answer_is_printed(keyboard: int) -> None:
    """After the end of the input, the running answer is still printed."""
    endpoint = Endpoint(GREETING, replies=answers, last=3)
    os.write(keyboard, "年假\n\n/ping\nlast".encode())
    os.close(keyboard)

    assert run(endpoint) == 0
    assert endpoint.received == [
        {"type": "chat", "content": "年假"},
        {"type": "ping"},
        {"type": "chat", "content": "last"},
    ]


def test_while_typing_heartbeats_are_answered_until_quit(keyboard: int) -> None:
    """Heartbeats are answered while the user types nothing; lines after /quit are not sent."""

    def quit_then(frame: dict[str, Any]) -> list[Any]:
        os.write(keyboard, b"/quit\nnever said\n")
        return []

    endpoint = Endpoint({"type": "heartbeat", "timestamp": GREETING["timestamp"]}, replies=quit_then)

    assert run(endpoint) == 0
    os.close(keyboard)
    assert endpoint.received == [{"type": "pong"}]


def test_a_script_does_not_answer_heartbeats(script: Callable[..., list[str]]) -> None:
    """A script sends only its own lines."""
    endpoint = Endpoint({"type": "heartbeat", "timestamp": GREETING["timestamp"]}, last=1)

    assert run(endpoint, *script({"expect": "heartbeat"}, {"sleep": 0.3}, {"type": "stop"})) == 0
    assert endpoint.received == [{"type": "stop"}]


def test_ctrl_c_ends_it_cleanly() -> None:
    """SIGINT closes the connection with 1000 and prints no traceback; the status is 130."""
    endpoint = Endpoint(GREETING)
    with opened(endpoint) as url:
        # A background job of a shell ignores SIGINT, and so would its children; `env` restores the default.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "tools.ws", "--url", url]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert "system" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, complaint = process.communicate(timeout=30)

        assert (process.returncode, complaint) == (130, "")
        wait_until(lambda: endpoint.close_codes == [1000])


# Patterns and scripts


@pytest.mark.parametrize(
    ("part", "frame", "fits"),
    [
        ('{"a": 1}', {"a": 1, "b": 2}, True),
        ('{"a": {"b": [1, {"c": 2}]}}', {"a": {"b": [1, {"c": 2, "d": 3}]}}, True),
        ('{"a": [1]}', {"a": [1, 2]}, False),
        ('{"a": null}', {}, False),
        ('{"a": 1}', {"a": True}, False),
        ('{"a": 1}', ["a"], False),
        ("{}", {"a": 1}, True),
    ],
)
def test_a_pattern_is_a_part_of_its_frame(part: str, frame: Any, fits: bool) -> None:
    """Objects may have more members, lists must have the same length, all other values must be equal."""
    assert Pattern(part).matches(Seen(frame, json.dumps(frame))) is fits


def test_a_reset_clears_the_answer_so_far() -> None:
    """Text before a reset is no longer part of the answer."""
    transcript = AnswerLog()
    transcript.take('{"type": "chat_delta", "stream_id": "s", "content": "old "}')
    transcript.take('{"type": "reset", "stream_id": "s", "cursor": 0}')

    assert transcript.take('{"type": "chat_delta", "stream_id": "s", "content": "new"}').so_far == "new"


def test_an_answer_is_running_until_its_last_frame() -> None:
    """On the chat endpoint from echo to typing false, on the realtime endpoint from analyzing to idle."""
    transcript = AnswerLog()
    steps = [
        ({"type": "chat", "role": "user", "stream_id": "s"}, True),
        ({"type": "typing", "status": False, "stream_id": "s"}, False),
        ({"type": "status", "stage": "analyzing"}, True),
        ({"type": "status", "stage": "idle"}, False),
    ]

    assert [(transcript.take(json.dumps(frame)), transcript.busy)[1] for frame, _ in steps] == [b for _, b in steps]


def test_a_scripts_lines_are_steps() -> None:
    """Frames, sleeps, and expects as a text or as a part of a frame."""
    sleep, frame, words, part = read_steps(
        ['{"sleep": 0.5}', '{"type": "ping"}', '{"expect": "a"}', '{"expect": {"b": 1}}']
    )

    assert (sleep, frame) == (0.5, {"type": "ping"})
    assert isinstance(words, Pattern)
    assert isinstance(part, Pattern)
    assert (words.text, part.text) == ("a", '{"b": 1}')
