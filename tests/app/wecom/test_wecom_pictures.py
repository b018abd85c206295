"""Pictures and files of WeCom's answers: fetched from Dify in time, converted, shown once with the finished frame."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from config.texts import ZH
from demo.mocks.dify.features.files import file, signed
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble, ResponseServer, WeComUser
from services.files import collection
from services.streams.store import stream_keys
from tests.app.wecom.test_wecom import ends_frame, sees_text
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.streams.counting_relay import CountingRelay

PUBLIC = "https://chat.example.com"


@pytest.fixture
def settings(dify: MockDify) -> dict[str, str]:
    return {"PUBLIC_URL": PUBLIC, "WECHAT_RESPONSE_HOSTS": "127.0.0.1", **dify_settings(dify.base_url)}


@pytest.fixture
def server(redis_url: str, settings: dict[str, str]) -> Iterator[AppServer]:
    with AppServer(redis_url, **settings) as server:
        yield server


@pytest.fixture
def person(server: AppServer) -> Iterator[WeComUser]:
    with server.user() as person:
        yield person


def answered(person: WeComUser, text: str, script: str = "echo") -> Bubble:
    bubble = person.says(f"{text} [[{script}]]")
    person.sees_finish(bubble, every=0.05)
    return bubble


def image(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


def files_logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__ for record in caplog.records if record.message == "files of an answer"]


def test_an_answer_shows_its_pictures_and_links_its_file(
    server: AppServer, person: WeComUser, dify: MockDify, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the text first, converted where WeCom takes another format; a file is linked, and no address leaks."""
    bubble = answered(person, "画一座房子", "pictures")
    again = person.polls(bubble)

    first, second, third = map(image, bubble.last.pictures)
    assert [one.format for one in (first, second, third)] == ["JPEG", "JPEG", "PNG"]
    assert {one.size for one in (first, second, third)} == {(480, 300)}
    assert "（图片：房子）" in bubble.content
    assert (again.content, again.pictures) == (bubble.content, bubble.frames[-2].pictures)
    shown = "".join(frame.content for frame in bubble.frames)
    assert "sign=" not in shown
    assert dify.base_url not in shown
    assert not [frame for frame in bubble.frames if frame.pictures and not frame.finish]
    link = re.search(rf"\[年度报告\.pdf\]\({PUBLIC}(/files/\S+\.pdf)\)", bubble.content)
    assert link
    reply = requests.get(server.url + link[1], timeout=10)
    expected = file("report.pdf")
    assert expected
    assert reply.content == expected.content
    assert reply.headers["Content-Type"] == "application/pdf"
    (line,) = files_logged(caplog)
    assert (line["pictures"], line["files"], line["missing"]) == (3, 1, 0)
    assert "sign=" not in caplog.text


def test_a_picture_without_words_is_an_answer(person: WeComUser) -> None:
    """Some agents draw and say nothing."""
    bubble = answered(person, "画", "only-picture")

    assert bubble.content == ZH["picture_unnamed"]
    assert len(bubble.last.pictures) == 1


def test_a_moderated_answer_shows_no_picture(person: WeComUser, dify: MockDify) -> None:
    """Moderation discards everything that came before it."""
    bubble = answered(person, "画", "picture-moderated")

    assert bubble.content == dify.expected_answer("画 [[picture-moderated]]")
    assert not bubble.last.pictures


@pytest.mark.parametrize(
    ("name", "kind", "size"), [("turned.jpg", "JPEG", (300, 480)), ("day.gif", "JPEG", (480, 300))]
)
def test_pictures_are_converted(person: WeComUser, name: str, kind: str, size: tuple[int, int]) -> None:
    """A photograph stands upright, and an animation shows its first frame."""
    bubble = answered(person, f"![图]({signed(name)})")

    (picture,) = map(image, bubble.last.pictures)
    assert (picture.format, picture.size) == (kind, size)
    assert picture.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("name", ["bomb.png", "huge.png", "page.png", "nowhere.png"])
def test_what_cannot_be_shown_is_named(person: WeComUser, name: str) -> None:
    """A decompression bomb, too many bytes, a page, nothing at all: the answer ends with a note, and is shown."""
    bubble = answered(person, f"看![图]({signed(name)})和![房子]({signed('photo')})")

    assert bubble.content == f"看（图片：图）和（图片：房子）\n\n{ZH['files_missing'].format(names='图')}"
    assert len(bubble.last.pictures) == 1


@pytest.mark.parametrize("whose", ["person's", "all callers'"])
def test_an_answer_without_room_for_its_files_goes_on(server: AppServer, whose: str) -> None:
    """Redis has no room for this person's files, or for anybody's: the words are whole, and say what is missing."""
    settings, budget = server.container.settings, server.container.file_budget
    callers = {"person's": ["E1001"], "all callers'": [f"key:{number}" for number in range(4)]}[whose]
    for caller in callers:
        budget.count(caller, {f"file of {caller}": settings.files_max_bytes_per_key}, seconds=100.0)
    full = budget.used()

    with server.user("E1001") as person:
        without = answered(person, f"看![房子]({signed('photo')})")
        budget.remove(f"file of {caller}" for caller in callers)
        with_it = answered(person, f"看![房子]({signed('photo')})")

    assert without.content == f"看（图片：房子）\n\n{ZH['files_missing'].format(names='房子')}"
    assert (without.last.pictures, len(with_it.last.pictures)) == ((), 1)
    assert full == len(callers) * settings.files_max_bytes_per_key


def test_other_peoples_hosts_are_not_fetched(person: WeComUser, dify: MockDify) -> None:
    """A private host that is not listed: its address stays for the reader, and nothing is requested."""
    url = f"{dify.base_url}/other/photo"
    bubble = answered(person, f"![图]({url})")

    assert bubble.content == f"（图片：图）\n\n{ZH['files_missing'].format(names=f'[图]({url})')}"
    assert not [call for call in dify.calls if "/other/" in call]


def test_an_internal_files_host_is_reached_through_dify(person: WeComUser) -> None:
    """`FILES_URL` may name a host that only Dify reaches; its own address serves the same files."""
    bubble = answered(person, f"![房子]({signed('photo', 'http://api:5001')})")

    assert len(bubble.last.pictures) == 1
    assert "api:5001" not in bubble.content


def test_a_link_that_died_is_named(redis_url: str, settings: dict[str, str], dify: MockDify) -> None:
    """Dify's signature is over: nothing of it is shown but the words."""
    dify.file_seconds = 0.0
    with AppServer(redis_url, **settings) as server, server.user() as person:
        bubble = answered(person, f"![房子]({signed('photo')})")

    assert bubble.content == f"（图片：房子）\n\n{ZH['files_missing'].format(names='房子')}"


def test_a_picture_outlives_its_address(server: AppServer, person: WeComUser, dify: MockDify) -> None:
    """It is fetched while the answer runs: Dify's addresses end after 300 s, and an answer may take longer."""
    dify.delay = 0.2
    bubble = person.says(f"![房子]({signed('photo')}){'然后呢' * 200} [[echo]]")
    wait_until(lambda: server.container.files.store.files(bubble.stream_id), timeout=30.0)
    dify.file_seconds = 0.0
    person.polls(bubble)
    running = not bubble.finish
    dify.hurry()
    person.sees_finish(bubble, every=0.05)

    assert running
    assert len(bubble.last.pictures) == 1


def test_slow_files_do_not_outlast_the_frame(
    redis_url: str, settings: dict[str, str], dify: MockDify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame has its end and its text in time, and says what is missing."""
    monkeypatch.setattr(collection, "FETCH_SECONDS", 100.0)
    monkeypatch.setattr(collection, "FRAME_MARGIN", 19.7)
    dify.held.add("photo")
    with AppServer(redis_url, **settings, WECHAT_ANSWER_SECONDS="20") as server, server.user() as person:
        bubble = answered(person, f"![房子]({signed('photo')})")

    assert bubble.content == f"（图片：房子）\n\n{ZH['files_missing'].format(names='房子')}"


def test_what_a_frame_missed_comes_with_the_late_message(
    redis_url: str, settings: dict[str, str], dify: MockDify
) -> None:
    """The frame ended before the answer: the message has the pictures as links, and the file."""
    dify.delay = 0.4
    with (
        ResponseServer() as responses,
        AppServer(redis_url, **settings) as server,
        server.user(responses=responses) as person,
    ):
        bubble = person.says("画一座房子 [[pictures]]")
        sees_text(person, bubble)
        ends_frame(server, bubble)
        assert person.polls(bubble).finish
        dify.hurry()
        wait_until(lambda: person.late(bubble), timeout=30.0)
        (late,) = person.late(bubble)
        links = re.findall(rf"!\[[^\]]*\]\({PUBLIC}(/files/\S+?)\)", late.content)
        kinds = {requests.get(server.url + link, timeout=10).headers["Content-Type"] for link in links}
        again = person.polls(bubble)

    assert not bubble.last.pictures
    assert (again.content, again.pictures) == (bubble.content, ())
    assert len(links) == 3
    assert kinds == {"image/png", "image/jpeg"}
    assert ".pdf)" in late.content
    assert not responses.broken


def test_a_file_is_shown_once(person: WeComUser) -> None:
    """Dify signs it anew wherever it appears; the signature is not part of what it is."""
    text = "".join(f"![{n}]({signed('photo')}&n={n})" for n in range(3)) + f"![w]({signed('house.webp')})"
    bubble = answered(person, text)

    assert len(bubble.last.pictures) == 2


def test_more_pictures_than_a_frame_takes_are_linked(person: WeComUser) -> None:
    """Ten are shown, in the order of the text; the others are files."""
    bubble = answered(person, " ".join(f"![图{n}]({signed(f'photo-{n}')})" for n in range(12)))

    assert len(bubble.last.pictures) == 10
    assert re.findall(rf"\[(图\d+)\.jpg\]\({PUBLIC}/files/", bubble.content) == ["图10", "图11"]


def test_pictures_that_cannot_be_read_keep_the_frame_open(
    redis_server: RedisServer, settings: dict[str, str], dify: MockDify
) -> None:
    """A frame that ended without its pictures could not be mended: it stays open, and ends with the next poll."""
    with CountingRelay(redis_server.port) as relay, AppServer(relay.url, **settings) as server, server.user() as person:
        bubble = person.says("画一座房子 [[pictures]]")
        wait_until(lambda: server.container.manager.running == 0, timeout=30.0)
        relay.hold(lambda names: "MGET" in names)
        without = person.polls(bubble)
        relay.hold(lambda names: False)
        person.sees_finish(bubble, every=0.05)

    assert not without.finish
    assert "（图片：房子）" in without.content
    assert bubble.content.startswith(without.content)
    assert len(bubble.last.pictures) == 3


def test_the_sources_are_sealed(server: AppServer, person: WeComUser, redis_server: RedisServer) -> None:
    """The addresses of files that the provider sent are not readable in Redis."""
    bubble = answered(person, "画", "only-picture")

    with redis_server.client() as client:
        fields = client.hgetall(stream_keys(bubble.stream_id).hash)

    assert fields["attached"]
    assert "9d1c" not in str(fields)


def test_an_app_of_the_rules_serves_its_own_files(redis_url: str, dify: MockDify, tmp_path: Path) -> None:
    """A relative address is one of the app that answers; the bot's own app, the built-in mock, serves none."""
    rules = tmp_path / "access.yaml"
    rules.write_text("- {allow: true, use: hr-app}", "utf-8")
    apps = json.dumps({"hr-app": dify_settings(dify.base_url)})
    with AppServer(redis_url, APPS=apps, ACCESS_FILE=str(rules)) as server, server.user() as person:
        bubble = answered(person, f"![房子]({signed('photo')})")

    assert [image(picture).size for picture in bubble.last.pictures] == [(480, 300)]
