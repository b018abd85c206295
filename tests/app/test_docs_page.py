"""/docs: every address on one page, requests to the REST API, and no resource of another host."""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
from flask import Flask
from flask.testing import FlaskClient

from channels.web.compression import compress_answers
from channels.web.errors import register_rest_errors
from channels.web.guarded import Administrators
from channels.web.ops import ops_blueprint
from channels.web.pages.docs import CACHE, Assets, addresses, docs_blueprint, operations_of
from channels.web.pages.pages import HTML
from config.texts import Texts
from services.identity.guesses import Guesses
from services.ops.health import Health
from tests.support.admins import one_admin
from tests.support.replicas import AppServer


@pytest.fixture
def client() -> FlaskClient:
    """A client of an application that has the documentation and the operations' addresses."""
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(docs_blueprint(name="Lai<b>ao", version="1.2.3", realtime_path="/ws/asr", texts=Texts("en")))
    health = Health(rag=("mock", lambda: True), dependencies={})
    parts: dict[str, Any] = {"health": health, "readiness": lambda: "ready", "metrics": lambda: b"", "ops_port": None}
    parts["administrators"] = Administrators(one_admin(None), Guesses(), None)
    app.register_blueprint(ops_blueprint(name="x", version="1", **parts))
    register_rest_errors(app, Texts("en"))
    compress_answers(app)
    return app.test_client()


def linked(page: str) -> list[str]:
    """Return the URLs of the page's scripts and style sheets."""
    return re.findall(r'<(?:script src|link rel="stylesheet" href)="([^"]+)"', page)


def test_the_page_names_every_address_that_is_not_rest(client: FlaskClient) -> None:
    """Paths are shown as clients write them, with the configured ones; the name's markup is escaped."""
    text = client.get("/docs").get_data(as_text=True)

    for address in addresses("/ws/asr"):
        assert f"<code>{address.path}</code>" in unescape(text)
        assert not address.opens or f'href="{address.path[1:]}"' in text
        assert f'data-t="{address.text}"' in text
    assert "/ws/asr" in text
    assert 'href="docs/websocket.json"' in text
    assert "Lai&lt;b&gt;ao 1.2.3" in text
    assert "<b>" not in text


def test_the_page_has_what_the_application_serves(redis_url: str, tmp_path: Path) -> None:
    """The page and the OpenAPI document have the application's URL map, each address once."""
    with AppServer(redis_url, WS_PATH="/ws/asr", DATABASE_PATH=str(tmp_path / "laibao.db")) as app_server:
        rules = list(app_server.app.url_map.iter_rules())
        operations = operations_of(app_server.app)
    listed = [(address.method, address.path) for address in addresses("/ws/asr")]
    listed += [(one.method, one.path.replace("{", "<").replace("}", ">")) for one in operations]
    endpoints = {rule.rule for rule in rules if rule.websocket}
    served = {
        (method, re.sub("<[^<>]*:", "<", rule.rule))
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in endpoints
    }
    assert sorted(listed) == sorted(served | {("WS", path) for path in endpoints})


def inline(text: str) -> list[tuple[str, str]]:
    """Return the inline scripts and styles of a page, each with its tag."""
    found = re.findall(r"<(script|style)(?: type=\"module\")?>(.*?)</\1>", text, re.DOTALL)
    return [(tag, content) for tag, content in found if content]


@pytest.mark.parametrize("path", ["/docs", "/docs/websocket.json", "/openapi.json"])
def test_the_content_security_policy_allows_this_host_alone(client: FlaskClient, path: str) -> None:
    """The policy allows inline scripts and style by digest and other files from this host; no frames, no eval."""
    reply = client.get(path)
    policy = reply.headers["Content-Security-Policy"]
    digests = [b64encode(sha256(part.encode()).digest()).decode() for _, part in inline(reply.get_data(as_text=True))]

    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"https?:|[*]", policy)
    assert len(digests) == (3 if path == "/docs" else 0)
    assert all(f"'sha256-{digest}'" in policy for digest in digests)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_has_its_script_and_style_inline(client: FlaskClient) -> None:
    """They are in the document, which names no other host; it fetches the OpenAPI document that is served."""
    text = client.get("/docs").get_data(as_text=True)

    for name, tag in (("docs/docs.js", "script"), ("docs/docs.css", "style")):
        written = {line.strip() for line in (HTML / name).read_text("utf-8").splitlines()}
        code = {line for line in written if not re.match(r"//|/\*|\*", line)}
        assert any(code - {""} <= set(content.splitlines()) for found, content in inline(text) if found == tag)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "openapi.json" in (HTML / "docs/docs.js").read_text("utf-8")
    info = (client.get("/openapi.json").json or {})["info"]
    assert (info["title"], info["version"]) == ("Lai<b>ao", "1.2.3")


def test_the_files_of_the_page_may_be_cached_for_ever(client: FlaskClient) -> None:
    """Each file has a digest in its name, its media type, an immutable cache header and compression."""
    paths = linked(client.get("/docs").get_data(as_text=True))

    assert len(paths) == 2
    for path in paths:
        reply = client.get(path, headers={"Accept-Encoding": "br"})
        plain = client.get(path)
        assert (reply.status_code, reply.headers["Cache-Control"]) == (200, CACHE)
        assert "immutable" in CACHE
        assert reply.mimetype == ("text/css" if path.endswith(".css") else "text/javascript")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert len(reply.data) < len(plain.data) / 3
        assert re.search(r"-([0-9a-f]{16})\.", path).group(1) == sha256(plain.data).hexdigest()[:16]  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["/docs", "/docs/websocket.json", "/openapi.json"])
@pytest.mark.parametrize("coding", ["identity", "gzip", "br"])
def test_an_unchanged_page_is_not_sent_again(client: FlaskClient, path: str, coding: str) -> None:
    """A browser revalidates each time, because another version's page names other files; a match gets 304."""
    accepts = {"Accept-Encoding": coding}
    first = client.get(path, headers=accepts)

    again = client.get(path, headers={**accepts, "If-None-Match": first.headers.get("ETag", "")})
    other = client.get(path, headers={**accepts, "If-None-Match": '"another"'})

    assert first.headers["Cache-Control"] == "no-cache"
    assert (again.status_code, again.data) == (304, b"")
    # gzip stores the time in its header.
    unpack = {"identity": bytes, "gzip": gzip.decompress, "br": brotli.decompress}[coding]
    assert (other.status_code, unpack(other.data)) == (200, unpack(first.data))


@pytest.mark.parametrize(
    "name", ["swagger-ui.css", "swagger-ui-0000000000000000.css", "..%2f..%2fapp.py", "__init__.py"]
)
def test_no_other_file_is_there(client: FlaskClient, name: str) -> None:
    """A name without a digest, with another digest, or of another file is a 404."""
    reply = client.get(f"/docs/assets/{name}")

    assert (reply.status_code, (reply.json or {})["code"]) == (404, 404)
    assert "Cache-Control" not in reply.headers


def test_other_content_has_another_name(tmp_path: Path) -> None:
    """After a change the old name is a 404 and the new name has the new content."""
    (tmp_path / "a.js").write_text("1")
    before = Assets([tmp_path / "a.js"])
    (tmp_path / "a.js").write_text("2")
    after = Assets([tmp_path / "a.js"])

    assert before.names["a.js"] != after.names["a.js"]
    assert after.find(before.names["a.js"]) is None
    assert (found := after.find(after.names["a.js"]))
    assert found.content == b"2"
