"""A client of the push endpoints with an API key, over the real inbox and stores."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

from channels.push.endpoints import push_blueprint
from channels.web.bodies import UploadSlots
from channels.web.errors import register_rest_errors
from config.texts import Texts
from services.identity.callers import Callers
from services.redis.store import ScriptRunner
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.push_store import PushStore
from services.wecom.long_connection.pushes import PushInbox

KEY, OTHER_KEY = "obviously-fake-key-a", "obviously-fake-key-b"
#: Of each bot.
KEYRING = b"k" * 32
#: By name, whether the bot has a long connection.
BOTS = {"default": True, "second": True, "callback": False}


class PushClient:
    """Pushes to zhangsan unless told otherwise."""

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        key: str = KEY,
        now: str = "",
        wake: Callable[[str], None] = lambda bot: None,
        uploads_at_once: int = 2,
    ) -> None:
        """`now` is the time of the scripts, "" for Redis's own clock; `wake` is called with the bot of a new push."""
        rings = dict.fromkeys(BOTS, KEYRING)
        self.store = PushStore(runner, rings, now=now)
        self.allowance = AllowanceStore(runner, rings, now=now)
        self.inbox = PushInbox(self.store, self.allowance, rings, bots=BOTS, wake=wake)
        self._client = _client(self.inbox, uploads_at_once)
        self._key = key

    def asks(self, method: str, path: str, *, key: str | None = None, **more: Any) -> TestResponse:
        headers = {"X-API-Key": self._key, **({"Idempotency-Key": key} if key is not None else {})}
        return self._client.open(path, method=method, headers=headers, **more)

    def pushes(self, *, key: str | None = None, **fields: Any) -> TestResponse:
        """Push a text, or what `fields` say; None leaves a field out."""
        body = {"userid": "zhangsan", "markdown": "**提醒**：三点开会", **fields}
        return self.asks("POST", "/api/push", key=key, json={name: it for name, it in body.items() if it is not None})

    def uploads(self, name: str, content: bytes, *, key: str | None = None, **fields: str) -> TestResponse:
        file = FileStorage(io.BytesIO(content), name)
        # Flask's client would put a long form into a temporary file, and leave it open.
        boundary, form = encode_multipart({"file": file, **({"userid": "zhangsan"} | fields)})
        kind = f"multipart/form-data; boundary={boundary}"
        return self.asks("POST", "/api/push", key=key, data=form, content_type=kind)

    def shows(self, push_id: str) -> TestResponse:
        return self.asks("GET", f"/api/push/{push_id}")


def _client(inbox: PushInbox, uploads_at_once: int) -> FlaskClient:
    app = Flask(__name__)
    texts = Texts("en")
    register_rest_errors(app, texts)
    slots = UploadSlots("push_busy", texts.get("push_busy"), most=uploads_at_once, most_per_caller=1, seconds=0.1)
    app.register_blueprint(push_blueprint(inbox, slots, Callers("none", api_keys=(KEY, OTHER_KEY)), texts))
    return app.test_client()
