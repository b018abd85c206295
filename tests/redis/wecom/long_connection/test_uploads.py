"""Files over a real connection to the simulated server: parts, what is continued, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis

from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.screen import UploadedFile
from demo.wecom.long_connection.server import LongConnectionServer
from services.redis.store import ScriptRunner
from services.wecom.long_connection import uploads
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import AckMissing, LinkLost
from services.wecom.long_connection.upload_store import UploadStore
from services.wecom.long_connection.uploads import (
    MAX_FILE,
    PART_BYTES,
    FileMessage,
    UploadDelayed,
    UploadRefused,
    Uploads,
)
from tests.support.long_connection.bots import BOT_ID, bot_server
from tests.support.long_connection.links import BOT, linked

KEYS = {BOT: b"k" * 32}
CHUNK = "aibot_upload_media_chunk"
PNG, AMR = b"\x89PNG\r\n\x1a\n", b"#!AMR\n"
MP4 = b"\x00\x00\x00\x18ftypmp42"
MIB = 1024 * 1024


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as server:
        yield server
        assert server.broken == []


@pytest.fixture
def link(wecom: LongConnectionServer) -> Iterator[Link]:
    with linked(wecom) as link:
        yield link


@pytest.fixture
def sender(runner: ScriptRunner) -> Uploads:
    return Uploads(UploadStore(runner), AllowanceStore(runner, KEYS), KEYS)


def shown(wecom: LongConnectionServer, message: FileMessage) -> UploadedFile:
    """Return the file that a message shows."""
    return wecom.bots[BOT_ID].uploads.find(message.body, wecom.clock())


def received(wecom: LongConnectionServer) -> list[dict[int, int]]:
    """Return for each upload how often each part came."""
    return [dict(upload.received) for upload in wecom.bots[BOT_ID].uploads.uploads.values()]


def test_a_file_of_many_parts_arrives_whole(wecom: LongConnectionServer, link: Link, sender: Uploads) -> None:
    """Parts leave two at a time, which the server checks from eleven parts on, and the MD5 fits."""
    wecom.faults.add(Fault(CHUNK, ack_seconds=0.1))
    content = os.urandom(11 * PART_BYTES + 5)

    message = sender.message(link, "报告.pdf", content)

    assert list(message.body) == ["msgtype", "file"]
    assert shown(wecom, message) == UploadedFile("file", "报告.pdf", content)
    assert received(wecom) == [dict.fromkeys(range(12), 1)]


@pytest.mark.parametrize(
    ("head", "size", "kind"),
    [
        (PNG, 2 * MIB, "image"),
        (b"\xff\xd8\xff\xe0", 1000, "image"),
        (PNG, 2 * MIB + 1, "file"),
        (b"GIF89a", 1000, "file"),
        (MP4, 10 * MIB, "video"),
        (MP4, 10 * MIB + 1, "file"),
        (AMR, 2 * MIB, "voice"),
        (AMR, 2 * MIB + 1, "file"),
        (b"ID3", 1000, "file"),
        (b"anything", MAX_FILE, "file"),
    ],
)
def test_a_file_is_shown_as_what_wecom_takes(
    wecom: LongConnectionServer, link: Link, sender: Uploads, head: bytes, size: int, kind: str
) -> None:
    """The first bytes tell the kind, whatever the name says; what is too large for its kind goes as a file."""
    message = sender.message(link, "a.txt", head + bytes(size - len(head)))

    assert (message.body["msgtype"], shown(wecom, message).kind) == (kind, kind)


def test_more_than_20_mib_are_refused(wecom: LongConnectionServer, link: Link, sender: Uploads) -> None:
    """Nothing is sent of a file that WeCom would refuse."""
    with pytest.raises(UploadRefused) as caught:
        sender.message(link, "a.bin", bytes(MAX_FILE + 1))

    assert caught.value.code == "too_large"
    assert received(wecom) == []


def test_a_media_id_is_used_again(
    wecom: LongConnectionServer, link: Link, sender: Uploads, redis_client: redis.Redis
) -> None:
    """The same file is uploaded once for three days less a margin; another name or content is another file."""
    first = sender.message(link, "a.txt", b"same")

    assert sender.message(link, "a.txt", b"same") == first._replace(is_reused=True)
    assert len({sender.message(link, *other).digest for other in (("b.txt", b"same"), ("a.txt", b"else"))}) == 2
    assert len(received(wecom)) == 3
    lives = [redis_client.ttl(key) for key in redis_client.scan_iter("*:upload:*")]
    assert all(69 * 3600 < life <= 70 * 3600 for life in lives)


def test_an_upload_goes_on_over_another_connection(wecom: LongConnectionServer, sender: Uploads) -> None:
    """After the connection broke only the parts that WeCom has not acknowledged are sent."""
    content = os.urandom(8 * PART_BYTES)
    wecom.faults.add(Fault(CHUNK, closes=True, where=lambda body: body["chunk_index"] == 4))

    with linked(wecom) as link, pytest.raises(LinkLost):
        sender.message(link, "a.bin", content)
    acknowledged = 4
    wecom.faults.clear()
    with linked(wecom) as link:
        message = sender.message(link, "a.bin", content)

    assert shown(wecom, message).content == content
    (parts,) = received(wecom)
    assert [parts[number] for number in range(acknowledged - 1)] == [1] * (acknowledged - 1)
    assert sum(parts.values()) <= 8 + 2


def test_an_upload_that_wecom_ended_begins_anew(
    wecom: LongConnectionServer, link: Link, sender: Uploads, runner: ScriptRunner
) -> None:
    """A session of which WeCom knows nothing any more costs one more attempt."""
    fault = wecom.faults.add(Fault("aibot_upload_media_finish", errcode=40058, times=1))
    with pytest.raises(UploadRefused):
        sender.message(link, "a.bin", b"content")
    assert fault.met == 1
    fault.times = 2

    message = sender.message(link, "a.bin", b"content")

    assert shown(wecom, message).content == b"content"
    assert received(wecom) == [{0: 1}, {0: 1}]


@pytest.mark.parametrize(("code", "seconds"), [(-1, 2.0), (6000, 2.0), (45009, 60.0)])
def test_a_busy_wecom_is_asked_later(
    wecom: LongConnectionServer, link: Link, sender: Uploads, code: int, seconds: float
) -> None:
    """The file is not refused: a later call continues the same upload."""
    wecom.faults.add(Fault(CHUNK, errcode=code, times=1))
    with pytest.raises(UploadDelayed) as caught:
        sender.message(link, "a.bin", b"content")

    assert caught.value.seconds == seconds
    assert shown(wecom, sender.message(link, "a.bin", b"content")).content == b"content"
    assert len(received(wecom)) == 1


def test_a_part_without_an_ack_is_sent_again(
    wecom: LongConnectionServer, link: Link, sender: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are idempotent; after three attempts in vain the upload is left to a later call."""
    fault = wecom.faults.add(Fault(CHUNK, lost=True))
    with monkeypatch.context() as hurried:
        hurried.setattr(uploads, "PART_SECONDS", 0.05)
        with pytest.raises(AckMissing):
            sender.message(link, "a.bin", b"content")
    assert fault.met == 3

    wecom.faults.clear()
    assert shown(wecom, sender.message(link, "a.bin", b"content")).content == b"content"
    assert len(received(wecom)) == 1


def test_an_error_of_one_part_ends_the_upload(
    link: Link, sender: Uploads, wecom: LongConnectionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: WeCom is not told that a file is complete of which a part was not sent."""
    monkeypatch.setattr(UploadStore, "add", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        sender.message(link, "a.bin", b"content")
    assert wecom.frames[-1].frame.cmd == CHUNK


def test_uploads_obey_wecoms_limit(wecom: LongConnectionServer, link: Link, sender: Uploads) -> None:
    """The 31st upload of a minute is put off, and told for how long."""
    for number in range(30):
        sender.message(link, f"{number}.txt", b"content")

    with pytest.raises(UploadDelayed) as caught:
        sender.message(link, "30.txt", b"content")
    assert 0 < caught.value.seconds <= 62
    assert len(received(wecom)) == 30
