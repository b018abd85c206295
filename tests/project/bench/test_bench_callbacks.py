"""Callbacks pass the product's checks, prepared streams are like the product's own, and the floor does its work."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import redis

from bench.load.callbacks import AES_KEY, PATH, TOKEN, Callbacks
from bench.load.floor import Floor
from bench.load.generator import LoadFailed
from bench.load.live_streams import LiveStreams, prose
from bench.stage.stage import production
from config.bots import DEFAULT_BOT
from services.redis.store import ScriptRunner
from services.streams.access import Access
from services.streams.store import StreamStore
from services.wecom.callback import WechatService, derive_key
from services.wecom.crypto import WXBizJsonMsgCrypt, decode_key
from services.wecom.message import Message
from utils.stream_utils import render_frame

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]


def split(request: bytes) -> tuple[dict[str, str], bytes]:
    """Return a request's query and body, after checks of its head."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    method, target, version = first.split()
    path, _, query = target.partition("?")
    assert (method, path, version) == ("POST", PATH, "HTTP/1.1")
    assert f"Content-Length: {len(body)}" in headers
    assert any(header.startswith("Host: ") for header in headers)
    return {name: value for name, (value,) in parse_qs(query).items()}, body


def taken(request: bytes) -> Message:
    """Return a request as the product reads it, after all its checks."""
    return WechatService("default", tokens=[TOKEN], aes_keys=[AES_KEY]).open(*split(request))


def sealed(stream: dict[str, Any]) -> bytes:
    reply = json.dumps({"msgtype": "stream", "stream": stream}, ensure_ascii=False)
    _, envelope = WXBizJsonMsgCrypt(TOKEN, AES_KEY, "").EncryptMsg(reply, "nonce")
    assert envelope
    return envelope.encode()


def test_a_refresh_is_a_poll_of_the_product() -> None:
    """The request passes every check of the callback and names stream and person."""
    message = taken(Callbacks().refresh("s1", "u1"))

    assert (message.msgtype, message.stream_id, message.userid, message.chatid) == ("stream", "s1", "u1", "")


def test_each_question_has_an_id_of_its_own() -> None:
    """Two questions with the same words have different ids, so neither is a redelivery."""
    first, second = (taken(Callbacks().question("年假怎么申请", "u1")) for _ in range(2))

    assert (first.msgtype, first.text, first.userid) == ("text", "年假怎么申请", "u1")
    assert first.msgid != second.msgid
    assert ".invalid/" in first.response_url


def test_a_reply_is_decrypted() -> None:
    """A reply that the product encrypted is read; one for another token and an empty one raise an error."""
    stream = {"id": "s1", "finish": False, "content": "好"}
    body = sealed(stream)

    assert Callbacks().opened(body) == stream
    with pytest.raises(ValueError, match="would not open"):
        Callbacks("another token").opened(body)
    with pytest.raises(ValueError, match="Expecting value"):
        Callbacks().opened(b"")


def test_prose_has_its_size_and_streams_share_no_line() -> None:
    """A text is shown unchanged by the product; no two streams share a line that the product could reuse."""
    for size in (64, 1024, 16 * 1024):
        assert len(prose(size).encode()) == size
        assert render_frame(prose(size), growing=True) == prose(size)

    streams = LiveStreams("few", 4096, count=3)
    lines = [line for number in range(3) for line in streams.text(number).splitlines() if line]
    assert len(lines) == len(set(lines)) > 100


def test_prepared_streams_are_running_ones_of_the_product(runner: ScriptRunner, any_redis_url: str) -> None:
    """The product's store reads them as running and whole, and allows each its reader."""
    streams = LiveStreams("few", 500, count=2)
    streams.write(any_redis_url)

    messages = [taken(poll) for poll in streams.polls()]
    shown = [StreamStore(runner).read(message.stream_id) for message in messages]
    access = Access({DEFAULT_BOT: derive_key(AES_KEY, "stream")})

    assert len({message.stream_id for message in messages}) == 2
    for number, (message, snapshot) in enumerate(zip(messages, shown, strict=True)):
        assert snapshot
        assert (snapshot.status, snapshot.text, snapshot.size) == ("processing", streams.text(number), 500)
        assert (snapshot.lapsed, snapshot.frame_over, snapshot.waiting) == (False, False, False)
        assert access.allows(snapshot.access, DEFAULT_BOT, message.userid, message.chatid)


def test_a_reply_that_differs_from_its_stream_is_found() -> None:
    """Each sample is compared with the stream that was polled: id, state and text."""
    streams = LiveStreams("few", 500, count=2)
    ids = [taken(poll).stream_id for poll in streams.polls()]
    right = {"id": ids[1], "finish": False, "content": streams.text(1)}

    streams.check({1: sealed(right)})
    wrong = [sealed({**right, **other}) for other in ({"id": ids[0]}, {"finish": True}, {"content": streams.text(0)})]
    for body in (*wrong, b""):
        with pytest.raises(LoadFailed):
            streams.check({1: body})


def ask(floor: Floor, request: bytes, **forged: str) -> tuple[str, bytes]:
    """Call the floor like gunicorn; return its status and body."""
    query, body = split(request)
    started: list[Any] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "QUERY_STRING": "&".join(f"{name}={value}" for name, value in {**query, **forged}.items()),
        "wsgi.input": io.BytesIO(body),
    }
    reply = b"".join(floor(environ, lambda status, headers: started.append((status, dict(headers)))))
    ((status, headers),) = started
    assert headers["Content-Length"] == str(len(reply))
    return status, reply


def test_the_floor_answers_like_the_product_with_one_command(redis_url: str) -> None:
    """Its replies pass the same comparison, and it sends Redis one command for each."""
    streams = LiveStreams("few", 500, count=2)
    streams.write(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        floor = Floor(TOKEN, decode_key(AES_KEY), client)
        ask(floor, streams.polls()[0])
        before = client.info("commandstats")
        replies = [ask(floor, poll) for poll in streams.polls()]
        after = client.info("commandstats")

    assert [status for status, _ in replies] == ["200 OK", "200 OK"]
    streams.check({number: body for number, (_, body) in enumerate(replies)})
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {name: count for name, count in calls.items() if count} == {"cmdstat_get": 2, "cmdstat_info": 1}


def test_the_floor_checks_the_signature(redis_url: str) -> None:
    """A wrong signature gets 403, as WeCom's rules require."""
    (poll,) = LiveStreams("few", 500, count=1).polls()
    with redis.Redis.from_url(redis_url) as client:
        status, body = ask(Floor(TOKEN, decode_key(AES_KEY), client), poll, msg_signature="0" * 40)

    assert (status, body) == ("403 Forbidden", b"")


def test_the_floor_runs_under_the_products_gunicorn() -> None:
    """Its configuration differs from the product's only in the application."""
    code = (
        "import runpy, sys\n"
        "ours, floor = (runpy.run_path(name) for name in sys.argv[1:])\n"
        "names = {n for n, v in ours.items() if isinstance(v, (str, int, bool, list)) and not n.startswith('_')}\n"
        "print({n for n in names if ours[n] != floor[n]}, floor['wsgi_app'], len(names) > 10)\n"
    )
    command = [sys.executable, "-c", code, "gunicorn.conf.py", "bench/load/floor_conf.py"]
    settings = dict(production("redis://127.0.0.1:1/1"), PYTHONPATH=str(ROOT))

    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "{'wsgi_app'} bench.load.floor:create_app() True"
