"""`python -m tools.dify`: its requests, its output, its exit statuses, and that it never prints the key."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.plays import MODERATED
from demo.mocks.dify.server import MockDify
from tests.support.servers.processes import free_port, wait_until, when
from tests.support.servers.raw_server import RawServer, self_signed
from tools import dify as tool
from tools._dify.record import AnswerRecord
from tools._page import Printer

ROOT = Path(__file__).parents[3]
KEY = "app-not-a-real-key-0123456789"
UNKNOWN_CONVERSATION = "11111111-2222-4333-8444-555555555555"
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def dify(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockDify]:
    """A mock that accepts one key; its address and that key are in the environment."""
    with MockDify(ping_every=0.05, slow=0.05, api_key=KEY) as mock:
        monkeypatch.setenv("DIFY_BASE_URL", mock.base_url)
        monkeypatch.setenv("DIFY_API_KEY", KEY)
        yield mock


def run(*argv: str) -> int:
    """Run the tool in this process and return its status, also after a usage error."""
    try:
        return tool.main(argv)
    except SystemExit as exc:
        return int(exc.code or 0)


def field(printed: str, name: str) -> str:
    """Return the value of one line of the report."""
    (line,) = [line for line in printed.splitlines() if line.startswith(f"{name} ")]
    return line.removeprefix(name).strip()


# Output


def test_an_answer_is_shown_whole_with_its_cost(dify: MockDify, capsys: Printed) -> None:
    """Standard output has the answer alone; banner, tokens, price, ids, sources and events are on standard error."""
    assert run("-q", "年假怎么申请") == 0

    answer, printed = capsys.readouterr()
    (run_,) = dify.runs.turns(next(iter(dify.conversations)))
    assert printed.startswith(f"POST {dify.base_url}/v1/chat-messages, streaming\n")
    assert answer == f"{dify.expected_answer('年假怎么申请')}\n"
    assert field(printed, "tokens") == "431 (412 prompt, 19 answer)"
    assert field(printed, "price") == "0.00043 USD"
    assert field(printed, "message") == run_.message_id
    assert field(printed, "task") == run_.task_id
    assert printed.count(run_.conversation_id) == 1
    assert field(printed, "source 1") == "handbook.md, score 0.91, from 员工手册"
    assert field(printed, "events").startswith("34: message 29, workflow_started 1, ")
    assert "unknown" not in printed


@pytest.mark.parametrize(
    "script",
    [
        *("chat", "agent-chat", "new-agent", "chatflow-old-order", "no-message-end", "outputs-only", "annotation"),
        *("no-workflow-finished", "stopped", "split-utf8", "crlf", "glued", "ascii", "think", "odd-metadata"),
    ],
)
def test_every_kind_of_stream_is_shown_once(script: str, dify: MockDify, capsys: Printed) -> None:
    """For every app type, final event and transport, the answer is printed exactly once."""
    assert run("-q", f"[[{script}]] 营业时间") == 0

    answer = dify.expected_answer(f"[[{script}]] 营业时间")
    assert capsys.readouterr().out == f"{answer}\n"


@pytest.mark.parametrize(
    ("script", "answer"), [("moderation", MODERATED), ("new-agent-differs", "周一至周五 9:00-18:00 🙂")]
)
def test_a_replaced_answer_is_announced(script: str, answer: str, dify: MockDify, capsys: Printed) -> None:
    """Printed text cannot be removed, so a line announces that the new answer follows."""
    assert run("-q", f"[[{script}]] 营业时间") == 0

    printed = capsys.readouterr()
    assert printed.out.endswith(f"\n{answer}\n")
    before, after = printed.err.split("\n[replaced] the answer is now:\n")
    assert after.startswith("tokens")
    assert ("[message_replace] output_moderation" in before) is (script == "moderation")


@pytest.mark.parametrize(
    ("script", "fields", "lines"),
    [
        (
            "agent-chat",
            {"events": "agent_thought 2, message_file 1, message_end 1"},
            [
                '[tool] dalle3 {"dalle3": {"prompt": "cat"}}\n',
                '[result] {"dalle3": "ok"}\n',
                "[file] image {url}/files/tools/9d1c.png?timestamp=",
            ],
        ),
        ("odd-events", {"unknown": "(without a name) 1, a_future_event 1", "tokens": "Dify did not tell"}, []),
    ],
)
def test_steps_files_and_unknown_events_are_lines(
    script: str, fields: dict[str, str], lines: list[str], dify: MockDify, capsys: Printed
) -> None:
    """Calls and results are printed once, though Dify repeats a step; unknown events are no part of the answer."""
    assert run("-q", f"[[{script}]] 营业时间") == 0

    answer, printed = capsys.readouterr()
    assert [printed.count(line.replace("{url}", dify.base_url)) for line in lines] == [1] * len(lines)
    assert all(field(printed, name).endswith(value) for name, value in fields.items())
    assert answer == f"{dify.expected_answer(f'[[{script}]] 营业时间')}\n"


def test_repeated_steps_of_an_agent_are_shown_once() -> None:
    """Dify sends a step again as it grows; a last thought that repeats the answer is not printed."""
    record = AnswerRecord("https://dify.example/v1")
    steps = [
        {"thought": ""},
        {"thought": "Look it up"},
        {"thought": "Look it up", "tool": "search"},
        {"thought": "Monday"},
    ]
    record.answer = "On Monday."

    notes = [list(record.notes({"event": "agent_thought", "id": "th1", **step})) for step in steps]

    assert notes == [[], ["[thought] Look it up"], ["[tool] search"], []]
    assert record.counts == {"agent_thought": 4}


def test_characters_the_terminal_lacks_are_question_marks(dify: MockDify, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the terminal's encoding lacks are printed as question marks."""
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, "ascii", write_through=True))

    assert run("-q", "营业时间") == 0
    assert b"?????" in screen.getvalue()


def test_printed_text_has_no_control_characters_and_no_key() -> None:
    """Control characters of a text are replaced or removed, and the key is masked."""
    printed: list[str] = []
    page = Printer(printed.append, key=KEY)

    page.words(f"\x1b]0;title\x07a\rb\tc {KEY}")
    page.field("name", "two\nlines\x9b1m")

    assert "".join(printed) == "\ufffd]0;title\ufffdab\tc ***\nname          two lines\ufffd1m\n"


def test_answers_lists_and_checks_are_json(dify: MockDify, capsys: Printed) -> None:
    """An object has the answer, its ids, cost and sources; a list is an array; a check is an object with findings."""
    assert run("-q", "营业时间", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (run_,) = dify.runs.turns(next(iter(dify.conversations)))
    assert told["answer"] == dify.expected_answer("营业时间")
    assert (told["message_id"], told["task_id"]) == (run_.message_id, run_.task_id)
    assert (told["usage"]["total_tokens"], told["sources"][0]["document_name"]) == (431, "handbook.md")

    assert run("--list-conversations", "--json") == 0
    (conversation,) = json.loads(capsys.readouterr().out)
    assert dify.conversations[conversation["id"]] == "test-user"
    assert run("--check", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], [finding["outcome"] for finding in told["findings"]]) == (True, ["ok"] * 4)


# Requests


def test_the_default_request_is_streaming_with_a_title(dify: MockDify) -> None:
    """Without options: a new conversation of test-user, with no conversation_id field at all."""
    assert run("--query", "一") == 0

    (request,) = dify.requests
    assert request.body == {
        **{"query": "一", "inputs": {}, "user": "test-user"},
        **{"response_mode": "streaming", "auto_generate_name": True},
    }
    assert request.authorization == f"Bearer {KEY}"


IMAGE = {"type": "image", "transfer_method": "remote_url", "url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("argv", "fields"),
    [
        (["--user", "zhangsan"], {"user": "zhangsan"}),
        (["--inputs", '{"city": "上海", "days": 2}'], {"inputs": {"city": "上海", "days": 2}}),
        (["--blocking"], {"response_mode": "blocking"}),
        (["--files", json.dumps([IMAGE])], {"files": [IMAGE]}),
        (["--files", json.dumps(IMAGE)], {"files": [IMAGE]}),
        (["--no-auto-name"], {"auto_generate_name": False}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_option_is_in_the_request(argv: list[str], fields: dict[str, Any], dify: MockDify) -> None:
    """Field names and values are those of Dify's API."""
    assert run("-q", "一", *argv) == 0

    body = dify.requests[0].body
    assert {name: body[name] for name in fields} == fields


def test_a_second_turn_is_in_the_conversation_of_the_first(dify: MockDify, capsys: Printed) -> None:
    """An unknown conversation is reported: the question is neither sent again nor asked in a new conversation."""
    run("-q", "一")
    (conversation,) = dify.conversations

    assert run("-q", "二", "--conversation-id", conversation) == 0
    assert [turn.query for turn in dify.runs.turns(conversation)] == ["一", "二"]
    assert run("-q", "三", "--conversation-id", UNKNOWN_CONVERSATION) == 1
    assert "Dify does not know this conversation as one of the user test-user" in capsys.readouterr().err
    assert len(dify.requests) == 3


def test_a_blocking_answer_is_shown_with_the_same_figures(dify: MockDify, capsys: Printed) -> None:
    """The one reply is treated as one event."""
    assert run("-q", "营业时间", "--blocking") == 0

    answer, printed = capsys.readouterr()
    assert answer == "周一至周五 9:00-18:00 🙂\n"
    assert field(printed, "price") == "0.00043 USD"
    assert field(printed, "source 1") == "handbook.md, score 0.91, from 员工手册"
    assert field(printed, "events") == "1: message 1"


def test_conversations_are_listed_without_a_question(dify: MockDify, capsys: Printed) -> None:
    """The user's conversations, the latest first; no question is sent."""
    for user, query in (("zhangsan", "一"), ("lisi", "二"), ("zhangsan", "三")):
        run("-q", query, "--user", user)
    capsys.readouterr()

    assert run("--list-conversations", "--user", "zhangsan") == 0

    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[-1] for line in lines] == ["三", "一"]
    assert printed.err == "2 conversations of the user zhangsan\n"
    assert dify.conversations[lines[0].split()[0]] == "zhangsan"
    assert len(dify.requests) == 3


# The key


@pytest.mark.parametrize(
    ("variable", "argv", "warns"),
    [
        # As in the product it may be a list; the first one is used.
        (f" {KEY} , app-another", [], False),
        ("app-wrong", ["--api-key", "-"], False),
        (None, ["--api-key", KEY], True),
        (None, [], False),
    ],
    ids=["environment", "standard input", "option", "prompt"],
)
def test_a_key_is_taken_and_not_printed(
    dify: MockDify,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
    variable: str | None,
    argv: list[str],
    warns: bool,
) -> None:
    """Standard input, or a prompt without echo at a terminal; on the command line everybody here can see it."""
    monkeypatch.delenv("DIFY_API_KEY")
    if variable:
        monkeypatch.setenv("DIFY_API_KEY", variable)
    monkeypatch.setattr("getpass.getpass", lambda prompt: KEY if prompt == "Dify API key: " else "")
    terminal, typed = pty.openpty()
    with os.fdopen(typed) as stdin:
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{KEY}\n") if "-" in argv else stdin)
        assert run("-q", "一", *argv) == 0
    os.close(terminal)

    printed = capsys.readouterr()
    assert printed.err.startswith("warning: a key on the command line is seen by everybody on this machine") is warns
    assert KEY not in printed.out + printed.err


@pytest.mark.parametrize("given", ["", " , "])
def test_a_missing_key_is_reported_with_its_variable(
    given: str, dify: MockDify, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """A missing key is a usage error; nothing is sent."""
    monkeypatch.setenv("DIFY_API_KEY", given)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    assert run("-q", "一") == run("-q", "一", "--api-key", "-") == 2
    assert "no API key: set DIFY_API_KEY in the environment" in capsys.readouterr().err
    assert dify.accepted_connections == 0


# Errors


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ("401-unauthorized", "copy the key of this very app from its page API Access (app-...) into DIFY_API_KEY"),
        ("403-app_api_disabled", "switch its API on"),
        ("404-wrong-path", "correct --base-url or DIFY_BASE_URL"),
        ("400-invalid_param", "look at --inputs, --files and --conversation-id"),
        ("400-not_chat_app", "use the key of a chatbot, agent or chatflow"),
        ("400-app_unavailable", "set its model and publish it in Dify"),
        ("400-provider_quota_exceeded", "fill it up, or choose another model"),
        ("400-conversation_completed", "leave --conversation-id out"),
        ("400-too_many_files", json.loads(ERROR_REPLIES["400-too_many_files"].body)["message"]),
        ("413-html", "shorten it"),
        ("429-too_many_requests", "wait, or raise the limit in Dify"),
        ("500-internal_server_error", "see their logs, and try again"),
        ("504-html", "see their logs, and try again"),
        ("silent", "nothing came for {:g} s: give it longer (--timeout {:g})"),
        ("no-headers", "nothing came for {:g} s: give it longer (--timeout {:g})"),
        ("ping-only", "see that Dify's worker runs, or give it longer (--timeout {1:g})"),
        ("pings-after-text", "only signs of life came for {:g} s"),
        (
            "error-after-text",
            'see the app\'s logs in Dify. Dify says: "Internal Server Error, please contact support."',
        ),
        ("chatflow-failed", 'Dify says: "Run failed: [openai] Rate limit reached"'),
        ("chatflow-failed-quietly", 'Dify says: "[openai] Rate limit reached"'),
        ("chatflow-paused", "decide it in Dify"),
        ("empty", "look at the app's answer node"),
        ("eof", "look for a proxy before Dify that ends long answers"),
        ("drop-at-once", "does not answer as Dify does"),
    ],
)
def test_every_failure_has_a_remedy(script: str, advice: str, dify: MockDify, capsys: Printed) -> None:
    """Status 1 and one sentence on standard error, with Dify's own message if there is one."""
    times_out = "{" in advice
    # Pings may come too late on a busy machine, so that there is only silence: then once more, with more time.
    for timeout in (0.5, 10.0) if times_out else (60.0,):
        assert run("-q", f"[[{script}]] 一", "--timeout", str(timeout)) == 1
        (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed (")]
        if (words := advice.format(timeout, 2 * timeout)) in sentence:
            break

    assert words in sentence
    assert times_out or len(dify.requests) == 1


def test_a_wrong_key_is_reported_and_not_shown(
    dify: MockDify, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    """A question and the list of conversations end with the same line."""
    monkeypatch.setenv("DIFY_API_KEY", "app-wrong")

    assert run("-q", "一") == run("--list-conversations") == 1

    printed = capsys.readouterr().err
    first, second = [line for line in printed.splitlines() if line.startswith("failed (")]
    assert first == second
    assert first.startswith("failed (HTTP 401 unauthorized): Dify refuses the key")
    assert "app-wrong" not in printed


@pytest.mark.parametrize("mode", ["agent-chat", "agent"])
def test_an_agent_that_rejects_blocking_is_reported(mode: str, dify: MockDify, capsys: Printed) -> None:
    """Both kinds of agent apps have different messages, which get the same sentence; streaming mode works."""
    dify.mode = mode

    assert run("-q", "一", "--blocking") == 1
    assert f"an agent app ({mode}) refuses blocking mode: ask without --blocking" in capsys.readouterr().err
    assert run("-q", "一") == 0


@pytest.mark.parametrize(("script", "timeouts"), [("400-invalid_param", ["60"]), ("ping-only", ["0.5", "10"])])
def test_inputs_the_app_requires_are_named(script: str, timeouts: list[str], dify: MockDify, capsys: Printed) -> None:
    """Without them some versions of Dify reject the question and others never start to answer."""
    dify.user_input_form = [{"text-input": {"variable": name, "required": name != "note"}} for name in ("age", "note")]

    # On a busy machine the app may not tell its inputs in time: then once more, with more time.
    for timeout in timeouts:
        assert run("-q", f"[[{script}]] 一", "--timeout", timeout) == 1
        if "requires" in (err := capsys.readouterr().err):
            break

    assert 'the app requires age, which --inputs lacks: add it (--inputs \'{"age": "..."}\')' in err
    run("-q", f"[[{script}]] 一", "--timeout", timeouts[0], "--inputs", '{"age": 7}')
    assert "requires" not in capsys.readouterr().err


def test_a_failed_connection_is_reported(dify: MockDify, tmp_path: Path, capsys: Printed) -> None:
    """The line has the URL that was tried, or the variable that sets another certificate authority."""
    url = f"http://127.0.0.1:{free_port()}"
    assert run("-q", "一", "--base-url", url) == 1
    assert f"no connection to {url}/v1: see that the name resolves" in capsys.readouterr().err

    context, _ = self_signed(tmp_path)
    with RawServer(b"", tls=context) as server:
        assert run("-q", "一", "--base-url", server.url) == 1
    assert "REQUESTS_CA_BUNDLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "does not answer as Dify does"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://x\r\nContent-Length: 0\r\n\r\n",
            "set --base-url or DIFY_BASE_URL to where",
        ),
    ],
    ids=["a web page", "a redirect"],
)
@pytest.mark.parametrize("options", [["-q", "x"], ["-q", "x", "--blocking"], ["--list-conversations"]], ids=" ".join)
def test_a_server_that_is_not_dify_is_reported(
    options: list[str], reply: bytes, advice: str, dify: MockDify, capsys: Printed
) -> None:
    """For questions in both modes and for the list of conversations."""
    with RawServer(reply) as server:
        assert run(*options, "--base-url", server.url) == 1

    assert advice in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--user", "zhangsan"],
        ["-q", "一", "--inputs", "{broken"],
        ["-q", "一", "--inputs", "[1]"],
        ["-q", "一", "--files", '"a.png"'],
        ["-q", "一", "--files", "[1]"],
        ["-q", "一", "--timeout", "0"],
        ["-q", "一", "--timeout", "inf"],
        ["-q", "一", "--base-url", "dify.example"],
        ["-q", "一", "--base-url", "https://me:secret@dify.example"],
        ["-q", "一", "--api-key", "app- with blanks"],
    ],
    ids=lambda argv: " ".join(argv[-2:]),
)
def test_a_usage_error_is_reported_before_anything_is_sent(argv: list[str], dify: MockDify) -> None:
    """The status is 2 and nothing is sent."""
    assert run(*argv) == 2
    assert dify.accepted_connections == 0


# Ctrl-C


def program(*argv: str) -> subprocess.Popen[bytes]:
    """Start the tool in its own process."""
    process = subprocess.Popen(
        # A background job of a shell ignores SIGINT, and so would its children; `env` restores the default.
        ["env", "--default-signal=INT", sys.executable, "-m", "tools.dify", *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for stream in (process.stdout, process.stderr):
        assert stream
        os.set_blocking(stream.fileno(), False)
    return process


def read_new(process: subprocess.Popen[bytes]) -> bytes:
    """Return the output since the last call."""
    assert process.stdout
    return process.stdout.read() or b""


def test_ctrl_c_stops_the_run_at_dify(dify: MockDify) -> None:
    """Text is printed while Dify sends it; SIGINT stops Dify's run and ends the tool with 130."""
    dify.slow = 0.4
    with program("-q", "[[slow]] 年假", "--user", "zhangsan") as process:
        shown = wait_until(lambda: (out := read_new(process)).partition(b"**")[1] and out, timeout=30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert b"tokens" not in shown
    assert b"interrupted: Dify was told to stop task " in err
    assert b"Traceback" not in err
    assert [user for _, user in dify.stops] == ["zhangsan"]
    assert all(dify.runs.find(task).stopped for task, _ in dify.stops)  # type: ignore[union-attr]


def test_ctrl_c_before_a_task_id_stops_nothing_at_dify(dify: MockDify, capsys: Printed) -> None:
    """Without a task id there is nothing to stop."""
    main_thread, before = threading.get_ident(), signal.signal(signal.SIGINT, signal.default_int_handler)
    when(lambda: dify.open_streams, lambda: signal.pthread_kill(main_thread, signal.SIGINT))
    try:
        assert run("-q", "[[silent]] 年假") == 130
    finally:
        signal.signal(signal.SIGINT, before)

    assert "\ninterrupted: Dify named no task that" in capsys.readouterr().err
    assert dify.stops == []


# --check


def outcomes(printed: str) -> list[list[str]]:
    return [line.split()[:2] for line in printed.splitlines()]


def test_a_check_prints_a_line_per_part(dify: MockDify, capsys: Printed) -> None:
    """Four questions, the last two in one conversation, without generated titles; other options are kept."""
    assert run("--check", "--user", "checker", "--no-auto-name") == 0

    printed = capsys.readouterr().out
    assert outcomes(printed) == [["ok", "stream"], ["ok", "blocking"], ["ok", "two"], ["ok", "list"]]
    assert [request.body["response_mode"] for request in dify.requests] == [
        *("streaming", "blocking", "streaming", "streaming")
    ]
    assert {request.body["user"] for request in dify.requests} == {"checker"}
    answer = dify.expected_answer(dify.requests[0].body["query"])
    assert printed.count(f" {len(answer)} characters in ") == 2
    assert dify.requests[3].body["conversation_id"] in printed
    assert "3 conversations of the user checker, this one among them" in printed


@pytest.mark.parametrize(
    ("changes", "key", "marks", "words"),
    [
        # An agent app rejects blocking mode, which the product never uses.
        ({"mode": "agent-chat"}, KEY, ["ok"] * 4, "refused, as by any agent app (agent-chat)"),
        (
            {"outage": ERROR_REPLIES["500-internal_server_error"]},
            *(KEY, ["ok", "ok", "ok", "FAILED"], "see their logs, and try again"),
        ),
        ({}, "app-wrong", ["FAILED"] * 4, ""),
    ],
    ids=["agent", "outage", "wrong key"],
)
def test_a_check_reports_each_failure_and_goes_on(
    dify: MockDify,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Printed,
    changes: dict[str, Any],
    key: str,
    marks: list[str],
    words: str,
) -> None:
    """Each failed line has its own remedy; the status is 1."""
    monkeypatch.setenv("DIFY_API_KEY", key)
    for name, value in changes.items():
        setattr(dify, name, value)

    assert run("--check") == int("FAILED" in marks)

    printed = capsys.readouterr().out
    assert [first for first, _ in outcomes(printed)] == marks
    assert words in printed
