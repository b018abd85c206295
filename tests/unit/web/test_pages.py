"""Each page is one document, with a policy that allows only its own script and style."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from channels.web.errors import register_rest_errors
from channels.web.guarded import COOKIE, Administrators
from channels.web.pages.docs import addresses, docs_blueprint
from channels.web.pages.pages import (
    HTML,
    admin_page_blueprint,
    finished,
    index_blueprint,
    missing_page,
    pages_blueprint,
)
from config.texts import Texts
from services.admin.sessions import AdminSessions
from services.admin.tokens import Administrator, AdminTokens, GivenToken
from services.errors import StoreUnavailable
from services.identity.guesses import Guesses

ROOT = Path(__file__).parents[3]
#: What browsers accept when a person opens an address.
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PAGES = ("/chat", "/realtime", "/batch", "/admin", "/")
TOKEN = "fake-token-of-ann"
ADMIN_TOKENS = AdminTokens([GivenToken("ann", "viewer", TOKEN)])
SESSIONS = AdminSessions(ADMIN_TOKENS, b"k" * 32)


def client_for(locale: str = "zh", app_name: str = "来宝") -> FlaskClient:
    app = Flask("pages")
    app.register_blueprint(pages_blueprint(texts=Texts(locale), app_name=app_name, ws_path="/ws/words"))
    app.register_blueprint(
        index_blueprint(name=app_name, version="1.2.3", realtime_path="/ws/words", texts=Texts(locale))
    )
    app.register_blueprint(
        docs_blueprint(name=app_name, version="1.2.3", realtime_path="/ws/words", texts=Texts(locale))
    )
    administrators = Administrators(ADMIN_TOKENS, Guesses(), None, sessions=SESSIONS)
    app.register_blueprint(admin_page_blueprint(administrators, texts=Texts(locale), app_name=app_name))
    register_rest_errors(app, Texts(locale), missing=missing_page(texts=Texts(locale), app_name=app_name))
    client = app.test_client()
    client.environ_base["HTTP_ACCEPT"] = BROWSER
    return client


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
    """It loads no file, names no host, has a script in its head and one at its end, and no handlers in its markup."""
    html = client.get(path).get_data(as_text=True)

    tags = [tag for tag, _ in elements(html)]
    attributes = [(name, value or "") for _, attrs in elements(html) for name, value in attrs.items()]
    loaded = [attrs.get("src") or attrs.get("href") or "" for tag, attrs in elements(html) if tag not in ("a", "use")]
    assert (tags.count("script"), tags.count("style")) == (2, 1)
    assert [address for address in loaded if address and not address.startswith("data:")] == []
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
        inline = re.findall(rf"<{kind}(?: type=\"module\")?>(.*?)</{kind}>", html, re.DOTALL)
        hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in inline]
        assert policy[f"{kind}-src"] == [f"'sha256-{digest}'" for digest in hashes]
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
    assert client_for("en").get(path).headers["ETag"] != first.headers["ETag"]


@pytest.mark.parametrize("path", [*PAGES, "/docs"])
def test_a_page_sends_no_referrer(client: FlaskClient, path: str) -> None:
    """No referrer is sent, the content type is not guessed, and only the page itself may use the microphone."""
    headers = client.get(path).headers

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
    assert len(policy["script-src"]) == 2


def test_settings_are_escaped_in_the_page() -> None:
    """Language, name and the endpoint's path are in the markup, escaped."""
    html = client_for("en", '<b>"R&D"</b>').get("/realtime").get_data(as_text=True)

    ((_, root),) = [one for one in elements(html) if one[0] == "html"]
    assert root["lang"] == root["data-locale"] == "en"
    assert root["data-socket"] == "/ws/words"
    assert "&lt;b&gt;&#34;R&amp;D&#34;&lt;/b&gt;" in html
    assert "<b>" not in html


def test_the_root_address_is_a_page_for_browsers_only(client: FlaskClient) -> None:
    """A client that names text/html gets the start page, any other one JSON; caches keep them apart."""
    accepted = {BROWSER: "text/html", "*/*": "application/json", "application/json": "application/json",
                "text/html;q=0, */*": "application/json", "": "application/json"}  # fmt: skip
    for accept, media in accepted.items():
        reply = client.get("/", headers={"Accept": accept})

        assert reply.mimetype == media, accept
        assert "Accept" in reply.vary
    links = {attrs.get("href") for tag, attrs in elements(client.get("/").get_data(as_text=True)) if tag == "a"}
    assert {"chat", "realtime", "batch", "docs", "health"} <= links


@pytest.mark.parametrize(("path", "up"), [("/nowhere", ""), ("/api/nowhere", "../"), ("/a/b/c", "../../")])
def test_a_missing_address_is_a_page_for_browsers_only(path: str, up: str) -> None:
    """Its links lead back from any folder; a program gets JSON, also one that accepts anything."""
    client = client_for("en")

    shown, told = client.get(path), client.get(path, headers={"Accept": "*/*"})

    assert (shown.status_code, shown.mimetype) == (told.status_code, "text/html") == (404, "text/html")
    assert told.json == {"code": 404, "message": "Not Found", "data": None}
    assert all("Accept" in reply.vary for reply in (shown, told))
    links = [attrs["href"] for tag, attrs in elements(shown.get_data(as_text=True)) if tag == "a"]
    assert links[:5] == [up or "./", *(up + name for name in ("chat", "realtime", "batch", "docs"))]
    assert "script-src 'sha256-" in shown.headers["Content-Security-Policy"]
    assert client.post(path).is_json
    assert client.get("/a" * 100).is_json


@pytest.mark.parametrize("path", PAGES)
def test_each_page_has_its_place_in_the_header(client: FlaskClient, path: str) -> None:
    """The header leads to all pages by relative addresses and marks the page itself."""
    found = elements(client.get(path).get_data(as_text=True))

    marked = [attrs["href"] for tag, attrs in found if tag == "a" and "aria-current" in attrs]
    assert marked == ([path[1:]] if path not in ("/", "/admin") else [])
    assert [attrs["href"] for tag, attrs in found if tag == "a"][:5] == ["./", "chat", "realtime", "batch", "docs"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_sent_without_what_is_for_readers_of_its_sources(client: FlaskClient, path: str) -> None:
    """Scripts and styles lose comments and indentation; every other line is there."""
    page = client.get(path).get_data(as_text=True)
    lines = page[page.index('<script type="module">') : page.rindex("</script>")].splitlines()
    script = (HTML / "shared/words.js").read_text("utf-8").splitlines()

    assert [line for line in lines if line.strip() and line.startswith(("//", "/*", " "))] == []
    code = [line.strip() for line in script if not line.strip().startswith(("//", "/*", "*"))]
    assert set(code) <= set(lines)


def test_the_administrators_page_asks_for_the_token_until_there_is_a_session(client: FlaskClient) -> None:
    """A browser keeps the two apart; a cookie that nobody made is none."""
    asks, shows = 'data-signed-in="no"', 'data-signed-in="yes"'
    assert asks in client.get("/admin").get_data(as_text=True)
    client.set_cookie(COOKIE, "not-a-session")
    assert asks in client.get("/admin").get_data(as_text=True)

    client.set_cookie(COOKIE, SESSIONS.open(Administrator("ann", "viewer"), TOKEN).cookie)
    reply = client.get("/admin")

    assert shows in reply.get_data(as_text=True)
    assert "Cookie" in reply.vary


class NoDatabase:
    """Tokens of a database that is away."""

    def find(self, digest: str) -> Administrator | None:
        raise StoreUnavailable("SQL failed")


def test_an_outage_of_the_database_signs_nobody_out() -> None:
    """The page shows its views, whose requests say what is wrong."""
    tokens = AdminTokens([GivenToken("ann", "viewer", TOKEN)], NoDatabase())
    sessions = AdminSessions(tokens, b"k" * 32)
    app = Flask("admin")
    administrators = Administrators(tokens, Guesses(), None, sessions=sessions)
    app.register_blueprint(admin_page_blueprint(administrators, texts=Texts(), app_name="来宝"))
    client = app.test_client()
    client.set_cookie(COOKIE, sessions.open(Administrator("li", "viewer"), "fake-token-of-li").cookie)

    assert 'data-signed-in="yes"' in client.get("/admin").get_data(as_text=True)


@pytest.mark.parametrize(("tokens", "ops_port"), [(AdminTokens([]), None), (ADMIN_TOKENS, 9090)])
def test_there_is_no_administrators_page_without_administrators_and_on_the_public_port(
    tokens: AdminTokens, ops_port: int | None
) -> None:
    """As their API: 404."""
    app = Flask("admin")
    administrators = Administrators(tokens, Guesses(), ops_port, sessions=SESSIONS)
    app.register_blueprint(admin_page_blueprint(administrators, texts=Texts(), app_name="来宝"))

    assert app.test_client().get("/admin").status_code == 404


def test_every_icon_that_is_used_exists() -> None:
    """Markup and scripts name only icons that shared/icons.html draws."""
    sources = {path: path.read_text("utf-8") for path in [*HTML.glob("*/*.html"), *HTML.glob("*/*.js")]}
    drawn = set(re.findall(r'^  "(\w+)":', sources[HTML / "shared/icons.html"], re.MULTILINE))

    named = {name for source in sources.values() for name in re.findall(r'\bicon\("(\w+)"\)', source)}
    assert named - drawn == set()


def test_a_page_without_script_and_style_allows_none() -> None:
    """The directive must be 'none', because an empty list has another meaning."""
    policy = directives(finished("<p>hello").policy)

    assert policy["script-src"] == policy["style-src"] == ["'none'"]


def test_scripts_write_html_in_one_place() -> None:
    """The scripts assign innerHTML or the like once: for sanitized answers."""
    html_sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    uses = [
        f"{path.name}: {line.strip()}"
        for path in sorted(HTML.glob("*/*.js"))
        for line in path.read_text("utf-8").splitlines()
        if html_sinks.search(line)
    ]

    assert uses == ["answer_html.js: place.innerHTML = cleaned.createHTML(html);"]


def words_of(path: str) -> list[dict[str, str]]:
    """Return the texts of a words.js by their keys: in Chinese, in English."""
    source = (HTML / path / "words.js").read_text("utf-8")
    found = re.findall(r"^  (?:zh|en): \{\n(.*?)^  \},", source, re.DOTALL | re.MULTILINE)
    return [dict(re.findall(r'^    (\w+):\s+"(.*)",$', one, re.MULTILINE)) for one in found]


@pytest.mark.parametrize("page", ["shared", "start", "missing", "docs", "chat", "batch", "realtime", "admin"])
def test_both_languages_have_the_same_texts(page: str) -> None:
    """Both languages of a page's texts have the same keys, and the same placeholders in each."""
    zh, en = words_of(page)

    assert list(zh) == list(en)
    assert len(zh) > 1
    for key, sentence in zh.items():
        assert set(re.findall(r"\{\w+\}", sentence)) == set(re.findall(r"\{\w+\}", en[key])), key


@pytest.mark.parametrize("page", ["start", "missing", "docs", "chat", "batch", "realtime", "admin"])
def test_every_text_that_a_page_names_exists(page: str) -> None:
    """Markup and scripts name only keys that have a text."""
    known = {**words_of(page)[0], **words_of("shared")[0]}
    markup = "".join(path.read_text("utf-8") for path in [*HTML.glob(f"{page}/*.html"), HTML / "shared/page.html"])
    scripts = "".join(path.read_text("utf-8") for path in [*HTML.glob(f"{page}/*.js"), *HTML.glob("shared/*.js")])

    named = set(re.findall(r'data-(?:t|label|hint|empty)="(\w+)"', markup))
    named |= {address.text for address in addresses("/ws")} if page == "docs" else set()
    named |= set(re.findall(r'\bword\("(\w+)"', scripts))
    named |= set(re.findall(r'labelled\("\w+", "[\w ]*", "(\w+)"\)', scripts))
    assert named - set(known) == set()


def test_the_batch_page_has_a_sentence_for_each_problem_of_a_file() -> None:
    """In its own language and without technical words; the server's sentences are in one language."""
    readers = "".join(path.read_text("utf-8") for path in (ROOT / "utils/questions/files").glob("*.py"))
    reasons = {*re.findall(r'FileRefused\("(\w+)"', readers), "file_too_complex", "busy", "page_too_large", "too_large"}

    assert len(reasons) > 12
    assert {f"why_{reason}" for reason in reasons} - set(words_of("batch")[0]) == set()
