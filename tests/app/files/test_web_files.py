"""Pictures and files of answers on web channels: links to the gateway instead of Dify's signed addresses."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from demo.mocks.dify.features.files import file, signed
from demo.mocks.dify.server import MockDify
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.event_reader import EventReader, Program

KEY = "obviously-fake-api-key"
LINK = re.compile(r"/files/[\w.-]+")
ASKED = "画一座房子 [[pictures]]"


@pytest.fixture
def server(redis_url: str, dify: MockDify) -> Iterator[AppServer]:
    with AppServer(redis_url, API_KEYS=KEY, **dify_settings(dify.base_url)) as server:
        yield server


@pytest.fixture
def program() -> Program:
    return Program(KEY)


def answered(server: AppServer, program: Program, query: str) -> dict[str, Any]:
    data: dict[str, Any] = program.asks(server.url, query).json()["data"]
    return data


def begins(server: AppServer, program: Program, dify: MockDify) -> EventReader:
    """Ask for an answer that begins with a picture and takes its time, and wait for the picture's link."""
    dify.delay = 0.2
    reader = program.reads(server.url, f"![房子]({signed('photo')}){'然后呢' * 200} [[echo]]")
    wait_until(lambda: LINK.search(reader.text), 30)
    return reader


def ends(dify: MockDify, reader: EventReader) -> dict[str, Any]:
    """Have the answer end soon, and return its data."""
    dify.hurry()
    return dict(reader.sees_end().data)


def downloaded(server: AppServer, link: str) -> requests.Response:
    return requests.get(server.url + link, timeout=30)


def test_an_answer_links_its_pictures_and_files(server: AppServer, program: Program, dify: MockDify) -> None:
    """In its text, and in a list that has what is beside the text too; each link opens what Dify had."""
    data = answered(server, program, ASKED)

    assert "sign=" not in str(data)
    assert dify.base_url not in str(data)
    links = LINK.findall(data["content"])
    assert [data["content"].count(f"]({link})") for link in links] == [1, 1, 1]
    urls = {one["url"]: one for one in data["files"]}
    assert set(links) < set(urls)
    assert sorted(one["type"] for one in urls.values()) == ["application/pdf", "image/jpeg", "image/jpeg", "image/png"]
    for link, name in zip(links[1:], ("photo", "report.pdf"), strict=True):
        expected = file(name)
        assert expected
        assert downloaded(server, link).content == expected.content
        assert urls[link]["size"] == len(expected.content)


def test_an_answer_without_files_lists_none(server: AppServer, program: Program) -> None:
    assert answered(server, program, "你好")["files"] == []


def test_events_and_the_whole_answer_are_the_same(server: AppServer, program: Program) -> None:
    """An address that comes in pieces is one link; the deltas joined are the content of the last event."""
    reader = program.reads(server.url, ASKED)
    data = reader.sees_end().data
    again = program.gets(server.url, reader.stream_id).json()["data"]

    assert reader.text == data["content"] == again["content"]
    assert data["files"] == again["files"]
    assert not [event for event in reader.named("delta") if "sign=" in event.data["content"]]


def test_pictures_of_other_hosts_are_left(server: AppServer, program: Program, dify: MockDify) -> None:
    """Their addresses live on; nothing is fetched from them."""
    text = f"![图]({dify.base_url}/other/photo) [站](https://a.example/files/x)"

    assert answered(server, program, f"{text} [[echo]]")["content"] == text
    assert not [call for call in dify.calls if "/other/" in call]


def test_a_file_is_fetched_while_the_answer_runs(server: AppServer, program: Program, dify: MockDify) -> None:
    """Dify's address ends before the answer does, as addresses of 300 s do with long answers."""
    reader = begins(server, program, dify)
    reply = downloaded(server, LINK.findall(reader.text)[0])
    assert not reader.over
    dify.file_seconds = 0.0
    data = ends(dify, reader)

    expected = file("photo")
    assert expected
    assert reply.content == expected.content
    assert [one["url"] for one in data["files"]] == LINK.findall(data["content"])
    assert dify.fetched("photo") == 1


def test_a_link_waits_for_its_file(server: AppServer, program: Program, dify: MockDify) -> None:
    """A page asks for a picture as soon as it knows the address, and gets it when it is there."""
    dify.held.add("photo")
    reader = begins(server, program, dify)
    replies: list[requests.Response] = []
    asking = threading.Thread(target=lambda: replies.append(downloaded(server, LINK.findall(reader.text)[0])))
    asking.start()
    asking.join(0.5)
    waited = asking.is_alive()
    dify.held.clear()
    asking.join(30)
    ends(dify, reader)

    assert waited
    assert [reply.status_code for reply in replies] == [200]


@pytest.mark.parametrize("name", ["bomb.png", "page.png", "nowhere.png"])
def test_what_cannot_be_shown_is_no_file(server: AppServer, program: Program, dify: MockDify, name: str) -> None:
    """Its link is nothing, and says so at once: the answer has ended. It is asked for once."""
    data = answered(server, program, f"看![图]({signed(name)})和![房子]({signed('photo')}) [[echo]]")

    missing, shown = LINK.findall(data["content"])
    assert [one["url"] for one in data["files"]] == [shown]
    assert downloaded(server, missing).status_code == 404
    assert downloaded(server, shown).status_code == 200
    assert dify.fetched(name) == 1


def test_an_answer_that_was_replaced_has_no_file(
    server: AppServer, program: Program, redis_server: RedisServer
) -> None:
    """What the moderation discards is removed, although it was fetched at once."""
    data = answered(server, program, "画 [[picture-moderated]]")

    assert data["files"] == []
    with redis_server.client() as client:
        assert not [key for key in client.keys("*") if ":file" in str(key)]
