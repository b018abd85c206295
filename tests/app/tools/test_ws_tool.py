"""`python -m tools.ws`: what it sends, what it waits for, how it ends, and that it keeps the key to itself."""

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


class Endpoint:
    """A server of the test's own: says something at once, and something to each frame it gets."""

    def __init__(self, *greets: Any, replies: Callable[[dict[str, Any]], Iterable[Any]] = lambda frame: []) -> None:
        self.greets = greets
        self.replies = replies
        self.got: list[dict[str, Any]] = []
        self.headers = Headers()
        self.path = ""
        self.close_codes: list[int | None] = []
        self.refusal: Response | None = None

    def talk(self, connection: ServerConnection) -> None:
        assert connection.request
        self.headers, self.path = connection.request.headers, connection.request.path
        try:
            self._say(connection, self.greets)
            while True:
                self.got.append(json.loads(connection.recv()))
                self._say(connection, self.replies(self.got[-1]))
        except ConnectionClosed:
            self.close_codes.append(connection.close_code)

    def _say(self, connection: ServerConnection, frames: Any) -> None:
        for frame in frames:
            if isinstance(frame, int):
                connection.close(frame, "said so")
            else:
                connection.send(json.dumps(frame, ensure_ascii=False))

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers = request.headers
        return self.refusal


@contextmanager
def opened(endpoint: Endpoint) -> Iterator[str]:
    """Serve an endpoint; the address ends before its path."""
    with serve(endpoint.talk, "127.0.0.1", 0, process_request=endpoint.refuse) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


def run(endpoint: Endpoint, *argv: str) -> int:
    """Run the tool at an endpoint; usage errors are its status too."""
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
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation is over soon after its last frame, and no key comes from outside."""
    monkeypatch.setattr("tools._ws.talk.QUIET", 0.2)
    monkeypatch.delenv("LAIBAO_WS_KEY", raising=False)


# What is expected


def test_all_that_was_expected_came(capsys: pytest.CaptureFixture[str]) -> None:
    """Patterns that come in their order end it with 0, with frames and times printed."""
    endpoint = Endpoint(GREETING, replies=answers)

    assert (
        run(endpoint, "--send", "q", "--expect", "hello", "--expect", '{"role": "assistant", "status": "completed"}')
        == 0
    )

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(f"> {json.dumps(endpoint.got[0], ensure_ascii=False)}")
    assert any(line.lstrip()[0].isdigit() and " < " in line and '"一二"' in line for line in printed)
    assert endpoint.got == [{"type": "chat", "content": "q"}]
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
def test_what_did_not_come_is_named(patterns: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A frame that is missing, or comes in another order, ends it with 1 when the time is over."""
    expects = [word for pattern in patterns for word in ("--expect", pattern)]

    assert run(Endpoint(GREETING, replies=answers), "--send", "q", "--timeout", "0.5", *expects) == 1
    assert f"did not come: {patterns[-1]}" in capsys.readouterr().err


def test_words_may_come_in_pieces() -> None:
    """A text is found in an answer although no frame has it whole."""
    pieces = [{"type": "answer", "stream_id": "s", "content": piece, "final": False} for piece in ("年假", "申请")]

    assert run(Endpoint(*pieces), "--timeout", "5", "--expect", "年假申请") == 0


def test_without_expectations_it_ends_when_it_is_answered() -> None:
    """After the last frame, with no answer under way, it is over; well before its time."""
    assert run(Endpoint(GREETING, replies=answers), "--send", "q") == 0


def test_an_answer_that_pauses_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """While one is under way no silence ends the conversation."""

    def thinks(frame: dict[str, Any]) -> Iterator[Any]:
        yield from ANSWER[:3]
        threading.Event().wait(1.0)
        yield from ANSWER[3:]

    assert run(Endpoint(replies=thinks), "--send", "q") == 0
    assert '"一二"' in capsys.readouterr().out


def test_an_answer_without_an_end_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """When the time is over in mid-answer the status is 1."""
    endpoint = Endpoint(replies=lambda frame: ANSWER[:3])

    assert run(endpoint, "--send", "q", "--timeout", "0.6") == 1
    assert "an answer did not come to its end" in capsys.readouterr().err


def test_a_close_can_be_expected() -> None:
    """The server's close is the last thing that comes, with its code and reason."""
    assert run(Endpoint(GREETING, 4408), "--expect", '{"type": "closed", "code": 4408, "reason": "said so"}') == 0


def test_a_close_nobody_expected_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Any other code than 1000 is."""
    assert run(Endpoint(4409), "--send", "q") == 1
    assert "closed with 4409" in capsys.readouterr().err


def test_what_was_not_to_come_ends_it_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A frame or words that are rejected are named, and what was expected is waited for no longer."""
    endpoint = Endpoint(GREETING, replies=lambda frame: [*ANSWER[:3], {"type": "error", "code": "PROVIDER_TIMEOUT"}])

    told = ["--expect", "never", "--reject", '{"type": "error"}', "--timeout", "3600"]
    assert run(endpoint, "--send", "q", *told) == 1
    assert capsys.readouterr().err == 'came, and was not to: {"type": "error"}\n'
    assert run(Endpoint(GREETING, replies=answers), "--send", "q", "--reject", '{"type": "error"}') == 0


def test_every_frame_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints time, direction and frame of each."""
    assert run(Endpoint(GREETING, replies=answers), "--json", "--send", "q") == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["frame"] for line in lines if line["direction"] == "out"] == [{"type": "chat", "content": "q"}]
    assert [line["frame"] for line in lines if line["direction"] == "in"] == [GREETING, *ANSWER]
    assert all(0 <= line["time"] < 60 for line in lines)


# What is sent


def test_a_script_waits_and_expects(tmp_path: Path) -> None:
    """Its lines are sent in order; a sleep holds the next one back, an expect until it has come."""
    script = tmp_path / "script.jsonl"
    lines = [{"type": "chat", "content": "q"}, {"expect": {"type": "typing", "status": False}}, {"sleep": 0.05}]
    script.write_text("# a comment\n\n" + "\n".join(map(json.dumps, [*lines, {"type": "stop"}])), "utf-8")
    endpoint = Endpoint(GREETING, replies=answers)

    assert run(endpoint, "--script", str(script)) == 0
    assert [frame["type"] for frame in endpoint.got] == ["chat", "stop"]


def test_a_script_that_gets_no_further_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it waits for is named, and what comes after it is not sent."""
    script = tmp_path / "script.jsonl"
    script.write_text('{"expect": "never"}\n{"type": "stop"}\n', "utf-8")
    endpoint = Endpoint(GREETING)

    assert run(endpoint, "--script", str(script), "--timeout", "0.4") == 1
    assert "did not come: never" in capsys.readouterr().err
    assert endpoint.got == []


def test_an_answer_is_resumed_before_anything_is_said() -> None:
    """--resume sends its frame first; what is a JSON object is sent as it is."""
    endpoint = Endpoint(GREETING)

    assert run(endpoint, "--resume", "s1:7", "--send", '{"type": "stop"}', "--client-id", "me") == 0
    assert endpoint.got == [{"type": "resume", "stream_id": "s1", "cursor": 7}, {"type": "stop"}]
    assert endpoint.path == "/ws/chat/me"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--send", "q", "r"], ["q", "r"]),
        (["chat", "--send", "q", "--send", "r", "s", "--json"], ["q", "r", "s"]),
        (["--send", "-", "--send=q", "--timeout", "5"], ["-", "q"]),
    ],
    ids=" ".join,
)
def test_several_texts_are_said_in_their_order(argv: list[str], said: list[str]) -> None:
    """--send takes one text or more, and may come again."""
    endpoint = Endpoint()

    assert run(endpoint, *argv) == 0
    assert [frame["content"] for frame in endpoint.got] == said


def test_at_the_realtime_endpoint_words_are_a_final_transcript() -> None:
    """A text is an asr_chunk there, and the path is that endpoint's."""
    endpoint = Endpoint()

    assert run(endpoint, "realtime", "--send", "年假怎么申请？") == 0
    assert endpoint.got == [{"type": "asr_chunk", "text": "年假怎么申请？", "is_final": True}]
    assert endpoint.path == "/ws/realtime-asr"


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
    """Words are said, /word is an order, a JSON object goes as it is."""
    assert frame_of(line, endpoint) == frame


# The key


@pytest.mark.parametrize("way", ["option", "environment"])
def test_the_key_goes_out_in_a_header_and_is_not_printed(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From either place; even a server that repeats it does not bring it to the screen."""
    endpoint = Endpoint({"type": "system", "content": f"Bearer {KEY}"})
    if way == "environment":
        monkeypatch.setenv("LAIBAO_WS_KEY", KEY)

    assert run(endpoint, "--expect", "system", *(["--key", KEY] if way == "option" else [])) == 0

    printed = capsys.readouterr()
    assert endpoint.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in printed.out + printed.err
    assert "Bearer ***" in printed.out


def test_a_server_that_saw_no_key_gets_it_as_the_first_frame(capsys: pytest.CaptureFixture[str]) -> None:
    """A proxy may have taken the header away."""
    endpoint = Endpoint({"type": "auth_required"}, replies=lambda frame: [GREETING])

    assert run(endpoint, "--key", KEY, "--expect", "hello") == 0
    assert endpoint.got == [{"type": "auth", "token": KEY}]
    assert KEY not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["token", "API_KEY", "access_token"])
def test_no_key_is_taken_from_an_address(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is wrong usage, and not repeated."""
    assert status_of("--url", f"ws://127.0.0.1:1/ws/chat?{name}={KEY}", "--send", "q") == 2
    assert status_of("--url", f"ws://me:{KEY}@127.0.0.1:1/", "--send", "q") == 2
    assert KEY not in capsys.readouterr().err


def test_a_key_no_header_can_hold_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A line break in it could begin a header of its own."""
    assert status_of("--key", f"{KEY}\r\nX-Admin: 1", "--send", "q") == 2
    assert KEY not in capsys.readouterr().err


# No connection


def test_a_refusal_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Status, message and code of the refusal are said; the status is 3."""
    endpoint = Endpoint()
    body = json.dumps({"code": 401, "message": "The key is wrong", "data": None}).encode()
    endpoint.refusal = Response(401, "Unauthorized", Headers({"Content-Length": str(len(body))}), body)

    assert run(endpoint, "--key", KEY, "--send", "q") == 3
    assert "refused: HTTP 401, The key is wrong (code 401)" in capsys.readouterr().err


def test_a_close_for_want_of_a_key_is_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    """4401 is 3, and says where a key is given."""
    assert run(Endpoint({"type": "auth_required"}, 4401), "--send", "q") == 3
    assert "LAIBAO_WS_KEY" in capsys.readouterr().err


def test_nobody_there_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A port nobody listens on ends it with 3 and one line."""
    port = free_port()

    assert status_of("--url", f"ws://127.0.0.1:{port}", "--send", "q") == 3
    assert capsys.readouterr().err.startswith(f"cannot connect to 127.0.0.1:{port}")


def test_something_else_that_listens_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that does not speak HTTP ends it with 3 and one line."""
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
def test_wrong_usage_is_told_before_anything_is_done(argv: list[str]) -> None:
    """What makes no sense is 2."""
    assert status_of(*argv, "--send", "q") == 2


@pytest.mark.parametrize("line", ["[1]", "{", '{"sleep": -1}', '{"sleep": "1"}', '{"expect": ""}', '{"expect": 1}'])
def test_a_wrong_line_of_a_script_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is wrong usage, with the line's number; nothing has been sent."""
    script = tmp_path / "script.jsonl"
    script.write_text(f'{{"type": "ping"}}\n{line}\n', "utf-8")

    assert status_of("--script", str(script)) == 2
    assert "line 2 of the script" in capsys.readouterr().err


# By hand


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A keyboard: what is written to the descriptor is typed."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield write
    # The test may have closed it, which is how a person says that there is no more.


def test_by_hand_every_line_is_said_and_the_end_waits_for_the_answer(typed: int) -> None:
    """A question, then the end of the input: the answer is still seen."""
    endpoint = Endpoint(GREETING, replies=answers)
    os.write(typed, "年假\n\n/ping\nlast".encode())
    os.close(typed)

    assert run(endpoint) == 0
    assert endpoint.got == [{"type": "chat", "content": "年假"}, {"type": "ping"}, {"type": "chat", "content": "last"}]


def test_by_hand_a_heartbeat_is_answered_and_quit_ends_it(typed: int) -> None:
    """A person may think for as long as they like; nothing after /quit is said."""

    def quit_then(frame: dict[str, Any]) -> list[Any]:
        os.write(typed, b"/quit\nnever said\n")
        return []

    endpoint = Endpoint({"type": "heartbeat", "timestamp": GREETING["timestamp"]}, replies=quit_then)

    assert run(endpoint) == 0
    os.close(typed)
    assert endpoint.got == [{"type": "pong"}]


def test_a_script_leaves_heartbeats_alone(tmp_path: Path) -> None:
    """Its silence is meant: all that is sent is what it says."""
    script = tmp_path / "script.jsonl"
    script.write_text('{"expect": "heartbeat"}\n{"sleep": 0.3}\n{"type": "stop"}\n', "utf-8")
    endpoint = Endpoint({"type": "heartbeat", "timestamp": GREETING["timestamp"]})

    assert run(endpoint, "--script", str(script)) == 0
    assert endpoint.got == [{"type": "stop"}]


def test_ctrl_c_ends_it_cleanly() -> None:
    """SIGINT closes the connection with 1000 and leaves no traceback; the status is 130."""
    endpoint = Endpoint(GREETING)
    with opened(endpoint) as url:
        # Ctrl-C works also where the tests run in the background of a shell, which ignores it.
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


# The parts


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
    """Objects may have more, lists must be as long, all else must be equal."""
    assert Pattern(part).matches(Seen(frame, json.dumps(frame))) is fits


def test_a_reset_forgets_what_was_said() -> None:
    """Words of a text that was taken back are no longer found in it."""
    transcript = AnswerLog()
    transcript.take('{"type": "chat_delta", "stream_id": "s", "content": "old "}')
    transcript.take('{"type": "reset", "stream_id": "s", "cursor": 0}')

    assert transcript.take('{"type": "chat_delta", "stream_id": "s", "content": "new"}').so_far == "new"


def test_an_answer_is_under_way_until_its_last_frame() -> None:
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
    """Frames, sleeps, and expects as words or as a part of a frame."""
    sleep, frame, words, part = read_steps(
        ['{"sleep": 0.5}', '{"type": "ping"}', '{"expect": "a"}', '{"expect": {"b": 1}}']
    )

    assert (sleep, frame) == (0.5, {"type": "ping"})
    assert isinstance(words, Pattern)
    assert isinstance(part, Pattern)
    assert (words.text, part.text) == ("a", '{"b": 1}')
