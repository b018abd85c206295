"""Run the demo without its page: Redis, users, Dify and auth API in this process, the gateway in a child process."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.embedded_redis import EmbeddedRedis
from demo.gateway_process import GatewayProcess
from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.contacts import CORP_ID, SECRET, MockContacts
from demo.mocks.dify.server import MockDify
from demo.page.cast import place_of
from demo.page.pushes import GatewayPushes
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import SimulatedUser
from demo.wecom.simulator import MediaStore, ResponseServer, SimulatedBot, WeComUser

#: Public values; they protect nothing and must not be used elsewhere.
TOKEN = "demo-token-not-secret"
AES_KEY = "demoKEYnotSECRETdemoKEYnotSECRETdemoKEYnotA"
DIFY_KEY = "app-demo-not-secret"
API_KEY = "demo-api-key-not-secret"
BOT_ID, BOT_SECRET = "aibDEMO", "demo-secret-not-secret"
#: Seconds until each ack of the simulated long connection, as WeCom's.
ACK_SECONDS = 0.25
#: Seconds within which the gateway must be subscribed after it is ready.
SUBSCRIBE_SECONDS = 30.0
#: What the demo's app is told of the person who asks.
SHOWN_INPUTS = ("userid", "name", "department", "chattype", "bot")
#: Dify's timeout in the demo, instead of 60 s, so that the silent mode fails soon.
SILENCE_SECONDS = 8
#: Seconds after which a bubble ends, instead of 330, so that a late answer can be seen soon.
BUBBLE_SECONDS = 20
#: Seconds between the thirty pieces of an answer, so that it grows over a few polls.
PIECE_SECONDS = 0.12

#: What the demo's app suggests after each answer.
SUGGESTED = ("年假怎么申请", "报销需要哪些材料", "营业时间是什么时候")
SUGGESTED_EN = ("How do I ask for annual leave?", "What does an expense claim need?", "What are the opening hours?")
#: What the demo's app says on the empty chat page.
OPENING = """您好，我是**内部助手**。年假、报销、营业时间都可以问我，也可以发图片和文件给我。

Hello, I am your **assistant**: ask me about annual leave, expenses or opening hours, in English too."""


class CannotBegin(Exception):
    """The demo cannot start because of its settings or a busy port; the message is one line."""


@dataclass(frozen=True)
class Stage:
    """A running demo, as the page and the terminal use it."""

    gateway: GatewayProcess
    #: Selects the mock Dify's mode; None if a real Dify answers.
    set_mode: Callable[[str], None] | None
    #: Takes the messages that come after a bubble's end.
    responses: ResponseServer
    #: Keeps the files of messages.
    store: MediaStore
    #: The server of the long connection; None with callbacks.
    long_connection: LongConnectionServer | None = None

    @property
    def callback_url(self) -> str:
        return f"{self.gateway.url}/wechat/callback"

    @property
    def push(self) -> GatewayPushes | None:
        """Send a text that nobody asked for; None with callbacks."""
        return GatewayPushes(self.gateway.url, API_KEY) if self.long_connection else None

    def user(self, choice: str) -> SimulatedUser:
        """Return the person of an entry of `PEOPLE`."""
        userid, chatid = place_of(choice)
        if self.long_connection:
            return self.long_connection.user(userid, chatid, store=self.store)
        bot = SimulatedBot(TOKEN, AES_KEY, BOT_ID)
        return WeComUser(self.callback_url, bot, userid, chatid, responses=self.responses, store=self.store)


@contextmanager
def running_stage(
    folder: Path, real_dify: Mapping[str, str], *, port: int = 0, websocket: bool = False
) -> Iterator[Stage]:
    """Start everything and stop it at the end; `real_dify` has the settings of a real Dify, or is empty for the mock.

    `port` is the gateway's port; 0 selects a free one. `websocket` selects the long connection instead of callbacks.

    Raises:
        GatewayFailed: the gateway did not start.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis())
        auth = stack.enter_context(MockAuth())
        responses, store = stack.enter_context(ResponseServer()), stack.enter_context(MediaStore())
        contacts = stack.enter_context(MockContacts())
        bots = {BOT_ID: BOT_SECRET}
        wecom = stack.enter_context(LongConnectionServer(bots, ack_seconds=ACK_SECONDS)) if websocket else None
        dify = None if real_dify else stack.enter_context(_mock_dify())
        settings = _own_settings(redis.url) | _auth_settings(auth, folder / "users.db")
        settings |= _directory_settings(contacts) | _bot_settings(wecom)
        settings |= real_dify if dify is None else _dify_settings(dify)
        port = port or free_port()
        # The address below which bubbles link files.
        settings["PUBLIC_URL"] = f"http://127.0.0.1:{port}"
        gateway = stack.enter_context(GatewayProcess(settings, folder=folder, port=port))
        if wecom:
            _await_subscription(wecom, gateway)
        yield Stage(gateway, None if dify is None else _mode_setter(dify), responses, store, wecom)


def _await_subscription(wecom: LongConnectionServer, gateway: GatewayProcess) -> None:
    try:
        wecom.wait_until(lambda: bool(wecom.subscribed(BOT_ID)), SUBSCRIBE_SECONDS)
    except TimeoutError:
        raise gateway.failure() from None


def websocket_chosen(environ: Mapping[str, str]) -> bool:
    """Return whether WECHAT_MODE selects the long connection.

    Raises:
        CannotBegin: it is neither `callback`, the default, nor `websocket`.
    """
    mode = environ.get("WECHAT_MODE") or "callback"
    if mode not in ("callback", "websocket"):
        raise CannotBegin(f"WECHAT_MODE={mode} is neither callback nor websocket.")
    return mode == "websocket"


def real_dify(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a real Dify; {} if neither its URL nor its key is set.

    Raises:
        CannotBegin: only one of the two is set.
    """
    given = {name: value for name, value in environ.items() if name.startswith("DIFY_") and value}
    missing = {"DIFY_BASE_URL", "DIFY_API_KEY"} - given.keys()
    if len(missing) == 1:
        raise CannotBegin(f"DIFY_BASE_URL and DIFY_API_KEY go together: {missing.pop()} is missing.")
    return {} if missing else given


def _own_settings(redis_url: str) -> dict[str, str]:
    return {
        "LOCALE": "zh",
        # The embedded Redis accepts 50 connections, so one process with a smaller pool.
        "WORKERS": "1",
        "REDIS_URL": redis_url,
        "REDIS_POOL_SIZE": "40",
        "WEBSOCKET_AUTH": "none",
        "API_KEYS": API_KEY,
        # The host of the simulator's `ResponseServer`.
        "WECHAT_RESPONSE_HOSTS": "127.0.0.1",
        "WECHAT_PROGRESS": "true",
        "WECHAT_SUGGESTIONS": "true",
        # The host of its `MediaStore`.
        "MEDIA_HOSTS": "127.0.0.1",
        "DRAIN_SECONDS": "0",
        "LOG_LEVEL": "WARNING",
        "LOG_FORMAT": "plain",
    }


def _bot_settings(wecom: LongConnectionServer | None) -> dict[str, str]:
    """Return the settings of the bot: of its long connection if there is a server of one, else of its callback."""
    if wecom is None:
        return {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    subscription = {"WECHAT_BOT_ID": BOT_ID, "WECHAT_BOT_SECRET": BOT_SECRET, "WECHAT_WS_URL": wecom.url}
    return {"WECHAT_MODE": "websocket", **subscription}


def _auth_settings(auth: MockAuth, database: Path) -> dict[str, str]:
    create_demo_users(f"sqlite:///{database}")
    return {
        "AUTH_MODE": "external",
        "AUTH_SERVICE_URL": auth.url,
        "AUTH_USER_QUERY": DEMO_USER_QUERY,
        "DATABASE_PATH": str(database),
    }


def _directory_settings(contacts: MockContacts) -> dict[str, str]:
    """Return the settings of a directory that knows the demo's people, with departments."""
    return {"WECOM_CORP_ID": CORP_ID, "WECOM_CONTACT_SECRET": SECRET, "WECOM_API_URL": contacts.url}


def _dify_settings(dify: MockDify) -> dict[str, str]:
    return {
        "DIFY_BASE_URL": dify.base_url,
        "DIFY_API_KEY": DIFY_KEY,
        "DIFY_TIMEOUT": str(SILENCE_SECONDS),
        "WECHAT_ANSWER_SECONDS": str(BUBBLE_SECONDS),
        # The mock lists them for the question 我是谁.
        "DIFY_INPUTS": json.dumps({name: f"{{{name}}}" for name in SHOWN_INPUTS}),
    }


def _mock_dify() -> MockDify:
    # No answer of the page may reach the mock's limit of seconds.
    mock = MockDify(delay=PIECE_SECONDS, suggested=SUGGESTED, limit=10 * BUBBLE_SECONDS)
    mock.opening, mock.begins_with = OPENING, (*SUGGESTED, *SUGGESTED_EN[:2])
    mock.suggested_in_english = SUGGESTED_EN
    return mock


def _mode_setter(dify: MockDify) -> Callable[[str], None]:
    def set_mode(mode: str) -> None:
        dify.default = mode

    return set_mode


def free_port() -> int:
    """Return a port of 127.0.0.1 that the kernel gives to nobody else for the next minute.

    A connection to it is opened and closed: while its end is in TIME_WAIT, a server may bind the port, but neither a
    server that asks for any port nor an outgoing connection gets it.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address: tuple[str, int] = probe.getsockname()
        with socket.create_connection(address):
            # The accepted side is closed first: TIME_WAIT is on the server's port.
            probe.accept()[0].close()
        return address[1]
