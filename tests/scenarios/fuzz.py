"""Send mutated callbacks, requests, frames and provider streams, and look for faults: `make fuzz N=1000000 SEED=1`.

One replica under gunicorn gets all of them but the providers' streams, which the providers of this process read. An
input is a function of seed, target and number. Prints a table; exits with status 1 if an input got a status of 500 or
more or no reply, closed a socket with 1011, raised what is no error of the product, left a traceback in the log or the
worker dead, or if the worker's memory grew by more than `GROWTH`.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from config.errors import LaibaoError
from demo.mocks.auth import DEMO_USER_QUERY, DemoUser, MockAuth, create_demo_users
from demo.mocks.custom.server import MockCustom
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from services.models import Query, UserInfo
from services.providers.base import BaseRAGProvider
from tests.scenarios.stage.mutations import NASTY, mutated_bytes, mutated_json
from tests.support.forgery import callback
from tests.support.made_providers import custom_provider, dify_provider, openai_provider
from tests.support.replicas import ADMIN_TOKEN, ROOT, Replica, replicas, settings_for
from tests.support.servers.processes import RedisServer
from tests.support.servers.raw_server import received
from utils.deadline import Deadline

KEY, TOKEN = "obviously-fake-key-of-fuzz", "obviously-fake-token-of-fuzz"
#: By WEBSOCKET_AUTH, the credentials of requests; sockets have the last one. "" is none.
CREDENTIALS: Mapping[str, Sequence[str]] = {"key": (KEY,), "token": (KEY, TOKEN), "none": (KEY, "")}
BOT_ID, SECRET = "aibFUZZ", "obviously-fake-secret"
#: Inputs of one piece of work, and pieces at the same time: most of them wait for answers. A socket is closed after 500
#: messages within a second.
BATCH, THREADS = 100, 40
#: Seconds until a reply counts as missing, and before each further attempt.
TIMEOUT = 60.0
AGAIN = (0.5, 2.0, 5.0)
#: Batches, or a twentieth of all, after which the worker's memory is measured first.
WARMING = 200
#: Bytes by which the worker may grow after that.
GROWTH = 64 * 1024 * 1024
#: Breaches that are printed.
MOST_SHOWN = 20

SETTINGS = {
    "API_KEYS": KEY,
    "LOG_LEVEL": "WARNING",
    # Redis keeps the answers of a few minutes.
    "STREAM_TTL": "120",
    "STREAM_MAX_SECONDS": "60",
    "WECHAT_ANSWER_SECONDS": "50",
    "TRUSTED_PROXIES": "1",
    "CONNECTIONS_PER_IP": "0",
    "WEBHOOK_HOSTS": "127.0.0.1",
    **dict.fromkeys(("RATE_LIMIT_IP", "RATE_LIMIT_USER", "RATE_LIMIT_KEY"), "off"),
}

#: Messages of WeCom, in callbacks and over the long connection, and requests of /v1.
CORPUS: Mapping[str, list[dict[str, Any]]] = json.loads(
    Path(__file__).with_name("stage").joinpath("fuzz_corpus.json").read_text("utf-8")
)
UPLOAD = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="q.csv"\r\nContent-Type: text/csv\r\n\r\n'
    b'question,id\r\n"a, b?",1\r\n\r\n--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--\r\n'
)
#: Values of paths, queries and headers that may be right ones.
WORDS = (
    "default",
    "1",
    "true",
    "json",
    "q-1",
    "0f6e7c1d1c5b4d2f9a4e0d6a3b8c7e51",
    "3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34",
)
#: Answers of the mock Dify.
SCRIPTS = ("chat", "agent-chat", "new-agent", "chatflow", "form", "pictures", "moderation", "error-event", "think")
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
#: What a long connection carries besides messages.
ACKS = ({"headers": {"req_id": "r1"}, "errcode": 0, "errmsg": "ok", "body": {"media_id": "m"}},)


class Request(NamedTuple):
    """A request as it is sent; `raw` replaces its bytes."""

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    raw: bytes = b""

    def encoded(self, *, close: bool = False) -> bytes:
        if self.raw:
            return self.raw
        headers = {"Host": "127.0.0.1", "Content-Length": str(len(self.body)), **self.headers}
        headers |= {"Connection": "close"} if close else {}
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + self.body


class Tally:
    """Counts inputs, seconds and outcomes of each target, and keeps the breaches. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inputs: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self.outcomes: dict[str, Counter[str]] = {}
        self.breaches: list[str] = []

    def note(self, target: str, outcome: object) -> None:
        with self._lock:
            self.inputs[target] += 1
            self.outcomes.setdefault(target, Counter())[str(outcome)] += 1

    def took(self, target: str, seconds: float) -> None:
        with self._lock:
            self._seconds[target] = self._seconds.get(target, 0.0) + seconds

    def breach(self, target: str, number: int, what: str, sent: object) -> None:
        with self._lock:
            self.breaches.append(f"{target} {number}: {what}: {sent!r:.2000}")

    def table(self) -> str:
        rows = [f"{'target':<16} {'inputs':>9} {'seconds':>8}  outcomes"]
        for name, count in self.inputs.items():
            shown = ", ".join(f"{outcome} {times}" for outcome, times in self.outcomes[name].most_common(8))
            rows.append(f"{name:<16} {count:>9,} {self._seconds[name]:>8.0f}  {shown}")
        return "\n".join(rows)


class Target(ABC):
    """One place that takes inputs; `share` is its part of all inputs."""

    name: str
    share: int

    def __init__(self, seed: int, tally: Tally) -> None:
        self.seed = seed
        self.tally = tally

    def rng(self, number: int) -> random.Random:
        return random.Random(f"{self.seed}/{self.name}/{number}")

    def run(self, numbers: range) -> None:
        """Send the inputs with these numbers, and note what became of them."""
        began = time.monotonic()
        try:
            self.send(numbers)
        # A fault of this program must not end the run silently.
        except Exception as exc:
            self.tally.breach(self.name, numbers.start, f"not sent: {type(exc).__name__}", str(exc))
        self.tally.took(self.name, time.monotonic() - began)

    @abstractmethod
    def send(self, numbers: range) -> None: ...


class HttpTarget(Target):
    """Requests, several over one connection."""

    def __init__(
        self, name: str, share: int, seed: int, tally: Tally, port: int, make: Callable[[random.Random], Request]
    ) -> None:
        super().__init__(seed, tally)
        self.name, self.share = name, share
        self._port = port
        self._make = make

    def send(self, numbers: range) -> None:
        with ExitStack() as stack:
            sock: socket.socket | None = None
            for number in numbers:
                made = self._make(self.rng(number))
                # One that broke the connection is sent again alone: the server may have closed it after the last one.
                # A 503 is sent again because Redis may have been late on a busy machine.
                for pause in (0.0, *AGAIN):
                    time.sleep(pause)
                    if sock is None or pause or made.raw:
                        sock = stack.enter_context(socket.create_connection(("127.0.0.1", self._port), TIMEOUT))
                    outcome, body, kept = _exchanged(sock, made)
                    sock = sock if kept else None
                    if outcome != 503 and (outcome != "closed" or made.raw):
                        break
                self.tally.note(self.name, outcome)
                wrong = outcome == "no reply" or (outcome == "closed" and not made.raw)
                if wrong or (isinstance(outcome, int) and outcome >= 500):
                    self.tally.breach(self.name, number, f"{outcome} {body[:200]!r}", made)


def _exchanged(sock: socket.socket, made: Request) -> tuple[int | str, bytes, bool]:
    """Return the status, "closed" or "no reply", the body, and whether the connection stays open."""
    try:
        sock.sendall(made.encoded())
        if made.raw:
            sock.shutdown(socket.SHUT_WR)
        with HTTPResponse(sock, method=made.method) as response:
            response.begin()
            return response.status, response.read(), not (response.will_close or made.raw)
    except TimeoutError:
        return "no reply", b"", False
    except (OSError, HTTPException, ValueError):
        return "closed", b"", False


class Requests:
    """Makes requests of every documented operation, and of what has no JSON body."""

    def __init__(self, document: Mapping[str, Any], credentials: Sequence[str]) -> None:
        self._credentials = credentials
        self._operations = [
            (method.upper(), path, described)
            for path, methods in document["paths"].items()
            for method, described in methods.items()
            if method in ("get", "post", "delete", "put", "patch")
        ]

    def rest(self, rng: random.Random) -> Request:
        method, path, described = rng.choice(self._operations)
        target = re.sub(r"\{\w+\}", lambda _: _word(rng), path)
        fields = {
            each["name"]: _word(rng)
            for each in described.get("parameters", ())
            if each["in"] == "query" and rng.random() < 0.5
        }
        target += f"?{urlencode(fields, errors='replace')}" if fields else ""
        body, headers = b"", self._headers(rng, path)
        content = described.get("requestBody", {}).get("content", {})
        if "multipart/form-data" in content and (len(content) == 1 or rng.random() < 0.3):
            return Request(method, target, {**headers, **FORM}, mutated_bytes(UPLOAD, rng))
        if content:
            body = mutated_json(_example(content["application/json"]), rng)
            headers["Content-Type"] = "application/json"
        return Request(method, target, headers, body)

    def events(self, rng: random.Random) -> Request:
        """A question whose answer is an event stream, or the rest of one."""
        headers = {**self._headers(rng, ""), "Accept": "text/event-stream", "Content-Type": "application/json"}
        if rng.random() < 0.5:
            headers["Last-Event-ID"] = _word(rng)
            return Request("GET", f"/api/chat/{_word(rng)}?cursor={_word(rng)}", headers)
        asked = {
            "query": "年假？",
            "stream": True,
            "id": f"q-{rng.randrange(1000)}",
            "inputs": {"a": 1},
            "conversation": "c",
        }
        return Request("POST", "/api/chat", headers, mutated_json(asked, rng))

    def completions(self, rng: random.Random) -> Request:
        headers = {**self._headers(rng, ""), "Content-Type": "application/json"}
        if rng.random() < 0.2:
            headers["Idempotency-Key"] = _word(rng)
        return Request("POST", "/v1/chat/completions", headers, mutated_json(rng.choice(CORPUS["completions"]), rng))

    def raw(self, rng: random.Random) -> Request:
        """Any of these with its bytes mutated, head included."""
        made = rng.choice((self.rest, self.events, self.completions, callback_request))(rng)
        return made._replace(raw=mutated_bytes(made.encoded(close=True), rng) or b"\r\n")

    def _headers(self, rng: random.Random, path: str) -> dict[str, str]:
        is_of_admin = path.startswith(("/api/ws", "/api/admin", "/metrics"))
        credential = ADMIN_TOKEN if is_of_admin else rng.choice(self._credentials)
        headers = {"X-Forwarded-For": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"}
        headers |= {"Authorization": f"Bearer {credential}"} if credential else {"X-Visitor": _word(rng)}
        return {**headers, "X-Request-Id": _word(rng)} if rng.random() < 0.1 else headers


def _example(content: Mapping[str, Any]) -> Any:
    examples = content.get("examples", {})
    return (
        content["example"] if "example" in content else next(iter(examples.values()))["value"] if examples else {"a": 1}
    )


def _word(rng: random.Random) -> str:
    """Return a value of a path, a query or a header: often a right one, and never with bytes that end it."""
    nasty = [value for value in NASTY if not isinstance(value, list | dict)]
    return quote(str(rng.choice((*WORDS, *nasty)))[:500], errors="replace")


def callback_request(rng: random.Random) -> Request:
    """A signed callback with a mutated message, or one that is mutated itself."""
    sender = {"msgid": f"m-{rng.getrandbits(40)}", "from": {"userid": f"u{rng.randrange(500)}"}}
    message = {**rng.choice(CORPUS["messages"]), **sender}
    text = mutated_json(message, rng).decode("utf-8", "replace")
    sealed = callback(text)
    params, body = dict(sealed.params), sealed.body
    if rng.random() < 0.2:
        body = mutated_json(json.loads(body), rng)
    elif rng.random() < 0.1:
        params[rng.choice(list(params))] = str(rng.choice(NASTY))
    return Request("POST", f"/wechat/callback?{urlencode(params, errors='replace')}", {}, body)


def documented_frames(endpoint: str) -> list[Any]:
    """Return the client's frames among the examples of docs/websocket.md."""
    blocks = re.findall(
        rf"```json {endpoint}\.client\.\w+\n(.*?)```", (ROOT / "docs/websocket.md").read_text(), re.DOTALL
    )
    return [json.loads(line) for block in blocks for line in block.splitlines()]


class SocketTarget(Target):
    """Frames of one endpoint; each batch has a connection of its own."""

    share = 12

    def __init__(self, endpoint: str, path: str, credential: str, seed: int, tally: Tally, port: int) -> None:
        super().__init__(seed, tally)
        self.name = f"socket {endpoint}"
        self._headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        self._url = f"ws://127.0.0.1:{port}{path}"
        self._frames = documented_frames(endpoint)

    def send(self, numbers: range) -> None:
        rest = list(numbers)
        while rest:
            rest = rest[self._sent(rest) :]

    def _sent(self, numbers: list[int]) -> int:
        """Send frames until the server closes; return how many were sent."""
        sent, frame, code = 0, b"", 0
        with self._connected() as client:
            reader = threading.Thread(target=_drained, args=(client,), daemon=True)
            reader.start()
            with suppress(ConnectionClosed):
                for number in numbers:
                    rng = self.rng(number)
                    frame = mutated_json(rng.choice(self._frames), rng)
                    # Most frames are UTF-8, because any other ends the connection.
                    client.send(frame if rng.random() < 0.001 else frame.decode("utf-8", "replace"), text=True)
                    sent += 1
                    self.tally.note(self.name, "sent")
                client.send('{"type": "ping", "timestamp": 1}')
                reader.join(0.2)
            client.close()
            reader.join(TIMEOUT)
            code = client.close_code or 0
        if code not in (1000, 1005):
            self.tally.outcomes[self.name][f"closed {code}"] += 1
        if code in (1006, 1011):
            self.tally.breach(self.name, numbers[max(0, sent - 1)], f"closed {code}", frame)
        return max(1, sent)

    def _connected(self) -> ClientConnection:
        for pause in (*AGAIN, 0.0):
            try:
                return connect(self._url, additional_headers=self._headers, compression=None, max_size=None)
            except InvalidStatus:
                if not pause:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")


def _drained(client: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        for _ in client:
            pass


class LinkTarget(Target):
    """Messages, events and acknowledgements of WeCom over the long connection of a bot, which subscribes here."""

    name, share = "long connection", 8

    def __init__(self, seed: int, tally: Tally) -> None:
        super().__init__(seed, tally)
        self._subscribed = threading.Event()
        self._one = threading.Lock()
        self._connection: ServerConnection | None = None
        self._server = serve(self._serve, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=None)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def close(self) -> None:
        self._server.shutdown()

    def send(self, numbers: range) -> None:
        # The product reads 2,000 frames a second.
        with self._one:
            for number in numbers:
                rng = self.rng(number)
                body = {**rng.choice(CORPUS["messages"]), "msgid": f"m-{rng.getrandbits(40)}"}
                cmd = "aibot_event_callback" if body["msgtype"] == "event" else "aibot_msg_callback"
                frame = (
                    rng.choice(ACKS)
                    if rng.random() < 0.2
                    else {"cmd": cmd, "headers": {"req_id": f"r{number}"}, "body": body}
                )
                text = mutated_json(frame, rng).decode("utf-8", "replace")
                if not self._subscribed.wait(TIMEOUT) or self._connection is None:
                    self.tally.breach(self.name, number, "not subscribed", text)
                    return
                try:
                    self._connection.send(text)
                    self.tally.note(self.name, "sent")
                except ConnectionClosed as exc:
                    self.tally.note(self.name, f"closed {exc.code}")
                    self._subscribed.clear()
                time.sleep(0.001)

    def _serve(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed, ValueError, KeyError):
            for text in connection:
                frame = json.loads(text)
                connection.send(json.dumps({"headers": frame["headers"], "errcode": 0, "errmsg": "ok"}))
                if frame["cmd"] == "aibot_subscribe":
                    self._connection = connection
                    self._subscribed.set()
        self._subscribed.clear()


class ProviderTarget(Target):
    """Streams of a provider's service, which the provider reads in this process."""

    share = 4

    def __init__(
        self, name: str, corpus: list[bytes], make: Callable[[str], BaseRAGProvider], seed: int, tally: Tally
    ) -> None:
        super().__init__(seed, tally)
        self.name = name
        self._corpus = corpus
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()
        self._provider = make(f"http://127.0.0.1:{self._listener.getsockname()[1]}")

    def close(self) -> None:
        self._listener.close()
        self._provider.close()

    def send(self, numbers: range) -> None:
        for number in numbers:
            outcome = "answered"
            try:
                self._provider.query(Query(f"fuzz-{number}-", "u1"), Deadline(TIMEOUT))
            except LaibaoError as exc:
                outcome = exc.code
            except Exception as exc:
                outcome = type(exc).__name__
                self.tally.breach(self.name, number, f"{outcome}: {exc}", self.reply(number))
            self.tally.note(self.name, outcome)

    def reply(self, number: int) -> bytes:
        rng = self.rng(number)
        reply = rng.choice(self._corpus)
        head, _, body = reply.partition(b"\r\n\r\n")
        if rng.random() < 0.1:
            return mutated_bytes(reply, rng)
        lines = body.split(b"\n")
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            prefix, brace, text = lines[at].partition(b"{")
            # A line that an earlier mutation nested too deep stays as it is.
            with suppress(ValueError, RecursionError):
                lines[at] = prefix + mutated_json(json.loads(brace + text), rng)
        body = b"\n".join(lines)
        return head + b"\r\n\r\n" + (mutated_bytes(body, rng) if rng.random() < 0.3 else body)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(accepted,), daemon=True).start()

    def _answer(self, accepted: socket.socket) -> None:
        accepted.settimeout(TIMEOUT)
        with suppress(OSError), accepted:
            asked = re.search(rb"fuzz-(\d+)-", received(accepted))
            accepted.sendall(
                self.reply(int(asked[1])) if asked else b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            )


def recorded(url: str, bodies: list[Any]) -> list[bytes]:
    """Return the replies of a mock service to these requests, each until its connection's end."""
    replies = []
    for body in bodies:
        reply = requests.post(url, json=body, headers={"Authorization": "Bearer k"}, timeout=TIMEOUT)
        head = f"HTTP/1.1 {reply.status_code} OK\r\nContent-Type: {reply.headers['Content-Type']}\r\nConnection: close"
        replies.append(head.encode() + b"\r\n\r\n" + reply.content)
    return replies


def provider_targets(seed: int, tally: Tally) -> list[ProviderTarget]:
    """Return the targets of all providers, with recorded streams of their mocks."""
    quick: dict[str, Any] = {"backoff": 0.001, "timeout": 5.0}
    with MockDify() as dify, MockOpenAI() as openai, MockCustom() as custom:
        asked = [
            {"query": f"年假 [[{name}]]", "user": "u", "inputs": {}, "response_mode": "streaming"} for name in SCRIPTS
        ]
        of_dify = recorded(f"{dify.base_url}/v1/chat-messages", asked)
        messages = [{"role": "user", "content": "年假"}]
        of_openai = recorded(
            f"{openai.base_url}/chat/completions", [{"model": "m", "messages": messages, "stream": True}]
        )
        of_custom = recorded(custom.url, [{"question": "年假"}, {"question": "年假 [[events]]"}])
    made: Mapping[str, tuple[list[bytes], Callable[[str], BaseRAGProvider]]] = {
        "dify stream": (of_dify, lambda url: dify_provider(base_url=url, api_keys=["k"], **quick)),
        "openai stream": (of_openai, lambda url: openai_provider(base_url=url, api_key="k", model="m", **quick)),
        "custom stream": (of_custom, lambda url: custom_provider(api_url=url, api_key="k", **quick)),
    }
    return [ProviderTarget(name, *how, seed, tally) for name, how in made.items()]


def memory(replica: Replica) -> int:
    """Return the bytes of the workers in memory."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in replica.workers]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def work(targets: list[Target], inputs: int) -> Iterator[tuple[Target, range]]:
    """Yield the inputs in batches, those of all targets mixed."""
    shares = sum(target.share for target in targets)
    batches = [
        (start / count, target, range(start, min(count, start + BATCH)))
        for target in targets
        if (count := max(1, inputs * target.share // shares))
        for start in range(0, count, BATCH)
    ]
    batches.sort(key=lambda batch: batch[0])
    return ((target, numbers) for _, target, numbers in batches)


@contextmanager
def directory(database: str) -> Iterator[dict[str, str]]:
    """Run an auth API with four of five people; yield the settings of a replica that asks it for their tokens."""
    people = [DemoUser(f"u{number}", f"E{number}", f"员工{number}") for number in range(400)]
    create_demo_users(f"sqlite:///{database}", people)
    with MockAuth(people) as auth:
        yield {"AUTH_MODE": "external", "AUTH_SERVICE_URL": auth.url, "AUTH_USER_QUERY": DEMO_USER_QUERY}


@contextmanager
def stage(seed: int, tally: Tally, folder: Path, settings: Sequence[str]) -> Iterator[tuple[Replica, list[Target]]]:
    """Run a replica with `settings`, "NAME=value", over those of `SETTINGS`; yield it with all targets."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        link = LinkTarget(seed, tally)
        stack.callback(link.close)
        own = {"MODE": "websocket", "BOT_ID": BOT_ID, "BOT_SECRET": SECRET, "WS_URL": link.url}
        bots = json.dumps({"link": {f"WECHAT_{name}": value for name, value in own.items()}})
        env = settings_for(redis.url(), DATABASE_PATH=str(folder / "fuzz.db"), WECHAT_BOTS=bots, **SETTINGS)
        env |= dict(setting.split("=", 1) for setting in settings)
        if env.get("WEBSOCKET_AUTH") == "token":
            env |= stack.enter_context(directory(env["DATABASE_PATH"]))
        (replica,) = stack.enter_context(replicas(1, env, folder))
        with redis.client() as stored:
            stored.set(f"authorization:token:{TOKEN}", UserInfo("E1001", "张三").to_json())
        credentials = CREDENTIALS[env.get("WEBSOCKET_AUTH", "key")]
        made = Requests(requests.get(f"{replica.url}/openapi.json", timeout=TIMEOUT).json(), credentials)
        of_http = {"callback": (30, callback_request), "rest": (20, made.rest), "events": (5, made.events)}
        of_http |= {"v1": (10, made.completions), "raw": (10, made.raw)}
        providers = provider_targets(seed, tally)
        for each in providers:
            stack.callback(each.close)
        yield (
            replica,
            [
                *(HttpTarget(name, share, seed, tally, replica.port, make) for name, (share, make) in of_http.items()),
                SocketTarget("chat", "/ws/chat", credentials[-1], seed, tally, replica.port),
                SocketTarget("realtime", "/ws/realtime-asr", credentials[-1], seed, tally, replica.port),
                link,
                *providers,
            ],
        )


def run(inputs: int, seed: int, folder: Path, *, seconds: float = math.inf, settings: Sequence[str] = ()) -> bool:
    """Send the inputs, print the table, and return whether nothing broke. No batch begins after `seconds`."""
    tally = Tally()
    with stage(seed, tally, folder, settings) as (replica, targets):
        batches = list(work(targets, inputs))
        workers, began, first = replica.workers, time.monotonic(), min(WARMING, len(batches) // 20 or 1)
        sizes = []
        for part in (batches[:first], batches[first:]):
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda batch: time.monotonic() < began + seconds and batch[0].run(batch[1]), part))
            sizes.append(memory(replica))
        if replica.workers != workers:
            tally.breaches.append(f"the worker {workers} died: {replica.workers}")
        if sizes[1] > sizes[0] + GROWTH:
            tally.breaches.append("the worker's memory grew")
        traces = replica.log.split("Traceback (most recent call last)")[1:]
        tally.breaches += [f"traceback: {trace.splitlines()[0]:.3000}" for trace in traces]
    count, took = sum(tally.inputs.values()), time.monotonic() - began
    print(f"{count:,} inputs in {took:.0f} s, seed {seed}\n\n{tally.table()}\n")
    warm, end = (size / 1024 / 1024 for size in sizes)
    print(f"memory of the worker: {warm:.0f} MiB after the first inputs, {end:.0f} MiB at the end")
    print(*tally.breaches[:MOST_SHOWN], sep="\n")
    print(f"{len(tally.breaches)} breaches")
    return not tally.breaches


def main() -> int:
    """Return 0 if nothing broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs, over all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the replica")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no input begins after them")
    options = parser.parse_args()
    # The servers end with the program, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The providers of this process log each broken stream.
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="laibao-fuzz-") as folder:
        return (
            0 if run(options.inputs, options.seed, Path(folder), seconds=options.seconds, settings=options.set) else 1
        )


if __name__ == "__main__":
    sys.exit(main())
