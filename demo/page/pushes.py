"""The page's push button: a message that nobody asked for, through the gateway's REST."""

from __future__ import annotations

import time

import requests

from demo.page.cast import place_of
from demo.wecom.simulator import CallbackFailed

#: Seconds until a push must have an end.
TIMEOUT = 15.0
#: States of a push that has no end yet.
RUNNING = ("queued", "sending")


class GatewayPushes:
    """Pushes texts to people, as a program with an API key does."""

    def __init__(self, gateway: str, api_key: str) -> None:
        """`gateway` is its URL."""
        self._url = f"{gateway}/api/push"
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"Bearer {api_key}"

    def __call__(self, choice: str, markdown: str) -> tuple[str, str]:
        """Push a text to an entry of `PEOPLE`, or to their group, and wait for its end.

        Return its state and error code, as `GET /api/push/<id>` has them.

        Raises:
            CallbackFailed: the gateway refused the push, or did not reply.
        """
        userid, chatid = place_of(choice)
        to = {"chatid": chatid} if chatid else {"userid": userid}
        push = self._asked("POST", "", {**to, "markdown": markdown})
        end = time.monotonic() + TIMEOUT
        while push["state"] in RUNNING and time.monotonic() < end:
            time.sleep(0.1)
            push = self._asked("GET", f"/{push['id']}")
        return push["state"], push.get("error", "")

    def _asked(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, str]:
        try:
            reply = self._http.request(method, self._url + path, json=body, timeout=TIMEOUT)
        except requests.RequestException as exc:
            raise CallbackFailed(f"no answer from /api/push: {type(exc).__name__}") from exc
        if not reply.ok:
            raise CallbackFailed(f"/api/push answered {reply.status_code}", status=reply.status_code)
        shown: dict[str, str] = reply.json()["data"]
        return shown
