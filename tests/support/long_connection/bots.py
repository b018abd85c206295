"""A bot in websocket mode: the settings of its replicas, and WeCom's side of its connection."""

from __future__ import annotations

from demo.wecom.long_connection.server import LongConnectionServer

BOT_ID, SECRET = "aibTEST", "obviously-fake-secret-of-tests"


def bot_server(**options: float) -> LongConnectionServer:
    """Return a server that knows the bot; `options` are those of `LongConnectionServer`."""
    return LongConnectionServer({BOT_ID: SECRET}, **options)  # type: ignore[arg-type]


def websocket_settings(wecom: LongConnectionServer, **changes: str) -> dict[str, str]:
    """Return the variables of a replica whose default bot connects to the server."""
    return {
        "WECHAT_MODE": "websocket",
        "WECHAT_TOKEN": "",
        "WECHAT_ENCODING_AES_KEY": "",
        "WECHAT_BOT_ID": BOT_ID,
        "WECHAT_BOT_SECRET": SECRET,
        "WECHAT_WS_URL": wecom.url,
        "WECHAT_WS_FRAME_SECONDS": "0.2",
        **changes,
    }
