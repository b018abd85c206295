"""Two replicas behind a real nginx with deploy/nginx.conf: every endpoint through TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, BubbleFrame, CallbackFailed, WeComUser
from tests.scenarios.stage.people import TIMEOUT
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.nginx import Nginx, in_front_of
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.chat_room import ChatSocket
from tests.support.sockets.event_reader import Program, Reader
from tests.support.sockets.visitor import visit
from utils.markdown.wecom import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "not-a-real-key"
SHOWN = {"X-API-Key": KEY}
QUESTION = "年假怎么申请？👍🏽"
SLOW = f"{QUESTION} [[slow]]"
#: Characters after which an answer is in its middle.
SOME = 20
#: Sockets that one address may open in a minute: more than all other tests here open.
HANDSHAKES = 20

program = Program(KEY)


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A Dify whose slow answers take some seconds."""
    with MockDify(delay=0.01, slow=0.1) as dify:
        yield dify


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that nobody but the replicas connects to."""
    with RedisServer() as server:
        yield server


@contextmanager
def served(redis: RedisServer, dify: MockDify, folder: Path) -> Iterator[tuple[Nginx, list[Replica]]]:
    """Run two replicas with what the units set, and nginx in front of them."""
    own = {"API_KEYS": KEY, "TRUSTED_PROXIES": "1", "STREAM_LEASE": "2", "RATE_LIMIT_IP": f"{HANDSHAKES}/minute"}
    batches = {"DATABASE_PATH": str(folder / "laibao.db"), "BATCH_MAX_CONCURRENT": "1"}
    env = settings_for(redis.url(), **dify_settings(dify.base_url, **own, **batches))
    with replicas(2, env, folder) as both, in_front_of(both) as nginx:
        yield nginx, both
        assert "Traceback" not in both[0].log + both[1].log


@pytest.fixture(scope="module")
def nginx(redis: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Nginx in front of two replicas to which nothing happens."""
    with served(redis, dify, tmp_path_factory.mktemp("nginx")) as (nginx, _):
        yield nginx


def test_wecom_asks_and_polls(nginx: Nginx, dify: MockDify) -> None:
    """The console's Save, a question and its polls, on both replicas in turn: the answer is the provider's."""
    with nginx.person() as user:
        user.verifies_url()
        answer = user.sees_finish(user.says(SLOW), TIMEOUT, 0.05)

    callbacks = nginx.served("/wechat/callback")
    assert answer == render_markdown(dify.expected_answer(SLOW))
    assert len({replica for _, replica in callbacks}) == 2
    assert {status for status, _ in callbacks} == {"200"}


def test_both_sockets_open_and_answer(nginx: Nginx, dify: MockDify) -> None:
    """Upgraded through TLS; a page of this origin may, and one of another may not."""
    with visit(nginx.url, "chat", key=KEY, origin=nginx.url) as client:
        client.says({"type": "chat", "content": QUESTION, "id": "1"})
        chat = client.until({"type": "chat", "role": "assistant"})["content"]
    with visit(nginx.url, "realtime", key=KEY) as client:
        client.says({"type": "asr_chunk", "text": QUESTION, "is_final": True})
        client.until({"type": "answer", "final": True})
        spoken = "".join(frame["content"] for frame in client.frames if frame["type"] == "answer")

    assert chat == spoken == dify.expected_answer(QUESTION)
    with pytest.raises(InvalidStatus), visit(nginx.url, "chat", key=KEY, origin="https://elsewhere.example.com"):
        pass


def test_events_leave_as_they_come(nginx: Nginx, dify: MockDify) -> None:
    """The first words are here while the provider is still speaking; the whole is what it said, byte for byte."""
    reader = program.reads(nginx.url, SLOW)
    reader.sees_text(SOME)
    early = len(reader.text)
    finished_by_then = [event.name for event in list(reader.events) if event.name != "delta"] != ["start"]
    reader.sees_end()

    assert not finished_by_then
    assert early < len(reader.text)
    assert reader.text == reader.events[-1].data["content"] == dify.expected_answer(SLOW)
    assert "Content-Encoding" not in reader._reply.headers


def test_an_answer_may_be_waited_for(nginx: Nginx, dify: MockDify) -> None:
    """As JSON, which is silent until it is whole; asked again under its id it is on either replica."""
    first, again = (program.asks(nginx.url, QUESTION, id="q1").json()["data"] for _ in range(2))

    assert first == again
    assert first["content"] == dify.expected_answer(QUESTION)


def test_a_file_of_some_megabytes_becomes_a_batch(nginx: Nginx) -> None:
    """Taken in whole by nginx, and read by the product."""
    content = "\n".join(f"第{number}题：" + "年假怎么申请？" * 50 for number in range(4000)).encode()
    tasks = f"{nginx.url}/api/batch/tasks"

    reply = requests.post(tasks, files={"file": ("questions.txt", content)}, headers=SHOWN, timeout=TIMEOUT)
    task = f"{tasks}/{reply.json()['data']['task_id']}"
    shown = requests.delete(task, headers=SHOWN, timeout=TIMEOUT).json()["data"]

    assert len(content) > 4_000_000
    assert (reply.status_code, shown["status"]) == (201, "cancelled")


@pytest.mark.parametrize(
    ("path", "megabytes"), [("/api/chat", 1.5), ("/api/batch/tasks", 32.5)], ids=["question", "batch"]
)
def test_what_is_too_long_is_refused_in_our_words(nginx: Nginx, path: str, megabytes: float) -> None:
    """Nginx's limits are just above the product's, which answers as everywhere."""
    body = b'{"query": "' + b"x" * int(megabytes * 1024 * 1024) + b'"}'
    headers = {**SHOWN, "Content-Type": "application/json"}

    reply = requests.post(nginx.url + path, data=body, headers=headers, timeout=TIMEOUT)

    assert (reply.status_code, reply.json()["code"]) == (413, 10000)


def test_a_limit_counts_the_clients_own_address(nginx: Nginx) -> None:
    """One address opens as many sockets as it may, whatever it says it is; its neighbour is not held to blame."""
    expected = ({101}, 429, 101)
    # Exactly, and all of it: on other addresses again where Redis was too slow to count, or the minute ended meanwhile.
    tries = (_limit(nginx, f"127.0.0.{own}", f"127.0.0.{own + 1}") for own in (9, 19, 29))
    assert next((found for found in tries if found == expected), None) == expected


def _limit(nginx: Nginx, own: str, other: str) -> tuple[set[int], int, int]:
    """Return what one address gets within its limit, what beyond it, and what its neighbour gets."""
    opened = {handshake(nginx, own, pretends=f"203.0.113.{number}") for number in range(HANDSHAKES)}
    return opened, handshake(nginx, own, pretends="203.0.113.99"), handshake(nginx, other)


def handshake(nginx: Nginx, address: str, *, pretends: str = "") -> int:
    """Ask for a socket from one of this machine's addresses; return the status."""
    headers = {"Authorization": f"Bearer {KEY}", **({"X-Forwarded-For": pretends} if pretends else {})}
    options: dict[str, Any] = {"additional_headers": headers, "source_address": (address, 0)}
    status = 0
    try:
        with visit(nginx.url, "chat", **options):
            status = 101
    except InvalidStatus as refused:
        status = refused.response.status_code
    except ConnectionClosedError:
        # It was open: how its end went is not asked for here.
        if not status:
            raise
    return status


def test_one_address_may_ask_so_often(nginx: Nginx) -> None:
    """Beyond that it gets 429 in the product's shape; its callbacks go on, and so do other addresses."""
    with requests.Session() as hasty:
        replies = (hasty.get(f"{nginx.url}/docs", timeout=TIMEOUT) for _ in range(5000))
        refused = next(reply for reply in replies if reply.status_code != 200)
    with nginx.person() as user:
        user.verifies_url()

    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (429, 20000, "5")
    assert handshake(nginx, "127.0.0.40") == 101


def test_pages_and_documents_are_there(nginx: Nginx) -> None:
    """By HTTP/2 for browsers, compressed by the product itself."""
    pages = {path: requests.get(nginx.url + path, timeout=TIMEOUT) for path in ("/chat", "/realtime", "/docs")}
    described = requests.get(f"{nginx.url}/openapi.json", timeout=TIMEOUT)

    assert nginx.protocol() == "h2"
    assert {page.status_code for page in [*pages.values(), described]} == {200}
    assert {page.headers["Content-Encoding"] for page in pages.values()} <= {"br", "gzip"}
    assert "/api/chat" in described.json()["paths"]


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/health", "/healthz", "/readyz", "/api/ws/connections", "/chats", "/wechat"]
)
def test_what_is_not_for_the_world_is_not_there(nginx: Nginx, path: str) -> None:
    """Operations are asked for at a replica, not by way of nginx."""
    assert requests.get(nginx.url + path, timeout=TIMEOUT).status_code == 404
    # Its log line is written when the reply is on its way.
    assert wait_until(lambda: nginx.served(path))[-1] == ("404", "-")


def test_plain_http_leads_to_tls(nginx: Nginx) -> None:
    """To the same address, with method and body kept."""
    plain = f"http://127.0.0.1:{nginx.plain_port}/api/chat"

    reply = requests.post(plain, json={}, allow_redirects=False, timeout=TIMEOUT)

    assert (reply.status_code, reply.headers["Location"]) == (308, "https://127.0.0.1/api/chat")


def test_a_killed_replica_costs_nobody_an_answer(redis: RedisServer, dify: MockDify, tmp_path: Path) -> None:
    """kill -9 in mid-answer: WeCom polls on, who lost a connection comes back, and nothing is asked twice."""
    questions = [f"{SLOW} {number}" for number in range(5)]
    with served(redis, dify, tmp_path) as (nginx, both), nginx.person() as user:
        bubble = user.says(questions[0])
        # Connections go in turn: of each kind, one to each replica.
        chats = [Chat(nginx, question) for question in questions[1:3]]
        readers = [program.reads(nginx.url, question) for question in questions[3:]]
        for chat, reader in zip(chats, readers, strict=True):
            chat.socket.sees_text(chat.stream_id, SOME)
            reader.sees_text(SOME)

        both[0].kill()

        missed: list[CallbackFailed] = []
        wait_until(lambda: polls(user, bubble, missed).finish, TIMEOUT)
        answers = [chat.answer() for chat in chats]
        read = [read_on(nginx, reader) for reader in readers]

    expected = [dify.expected_answer(question) for question in questions]
    assert len(missed) <= 1, "from then on the replica that is left is asked"
    assert bubble.content == render_markdown(expected[0])
    assert [*answers, *(reader.text for reader in read)] == expected[1:]
    assert sorted(chat.was_cut for chat in chats) == [False, True]
    assert sorted(now is not then for now, then in zip(read, readers, strict=True)) == [False, True]
    assert [len(dify.asked(question)) for question in questions] == [1] * 5


def polls(user: WeComUser, bubble: Bubble, missed: list[CallbackFailed]) -> BubbleFrame:
    """Poll once; what met the replica as it died is not answered, and WeCom just asks again."""
    try:
        return user.polls(bubble)
    except CallbackFailed as exc:
        missed.append(exc)
        return bubble.last


class Chat:
    """A question at a socket, and its answer, over another socket where the first is lost."""

    def __init__(self, nginx: Nginx, question: str) -> None:
        self._nginx = nginx
        self.socket = ChatSocket(nginx.url, key=KEY)
        self.stream_id = self.socket.asks(question)
        self.was_cut = False

    def answer(self) -> str:
        """Wait for the end; return the text as its deltas make it, which is what the whole says."""
        wait_until(lambda: self.socket.over or self._ended(), TIMEOUT)
        text = self.socket.text(self.stream_id)
        if not self._ended():
            self.was_cut = True
            cursor = self.socket.cursor(self.stream_id)
            self.socket = ChatSocket(self._nginx.url, key=KEY)
            self.socket.says(type="resume", stream_id=self.stream_id, cursor=cursor)
            self.socket.sees_end(self.stream_id)
            text += self.socket.text(self.stream_id)
        (whole,) = self.socket.of(self.stream_id, "chat")
        self.socket.leaves()
        assert whole["content"] == text
        return text

    def _ended(self) -> bool:
        return bool(self.socket.of(self.stream_id, "chat"))


def read_on(nginx: Nginx, reader: Reader) -> Reader:
    """Wait for the end of an answer, coming back where its events broke off; return who has it whole."""
    while reader.sees_end().name != "done":
        reader = program.comes_back(nginx.url, reader)
    return reader
