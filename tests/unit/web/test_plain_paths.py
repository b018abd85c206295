"""Paths in disguise reach no route; paths that need their escapes do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from werkzeug.test import create_environ

from channels.web.plain_paths import PlainPaths


def seen(target: str, path_info: str | None = None) -> str:
    """Return the path that the application behind is given."""
    paths: list[str] = []

    def behind(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        paths.append(environ["PATH_INFO"])
        return ()

    environ = create_environ(target)
    environ |= {"RAW_URI": target} | ({"PATH_INFO": path_info} if path_info else {})
    list(PlainPaths(behind)(environ, lambda *_: None))
    return paths[0]


@pytest.mark.parametrize("target", ["/metrics", "/metrics?next=//a/%2e", "/", "/docs/websocket.json"])
def test_a_plain_path_is_as_it_was(target: str) -> None:
    """Whatever its query has."""
    assert seen(target) == target.partition("?")[0]


def test_an_escape_that_is_needed_is_decoded() -> None:
    """A bot's name in Chinese, a space, a percent sign."""
    assert seen("/wechat/callback/%E4%BA%BA%20%25").encode("latin-1").decode() == "/wechat/callback/人 %"


@pytest.mark.parametrize("target", ["/%6detrics", "/%6Detrics", "/a%2Fb", "/a%2fb", "/%2e/b", "/%7Eb", "/%30", "/%5f"])
def test_a_disguised_path_stays_escaped(target: str) -> None:
    """Routes have no escapes."""
    assert seen(f"{target}?a=b") == target


@pytest.mark.parametrize(
    ("path", "given"), [("//metrics", "/%2Fmetrics"), ("/a//b", "/a/%2Fb"), ("///", "/%2F/"), ("//", "/%2F")]
)
def test_a_slash_too_many_is_another_path(path: str, given: str) -> None:
    """It is not dropped, and leads nowhere."""
    assert seen(path, path) == given


def test_a_target_with_a_host_is_the_path_in_it() -> None:
    """Proxies may send one (RFC 9112, 3.2.2)."""
    assert seen("http://example.com/metrics", "/metrics") == "/metrics"
