"""`python -m demo`: it answers without configuration, reports mistakes in one line, and cleans up after itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from config.texts import ZH
from demo.__main__ import main
from demo.console import ask
from demo.mocks.dify.server import MockDify, expected_answer
from demo.wecom.simulator import CallbackFailed, SimulatedBot, WeComUser
from tests.support.servers.processes import free_port, wait_until
from tests.support.wecom_stub import AES_KEY, TOKEN, StubCallback

ROOT = Path(__file__).parents[2]
#: Seconds a process may take to start or end: it imports the whole product, possibly on a busy machine.
START = 60.0

scenario = pytest.mark.scenario


class Console:
    """A terminal session with a callback of the test: the printed lines, and whether the question was answered."""

    def __init__(self, callback: StubCallback) -> None:
        self.callback = callback
        self.lines: list[str] = []
        self.answered = False

    def asks(self, text: str = "年假", timeout: float = 30.0) -> str:
        with WeComUser(self.callback.url, SimulatedBot(TOKEN, AES_KEY), "zhangsan") as user:
            self.answered = ask(user, text, show=self.lines.append, every=0.01, timeout=timeout)
        return re.sub(r"\d+\.\ds", "0.0s", "\n".join(self.lines))


@pytest.fixture
def console() -> Iterator[Console]:
    """Ask a stub callback that the test controls."""
    with StubCallback() as callback:
        yield Console(callback)


class Demo:
    """A demo in its own process, with a folder for its temporary files."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.printed = ""

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        while "Ctrl-C" not in self.printed:
            line = self.process.stdout.readline()
            assert line, f"the demo ended: {self.printed}"
            self.printed += line

    def address(self, name: str) -> str:
        found = re.search(rf"^ *{name} +(\S+)$", self.printed, re.MULTILINE)
        assert found, self.printed
        return found[1]

    @property
    def descendants(self) -> list[int]:
        """Return the pids of its child processes and of their descendants."""
        found, parents = [self.process.pid], _parents()
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]


def _parents() -> dict[int, int]:
    """Return every running process with its parent's pid; zombies are left out."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    return parents


@contextmanager
def demo_process(folder: Path, *arguments: str, **variables: str) -> Iterator[Demo]:
    """Start the demo outside the repository with a minimal environment, and kill it at the end."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PORT": "0", **variables}
    command = [sys.executable, "-m", "demo", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        demo = Demo(process, folder)
        try:
            yield demo
        finally:
            process.kill()


def two_ports() -> tuple[int, int]:
    """Return two neighbouring ports that no other test gets."""
    claimed: set[int] = set()
    while True:
        port = free_port()
        claimed.add(port)
        for first in (port - 1, port):
            if {first, first + 1} <= claimed:
                return first, first + 1


def is_free(url: str) -> bool:
    port = int(re.findall(r":(\d+)", url)[0])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@scenario
@pytest.mark.parametrize(
    "environ", [{}, pytest.param({"WECHAT_MODE": "websocket"}, marks=pytest.mark.full)], ids=["callback", "websocket"]
)
def test_a_question_in_the_terminal_shows_the_bubble_growing(
    capsys: pytest.CaptureFixture[str], environ: dict[str, str]
) -> None:
    """The terminal prints the placeholder, the text in pieces and the finish; the text is the provider's answer.

    With WECHAT_MODE=websocket the gateway has no callback, and the terminal shows the same.
    """
    assert main(["--ask", "年假怎么申请"], environ) == 0

    printed = capsys.readouterr().out
    assert "s … 思考中..." in printed
    assert "s + " in printed
    assert "s = finish" in printed
    assert expected_answer("年假怎么申请").rpartition("\n")[2] in re.sub(r"\n? +\d+\.\ds \+ ", "", printed)


@pytest.mark.full
@scenario
@pytest.mark.parametrize(
    ("argv", "environ", "printed", "logged"),
    [
        (["--user", "lisi"], {"ASK": "年假怎么申请"}, ZH["unknown_user"], ""),
        (
            ["--ask", "hello"],
            {"DIFY_BASE_URL": "http://127.0.0.1:9", "DIFY_API_KEY": "app-x", "DIFY_TIMEOUT": "soon"},
            *("", "DIFY_TIMEOUT"),
        ),
    ],
    ids=["unknown user", "gateway that does not start"],
)
def test_without_an_answer_the_reason_is_printed(
    capsys: pytest.CaptureFixture[str], argv: list[str], environ: dict[str, str], printed: str, logged: str
) -> None:
    """The exit status is 1. The gateway's temporary log is gone after the demo, so its last lines are printed."""
    assert main(argv, environ) == 1

    out, err = capsys.readouterr()
    assert printed in out
    assert logged in err


@pytest.mark.full
@scenario
def test_a_real_dify_answers_when_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With DIFY_BASE_URL and DIFY_API_KEY the demo asks that Dify; only WeCom and the user database are simulated."""
    with MockDify(api_key="app-of-the-developer") as dify:
        own = {"DIFY_BASE_URL": dify.base_url, "DIFY_API_KEY": "app-of-the-developer"}
        assert main(["--ask", "营业时间"], own) == 0
        assert len(dify.requests) == 1

        assert main(["--ask", "营业时间"], {**own, "DIFY_API_KEY": "app-wrong"}) == 1
        printed = capsys.readouterr()
        assert ZH["provider_unauthorized"] in printed.out
        assert "provider_unauthorized" in printed.err, "the log has the error code"


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"DIFY_BASE_URL": "http://127.0.0.1:9"}, "DIFY_API_KEY is missing"),
        ({"DIFY_API_KEY": "app-x"}, "DIFY_BASE_URL is missing"),
        ({"PORT": "http"}, "PORT=http is not a port"),
        ({"WECHAT_MODE": "socket"}, "WECHAT_MODE=socket is neither callback nor websocket"),
        ({"PORT": "65536"}, "PORT=65536 is not a port"),
        ({"PORT": "65535"}, "PORT=65535 is not a port: a number from 0 to 65534"),
    ],
)
def test_a_wrong_variable_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], environ: dict[str, str], line: str
) -> None:
    """A wrong variable ends the demo with status 2 and one line that names the variable."""
    assert main([], environ) == 2

    printed = capsys.readouterr()
    assert line in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("is_gateway", [False, True])
def test_a_taken_port_is_reported_in_one_line(capsys: pytest.CaptureFixture[str], is_gateway: bool) -> None:
    """The gateway listens on PORT + 1; the line names the port that is taken, and suggests another PORT."""
    ports = two_ports()
    with socket.create_server(("127.0.0.1", ports[is_gateway])):
        assert main([], {"PORT": str(ports[0])}) == 2

    why = f", which the gateway needs with PORT={ports[0]}" if is_gateway else ""
    assert re.fullmatch(rf"Port {ports[is_gateway]} is not free \(.*\){why}: try PORT=\d+\.\n", capsys.readouterr().err)


@scenario
def test_a_demo_serves_its_printed_addresses_and_removes_its_files(tmp_path: Path) -> None:
    """The page is on PORT, the gateway on PORT + 1; SIGTERM, even twice, ends all processes and removes all files.

    Neither a .env file nor product variables of the environment reach the gateway; its addresses and keys are printed.
    """
    folder = tmp_path / "tmp"
    folder.mkdir()
    (folder / ".env").write_text("LOCALE=nonsense\nWECHAT_TOKEN=anothertoken\n")
    own = {"WECHAT_TOKEN": "yetanother", "REDIS_URL": "nonsense"}
    port, next_one = two_ports()
    with demo_process(folder, PORT=str(port), **own) as demo:
        demo.wait_ready()
        children, temporary = demo.descendants, set(folder.iterdir())
        gateway = f"http://127.0.0.1:{next_one}"

        assert demo.address("page") == f"http://127.0.0.1:{port}"
        assert requests.get(demo.address("page"), timeout=5).status_code == 200
        assert demo.address("callback") == f"{gateway}/wechat/callback"
        key = {"X-API-Key": demo.address("API key")}
        assert requests.get(f"{gateway}/v1/models", headers=key, timeout=10).status_code == 200
        for name in ("chat", "realtime", "batch", "docs"):
            assert demo.address(name) == f"{gateway}/{name}"
            reply = requests.get(f"http://127.0.0.1:{port}/{name}", timeout=10)
            assert (reply.status_code, reply.url.rstrip("/")) == (200, f"{gateway}/{name}")
        with WeComUser(
            demo.address("callback"), SimulatedBot(demo.address("token"), demo.address("AES key")), "zhangsan"
        ) as user:
            assert user.verifies_url()
            assert user.enters() == ZH["welcome"]
            answer, _, suggested = user.sees_finish(user.says("营业时间"), every=0.2).partition("\n\n")
            assert answer == expected_answer("营业时间")
            assert suggested.startswith(ZH["suggestions_heading"])

        demo.process.send_signal(signal.SIGTERM)
        demo.process.send_signal(signal.SIGTERM)

        assert demo.process.wait(START) == 0
    assert len(children) >= 2
    assert not set(children) & _parents().keys()
    assert len(temporary) >= 2
    assert [path.name for path in folder.iterdir()] == [".env"]
    assert is_free(demo.address("page"))
    assert is_free(gateway)


@pytest.mark.full
@scenario
def test_an_interrupted_question_ends_with_status_130(tmp_path: Path) -> None:
    """SIGINT during an answer, even twice, ends all processes with status 130."""
    with demo_process(tmp_path, "--dify", "silent", "--ask", "hello") as demo:
        assert demo.process.stdout is not None
        while "思考中" not in demo.process.stdout.readline():
            assert demo.process.poll() is None
        children = demo.descendants

        demo.process.send_signal(signal.SIGINT)
        demo.process.send_signal(signal.SIGINT)

        assert demo.process.wait(START) == 130
    assert len(children) >= 2
    assert not set(children) & _parents().keys()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
@scenario
def test_a_killed_demo_ends_its_gateway(tmp_path: Path) -> None:
    """Killing the demo with SIGKILL ends its child processes too."""
    with demo_process(tmp_path) as demo:
        demo.wait_ready()
        children = demo.descendants
        assert len(children) >= 2

        demo.process.kill()

        wait_until(lambda: not set(children) & _parents().keys(), START)


@pytest.mark.full
@scenario
def test_a_gateway_that_dies_ends_the_demo(tmp_path: Path) -> None:
    """When the gateway process dies, the demo ends with status 1 and removes its files."""
    with demo_process(tmp_path) as demo:
        demo.wait_ready()

        os.kill(min(demo.descendants), signal.SIGKILL)

        assert demo.process.wait(START) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_prints_only_what_is_new(console: Console) -> None:
    """A growing text is printed in pieces, each line once."""
    console.callback.grows(ZH["thinking"], "一", "一\n\n二", "一\n\n二", "一\n\n二三")

    assert console.asks() == (
        "zhangsan: 年假\n"
        f"   0.0s … {ZH['thinking']}\n"
        "   0.0s > 一\n"
        "   0.0s + \n"
        "\n"
        "          二\n"
        "   0.0s + 三\n"
        "   0.0s = finish (5 frames, 11 bytes)"
    )
    assert console.answered


def test_the_terminal_prints_a_replacement_whole(console: Console) -> None:
    """Text that does not continue the printed text is printed from its beginning."""
    console.callback.grows("one two", "one three")

    assert "> one two\n   0.0s > one three" in console.asks()


def test_the_terminal_gives_up_when_wecom_does(console: Console) -> None:
    """After the timeout it prints that no finish came; a callback that replies 403 raises CallbackFailed."""
    assert "no finish" in console.asks(timeout=0.05)
    assert not console.answered

    console.callback.status = 403
    with pytest.raises(CallbackFailed, match="403"):
        console.asks()
