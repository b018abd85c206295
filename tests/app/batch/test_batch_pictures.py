"""Results as HTML through the whole product: pictures of other hosts, hostile addresses, and thinking."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from demo.mocks.dify.server import MockDify
from tests.support.pictures import png
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import wait_until
from tests.support.servers.raw_server import RawServer
from tests.unit.http.test_fetcher import ok

PICTURE = re.compile(r'<a class="picture" href="([^"]+)"[^>]*><img src="(/files/u[\w-]+)" alt="([^"]*)"></a>')
#: What may follow a picture's words in an answer, none of which may become markup of its own.
HOSTILE = (
    '![x" onerror="alert(1)]({url})',
    '![x]({url}?a="onerror=alert(1))',
    "![<img src=x onerror=alert(1)>]({url})",
    '![x]({url} "y\\" onerror=alert(1)")',
    "![x](javascript:alert(1))",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    '<img src="{url}" onerror="alert(1)">',
    '<a class="picture" href="{url}">x</a>',
)


@pytest.fixture
def server(redis_url: str, dify: MockDify, tmp_path: Path) -> Iterator[AppServer]:
    database = str(tmp_path / "laibao.db")
    settings = dify_settings(dify.base_url, DATABASE_PATH=database, WEBSOCKET_AUTH="none", MEDIA_HOSTS="127.0.0.1")
    with AppServer(redis_url, WEB_THINKING="hide", **settings) as server:
        yield server


def rendered(server: AppServer, *answers: str) -> list[str]:
    """Return the HTML of results with these answers."""
    tasks, texts = f"{server.url}/api/batch/tasks", [f"{answer} [[echo]]" for answer in answers]
    task_id = requests.post(tasks, json={"name": "q", "texts": texts}, timeout=30).json()["data"]["task_id"]

    def ended() -> bool:
        status: str = requests.get(f"{tasks}/{task_id}", timeout=30).json()["data"]["status"]
        return status == "completed"

    wait_until(ended, timeout=60)
    results = requests.get(f"{tasks}/{task_id}/results?render=html&size=100", timeout=30).json()["data"]["results"]
    return [result["html"] for result in results]


def test_no_picture_runs_a_script(server: AppServer) -> None:
    """Only the gateway's own links become pictures, with words and nothing else."""
    with RawServer(ok(png())) as host:
        pages = rendered(server, *(one.format(url=f"{host.url}/a.png") for one in HOSTILE))

    for html in pages:
        rest = PICTURE.sub("", html)
        assert "<img" not in rest
        assert not re.search(r"<[^>]*\sonerror", rest)
        assert 'href="javascript:' not in rest
    assert sum(len(PICTURE.findall(html)) for html in pages) >= 3
