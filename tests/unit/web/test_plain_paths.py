"""Paths with needless escapes or double slashes match no route; paths with necessary escapes do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from werkzeug.test import create_environ

from channels.web.middleware import PlainPaths


def path_of(target: str, path_info: str | None = None) -> str:
    """Return the PATH_INFO that the application behind gets."""
    paths: list[str] = []

    def behind(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        paths.append(environ["PATH_INFO"])
        return ()

    environ = create_environ(target)
    environ |= {"RAW_URI": target} | ({"PATH_INFO": path_info} if path_info else {})
    list(PlainPaths(behind)(environ, lambda *_: None))
    return paths[0]


@pytest.mark.parametrize("target", ["/metrics", "/metrics?next=//a/%2e", "/", "/docs/websocket.json"])
def test_a_plain_path_is_unchanged(target: str) -> None:
    """The query is not looked at."""
    assert path_of(target) == target.partition("?")[0]


def test_a_necessary_escape_is_decoded() -> None:
    """For example Chinese characters, a space or a percent sign in a bot's name."""
    assert path_of("/wechat/callback/%E4%BA%BA%20%25").encode("latin-1").decode() == "/wechat/callback/人 %"


@pytest.mark.parametrize("target", ["/%6detrics", "/%6Detrics", "/a%2Fb", "/a%2fb", "/%2e/b", "/%7Eb", "/%30", "/%5f"])
def test_a_disguised_path_stays_escaped(target: str) -> None:
    """No route contains an escape, so none matches."""
    assert path_of(f"{target}?a=b") == target


@pytest.mark.parametrize(
    ("path", "given"), [("//metrics", "/%2Fmetrics"), ("/a//b", "/a/%2Fb"), ("///", "/%2F/"), ("//", "/%2F")]
)
def test_a_double_slash_matches_no_route(path: str, given: str) -> None:
    """The second slash is kept as an escape, so that no route matches."""
    assert path_of(path, path) == given


def test_a_target_with_a_host_is_routed_by_its_path() -> None:
    """A request target may be an absolute URL (RFC 9112, 3.2.2)."""
    assert path_of("http://example.com/metrics", "/metrics") == "/metrics"
