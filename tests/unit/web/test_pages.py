"""Each page is one document, with a policy that allows only its own script and style."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient

from channels.web.pages.pages import HTML, finished, pages_blueprint

PAGES = ("/chat", "/realtime", "/batch")


def client_for(locale: str = "zh", app_name: str = "来宝") -> FlaskClient:
    app = Flask("pages")
    app.register_blueprint(pages_blueprint(locale=locale, app_name=app_name, ws_path="/ws/words"))  # type: ignore[arg-type]
    return app.test_client()


@pytest.fixture
def client() -> FlaskClient:
    return client_for()


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return every element of a page with its attributes."""
    found: list[tuple[str, dict[str, str | None]]] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Collector().feed(html)
    return found


def directives(policy: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for words in map(str.split, policy.split(";"))}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_no_other_file(client: FlaskClient, path: str) -> None:
    """It names no other file or host, has one script and one style, and no handlers or styles in its markup."""
    html = client.get(path).get_data(as_text=True)

    tags = [tag for tag, _ in elements(html)]
    attributes = [(name, value or "") for _, attrs in elements(html) for name, value in attrs.items()]
    assert tags.count("script") == tags.count("style") == 1
    assert {value[:5] for name, value in attributes if name in ("src", "href")} <= {"data:"}
    assert [name for name, _ in attributes if name == "style" or name.startswith("on")] == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)[a-z]", html)
    assert "{{" not in html
    assert "{%" not in html


@pytest.mark.parametrize("path", PAGES)
def test_the_policy_allows_only_the_pages_own_script_and_style(client: FlaskClient, path: str) -> None:
    """The policy allows both by hash; nothing else may run, load, be framed or be sent elsewhere."""
    reply = client.get(path)

    html = reply.get_data(as_text=True)
    policy = directives(reply.headers["Content-Security-Policy"])
    for kind in ("script", "style"):
        (inline,) = re.findall(rf"<{kind}(?: type=\"module\")?>(.*?)</{kind}>", html, re.DOTALL)
        assert policy[f"{kind}-src"] == [f"'sha256-{b64encode(sha256(inline.encode()).digest()).decode()}'"]
    for name in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == ["'none'"]
    assert policy["img-src"] == ["'self'", "data:"]
    assert policy["connect-src"] == ["'self'", "ws://localhost", "wss://localhost"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    assert "unsafe" not in str(policy)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_revalidated_and_sent_once(client: FlaskClient, path: str) -> None:
    """A browser revalidates the page each time, and gets 304 with the same policy if it is unchanged."""
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"
    assert (first.status_code, again.status_code) == (200, 304)
    assert again.get_data() == b""
    assert again.headers["Content-Security-Policy"] == first.headers["Content-Security-Policy"]


def test_the_etag_depends_on_the_content() -> None:
    """The languages have different tags."""
    zh, en = (client_for(locale).get("/chat").headers["ETag"] for locale in ("zh", "en"))

    assert zh != en


def test_a_page_sends_no_referrer(client: FlaskClient) -> None:
    """No referrer is sent, the content type is not guessed, and only the page itself may use the microphone."""
    headers = client.get("/chat").headers

    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "microphone=(self)" in headers["Permissions-Policy"]


@pytest.mark.parametrize(
    ("host", "sources"),
    [
        ("bot.example.com:8443", ["'self'", "ws://bot.example.com:8443", "wss://bot.example.com:8443"]),
        ("[::1]:5000", ["'self'", "ws://[::1]:5000", "wss://[::1]:5000"]),
        ("a;script-src *", ["'self'"]),
        ("a b", ["'self'"]),
        ("", ["'self'", "ws://localhost", "wss://localhost"]),
    ],
)
def test_the_pages_own_host_is_named_for_its_socket(client: FlaskClient, host: str, sources: list[str]) -> None:
    """An invalid Host header cannot add to the policy."""
    headers = {"Host": host} if host else {}
    policy = directives(client.get("/chat", headers=headers).headers["Content-Security-Policy"])

    assert policy["connect-src"] == sources
    assert len(policy["script-src"]) == 1


def test_settings_are_escaped_in_the_page() -> None:
    """Language, name and the endpoint's path are in the markup, escaped."""
    html = client_for("en", '<b>"R&D"</b>').get("/realtime").get_data(as_text=True)

    ((_, root),) = [one for one in elements(html) if one[0] == "html"]
    assert root["lang"] == root["data-locale"] == "en"
    assert root["data-socket"] == "/ws/words"
    assert "&lt;b&gt;&#34;R&amp;D&#34;&lt;/b&gt;" in html
    assert "<b>" not in html


def test_a_page_without_script_and_style_allows_none() -> None:
    """The directive must be 'none', because an empty list has another meaning."""
    policy = directives(finished("<p>hello").policy)

    assert policy["script-src"] == policy["style-src"] == ["'none'"]


def test_scripts_write_html_in_one_place() -> None:
    """The scripts assign innerHTML or the like once: for sanitized answers."""
    html_sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    uses = [
        f"{path.name}: {line.strip()}"
        for path in sorted(HTML.glob("*.js"))
        for line in path.read_text("utf-8").splitlines()
        if html_sinks.search(line)
    ]

    assert uses == [
        'chat_turns.js: this.blocks.children[block].innerHTML = cleaned.createHTML(this.kept.blocks[block] ?? "");'
    ]


@pytest.mark.parametrize("page", ["chat", "batch"])
def test_both_languages_have_the_same_texts(page: str) -> None:
    """Both languages of a page's texts have the same keys, and the same placeholders in each."""
    source = (HTML / f"{page}_words.js").read_text("utf-8")
    zh, en = re.findall(r"^  (?:zh|en): \{\n(.*?)^  \},", source, re.DOTALL | re.MULTILINE)
    words = [dict(re.findall(r'^    (\w+):\s+"(.*)",$', one, re.MULTILINE)) for one in (zh, en)]

    assert list(words[0]) == list(words[1])
    assert len(words[0]) > 50
    for key, sentence in words[0].items():
        assert set(re.findall(r"\{\w+\}", sentence)) == set(re.findall(r"\{\w+\}", words[1][key])), key


@pytest.mark.parametrize("page", ["chat", "batch"])
def test_every_text_that_a_page_names_exists(page: str) -> None:
    """Markup and scripts name only keys that have a text."""
    source = (HTML / f"{page}_words.js").read_text("utf-8")
    known = set(re.findall(r"^    (\w+):", source, re.MULTILINE))
    markup = (HTML / f"{page}.html").read_text("utf-8")
    scripts = "".join(path.read_text("utf-8") for path in HTML.glob(f"{page}*.js"))

    named = set(re.findall(r'data-(?:t|label|hint)="(\w+)"', markup)) | set(re.findall(r'\bword\("(\w+)"', scripts))
    named |= set(re.findall(r'labelled\("\w+", "[\w ]*", "(\w+)"\)', scripts))
    assert named - known == set()
