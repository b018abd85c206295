"""Two replicas behind a real nginx with deploy/nginx.conf: every endpoint through TLS."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.support.sockets.event_reader import EventReader, Program
from tests.support.sockets.visitor import visit
from utils.markdown.wecom import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "not-a-real-key"
SHOWN = {"X-API-Key": KEY}
QUESTION = "年假怎么申请？👍🏽"
SLOW = f"{QUESTION} [[slow]]"
#: Characters after which an answer counts as in progress.
SOME = 20
#: Sockets that one address may open in a minute: more than all other tests of this module open.
HANDSHAKES = 20

program = Program(KEY)


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A mock Dify."""
    with MockDify(delay=0.01, slow=0.1, limit=120.0) as dify:
        yield dify


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that only the replicas use."""
    with RedisServer() as server:
        yield server


@contextmanager
def served(redis: RedisServer, dify: MockDify, folder: Path, **changes: str) -> Iterator[tuple[Nginx, list[Replica]]]:
    """Run two replicas with the units' settings and these changes, and nginx in front of them."""
    own = {"API_KEYS": KEY, "TRUSTED_PROXIES": "1", "STREAM_LEASE": "2", "RATE_LIMIT_IP": f"{HANDSHAKES}/minute"}
    batches = {"DATABASE_PATH": str(folder / "laibao.db"), "BATCH_MAX_CONCURRENT": "1"}
    env = settings_for(redis.url(), **dify_settings(dify.base_url, **{**own, **batches, **changes}))
    with replicas(2, env, folder) as both, in_front_of(both) as nginx:
        yield nginx, both
        assert "Traceback" not in both[0].log + both[1].log


@pytest.fixture(scope="module")
def nginx(redis: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Nginx in front of two replicas that no test kills."""
    with served(redis, dify, tmp_path_factory.mktemp("nginx")) as (nginx, _):
        yield nginx


def test_wecom_asks_and_polls(nginx: Nginx, dify: MockDify) -> None:
    """URL verification, a question and its polls reach both replicas in turn; the answer is the provider's."""
    with nginx.person() as user:
        user.verifies_url()
        answer = user.sees_finish(user.says(SLOW), TIMEOUT, 0.05)

    callbacks = nginx.served("/wechat/callback")
    assert answer == render_markdown(dify.expected_answer(SLOW))
    assert len({replica for _, replica in callbacks}) == 2
    assert {status for status, _ in callbacks} == {"200"}


def test_both_sockets_open_and_answer(nginx: Nginx, dify: MockDify) -> None:
    """Both sockets are upgraded through TLS; a page of this origin is accepted, one of another is not."""
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


def test_events_are_not_buffered(nginx: Nginx, dify: MockDify) -> None:
    """Text arrives while the provider is still answering, uncompressed; the whole equals its answer byte for byte."""
    dify.holds_at = 8
    reader = program.reads(nginx.url, QUESTION)
    reader.sees_text(SOME)
    early = len(reader.text)
    dify.holds_at = None
    reader.sees_end()

    assert early < len(reader.text)
    assert reader.text == reader.events[-1].data["content"] == dify.expected_answer(QUESTION)
    assert "Content-Encoding" not in reader._reply.headers


def test_waiting_for_an_answer_is_not_cut_off(nginx: Nginx, dify: MockDify) -> None:
    """A JSON request, silent until the answer is whole, is not cut off; either replica has the answer by its id."""
    first, again = (program.asks(nginx.url, QUESTION, id="q1").json()["data"] for _ in range(2))

    assert first == again
    assert first["content"] == dify.expected_answer(QUESTION)


def test_a_file_of_some_megabytes_becomes_a_batch(nginx: Nginx) -> None:
    """Nginx passes on a body of several megabytes, and the product reads it."""
    content = "\n".join(f"第{number}题：" + "年假怎么申请？" * 50 for number in range(4000)).encode()
    tasks = f"{nginx.url}/api/batch/tasks"

    reply = requests.post(tasks, files={"file": ("questions.txt", content)}, headers=SHOWN, timeout=TIMEOUT)
    task = f"{tasks}/{reply.json()['data']['task_id']}"
    shown = requests.delete(task, headers=SHOWN, timeout=TIMEOUT).json()["data"]

    assert len(content) > 4_000_000
    assert (reply.status_code, shown["status"]) == (201, "cancelled")


@pytest.mark.parametrize(
    ("path", "megabytes"),
    [("/api/chat", 1.5), ("/api/batch/tasks", 32.5), ("/api/push", 32.5), ("/api/files", 20.5)],
    ids=["question", "batch", "push", "file"],
)
def test_a_body_that_is_too_long_is_refused_by_the_product(nginx: Nginx, path: str, megabytes: float) -> None:
    """Nginx's limits are just above the product's, which answers with its own error."""
    body = b'{"query": "' + b"x" * int(megabytes * 1024 * 1024) + b'"}'
    headers = {**SHOWN, "Content-Type": "application/json"}

    reply = requests.post(nginx.url + path, data=body, headers=headers, timeout=TIMEOUT)

    assert (reply.status_code, reply.json()["code"]) == (413, 10000)


def test_a_limit_counts_the_clients_own_address(nginx: Nginx) -> None:
    """One address opens as many sockets as its limit, whatever X-Forwarded-For says; its neighbour is not affected."""
    expected = ({101}, 429, 101)
    # Other addresses are tried if Redis was too slow to count, or the minute ended meanwhile.
    tries = (_limit(nginx, f"127.0.0.{own}", f"127.0.0.{own + 1}") for own in (9, 19, 29))
    assert next((found for found in tries if found == expected), None) == expected


def _limit(nginx: Nginx, own: str, other: str) -> tuple[set[int], int, int]:
    """Return the statuses of one address within its limit, its status beyond it, and its neighbour's."""
    opened = {handshake(nginx, own, pretends=f"203.0.113.{number}") for number in range(HANDSHAKES)}
    return opened, handshake(nginx, own, pretends="203.0.113.99"), handshake(nginx, other)


def handshake(nginx: Nginx, address: str, *, pretends: str = "") -> int:
    """Open a socket from a local address; return the status."""
    headers = {"Authorization": f"Bearer {KEY}", **({"X-Forwarded-For": pretends} if pretends else {})}
    options: dict[str, Any] = {"additional_headers": headers, "source_address": (address, 0)}
    status = 0
    try:
        with visit(nginx.url, "chat", **options):
            status = 101
    except InvalidStatus as refused:
        status = refused.response.status_code
    except ConnectionClosedError:
        # The socket was open; its close is not part of the test.
        if not status:
            raise
    return status


def _first_refused(nginx: Nginx) -> requests.Response | None:
    """Ask for a file that does not exist, which costs little, until a reply is 429."""
    with requests.Session() as session:
        replies = (session.get(f"{nginx.url}/files/unknown", timeout=TIMEOUT) for _ in range(2000))
        return next((reply for reply in replies if reply.status_code == 429), None)


def test_requests_of_one_address_are_limited(nginx: Nginx) -> None:
    """Beyond nginx's limit an address gets the product's 429; its callbacks and other addresses are served."""
    # Eight at once: on a busy machine one after another would stay below 50 a second.
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: _first_refused(nginx), range(8)))
    refused = next(reply for reply in replies if reply is not None)
    with nginx.person() as user:
        user.verifies_url()

    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (429, 20000, "5")
    assert handshake(nginx, "127.0.0.40") == 101


def test_pages_and_documents_are_served(nginx: Nginx) -> None:
    """Browsers use HTTP/2, and the product compresses its pages itself."""
    pages = {path: requests.get(nginx.url + path, timeout=TIMEOUT) for path in ("/chat", "/realtime", "/docs")}
    described = requests.get(f"{nginx.url}/openapi.json", timeout=TIMEOUT)

    assert nginx.protocol() == "h2"
    assert {page.status_code for page in [*pages.values(), described]} == {200}
    assert {page.headers["Content-Encoding"] for page in pages.values()} <= {"br", "gzip"}
    assert "/api/chat" in described.json()["paths"]


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/health", "/healthz", "/readyz", "/api/ws/connections", "/chats", "/wechat"]
)
def test_operations_endpoints_are_not_public(nginx: Nginx, path: str) -> None:
    """Operations endpoints are reached at a replica, not through nginx."""
    assert requests.get(nginx.url + path, timeout=TIMEOUT).status_code == 404
    # Nginx logs the request after it has begun to send the reply.
    assert wait_until(lambda: nginx.served(path))[-1] == ("404", "-")


def test_plain_http_redirects_to_tls(nginx: Nginx) -> None:
    """Plain HTTP redirects to the same address with 308, which keeps method and body."""
    plain = f"http://127.0.0.1:{nginx.plain_port}/api/chat"

    reply = requests.post(plain, json={}, allow_redirects=False, timeout=TIMEOUT)

    assert (reply.status_code, reply.headers["Location"]) == (308, "https://127.0.0.1/api/chat")


def test_answers_outlive_a_killed_replica(redis: RedisServer, dify: MockDify, tmp_path: Path) -> None:
    """After SIGKILL in mid-answer WeCom polls on, cut clients resume, and nothing is asked twice."""
    questions = [f"{QUESTION} {number}" for number in range(5)]
    dify.holds_at = 8
    with served(redis, dify, tmp_path) as (nginx, both), nginx.person() as user:
        bubble = user.says(questions[0])
        # Nginx distributes connections in turn: of each kind, one goes to each replica.
        chats = [Chat(nginx, question) for question in questions[1:3]]
        readers = [program.reads(nginx.url, question) for question in questions[3:]]
        for chat, reader in zip(chats, readers, strict=True):
            chat.socket.sees_text(chat.stream_id, SOME)
            reader.sees_text(SOME)

        both[0].kill()
        dify.holds_at = None

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


def test_a_leaving_replica_costs_no_question_and_no_socket(redis: RedisServer, tmp_path: Path) -> None:
    """What a leaving replica refuses goes to the other one: answers over HTTP, OpenAI's address, and sockets.

    Nothing is asked twice. Without nginx the replica's own 503 is unchanged.
    """
    questions = [f"{QUESTION} 离开时 {number}" for number in range(16)]
    unhurried = {"DRAIN_SECONDS": "250", "DIFY_TIMEOUT": "250", "RATE_LIMIT_IP": "off", "RATE_LIMIT_USER": "off"}
    with (
        MockDify(delay=0.001, limit=300.0) as dify,
        served(redis, dify, tmp_path, **unhurried) as (nginx, (leaving, _)),
    ):
        # Its answer never comes, so the replica drains until the test ends.
        program.reads(leaving.url, "[[silent]]")
        wait_until(lambda: dify.open_streams == 1, TIMEOUT)
        leaving.signal(signal.SIGTERM)
        wait_until(lambda: requests.get(f"{leaving.url}/readyz", timeout=TIMEOUT).status_code == 503, TIMEOUT)

        answers = [program.asks(nginx.url, question) for question in questions[:-4]]
        for question in questions[-4:]:
            body = {"model": "default", "messages": [{"role": "user", "content": question}]}
            url = f"{nginx.url}/v1/chat/completions"
            answers.append(requests.post(url, json=body, headers=SHOWN, timeout=TIMEOUT))
        opened = {handshake(nginx, "127.0.0.50") for _ in range(6)}
        direct = program.asks(leaving.url, QUESTION)
        drained = leaving.process.poll() is None

        assert drained
        assert [answer.status_code for answer in answers] == [200] * len(questions)
        assert opened == {101}
        assert [len(dify.asked(question)) for question in questions] == [1] * len(questions)
        assert (direct.status_code, direct.json()["data"]["reason"]) == (503, "draining")
        assert "X-Accel-Redirect" not in direct.headers


def polls(user: WeComUser, bubble: Bubble, missed: list[CallbackFailed]) -> BubbleFrame:
    """Poll once; a poll that the dying replica did not answer is recorded, as WeCom simply polls again."""
    try:
        return user.polls(bubble)
    except CallbackFailed as exc:
        missed.append(exc)
        return bubble.last


class Chat:
    """A question over a socket, and its answer, over a second socket if the first is cut."""

    def __init__(self, nginx: Nginx, question: str) -> None:
        self._nginx = nginx
        self.socket = ChatSocket(nginx.url, key=KEY)
        self.stream_id = self.socket.asks(question)
        self.was_cut = False

    def answer(self) -> str:
        """Wait for the end; return the text of the deltas after comparing it with the whole."""
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


def read_on(nginx: Nginx, reader: EventReader) -> EventReader:
    """Wait for the end of an answer, resuming whenever its events break off; return the last reader."""
    while reader.sees_end().name != "done":
        reader = program.comes_back(nginx.url, reader)
    return reader
