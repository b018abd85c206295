"""Explains why Dify did not answer, and what to do, in one sentence per failure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import urllib3

from services.errors import ConversationGone, ProviderError
from services.ops.remedies import explained

if TYPE_CHECKING:
    from tools._dify.talk import DifyTalk

#: App modes that support streaming only.
AGENTS = ("agent-chat", "agent")
_BY_STATUS = {
    401: "Dify refuses the key: copy the key of this very app from its page API Access (app-...) into DIFY_API_KEY",
    403: "Dify does not serve this app: switch its API on (Monitoring, Backend service API), see that it still exists",
    404: "{address} is not Dify's API: correct --base-url or DIFY_BASE_URL to the one on the app's page API Access",
    413: "the question is too large for Dify or the proxy before it: shorten it, or send less in --inputs",
    429: "Dify has too many requests for this app now, or its plan is used up: wait, or raise the limit in Dify",
}
#: Advice by the code in Dify's error reply.
_BY_ERROR_CODE = (
    ("not_chat_app", "this app cannot chat: use the key of a chatbot, agent or chatflow"),
    ("app_unavailable", "the app is not ready: set its model and publish it in Dify"),
    ("agent_not_published", "publish the agent in Dify"),
    ("provider_not_initialize", "give the model provider its credentials in Dify's settings"),
    ("provider_quota_exceeded", "the model provider's quota is used up: fill it up, or choose another model in Dify"),
    ("model_currently_not_support", "choose another model in Dify"),
    ("completion_request_error", "the model refused or failed: see the app's logs in Dify"),
    ("conversation_completed", "this conversation is closed: leave --conversation-id out to begin another"),
)
_REJECTED = (
    "Dify does not take the question as it is: look at --inputs, --files and --conversation-id (a UUID of Dify's)"
)
_BY_CODE = {
    "provider_truncated": "the answer was cut off: look for a proxy before Dify that ends long answers, and ask again",
    "provider_empty": "the run ended without a word: look at the app's answer node, and at its logs in Dify",
    "provider_paused": "the workflow waits for a person's decision, which cannot be given here: decide it in Dify",
}
_UNREACHABLE = (
    "no connection to {address}: see that the name resolves and the port is open from here "
    "(in a container 127.0.0.1 is the container), and that no proxy setting is in the way"
)
_UNTRUSTED = "the certificate of {address} is not trusted: name its authority's file in REQUESTS_CA_BUNDLE"
_REDIRECT = "{address} is somewhere else now: set --base-url or DIFY_BASE_URL to where it leads (https?)"
_NOT_DIFY = "{address} does not answer as Dify does: DIFY_BASE_URL is a web page, or a proxy before Dify is in the way"
_DOWN = "Dify or the proxy before it is down: see their logs, and try again"
_RUN_FAILED = "the app's run failed: see the app's logs in Dify"
_SILENT = "nothing came for {timeout:g} s: give it longer (--timeout {longer:g}), or see Dify's load and logs"
_PINGS = (
    "only signs of life came for {timeout:g} s: see that Dify's worker runs, or give it longer (--timeout {longer:g})"
)
_NO_BLOCKING = "an agent app ({mode}) refuses blocking mode: ask without --blocking"
_INPUTS = "the app requires {missing}, which --inputs lacks: add it (--inputs '{example}')"
_CONVERSATION = (
    "Dify does not know this conversation as one of the user {user} in this app: leave --conversation-id out to begin "
    "one, or give the --user who began it (--list-conversations shows that user's)"
)


class Failure:
    """The failure of a talk's last question. As a string: the error, what to do, and Dify's own message."""

    def __init__(self, exc: ProviderError, talk: DifyTalk) -> None:
        """May ask Dify for the app's mode and required inputs, which can cause an error or a timeout."""
        self._exc = exc
        self._talk = talk
        asks = exc.code in ("provider_rejected", "provider_timeout", "answer_timeout")
        self.mode, self._missing = talk.app() if asks else ("", [])
        #: Whether the app supports streaming only and was asked in blocking mode.
        self.refuses_blocking = exc.code == "provider_rejected" and talk.blocking and self.mode in AGENTS

    def __str__(self) -> str:
        talk = self._talk
        advice = self._advice().format(
            address=talk.urls.root,
            user=talk.user,
            timeout=talk.timeout,
            longer=2 * talk.timeout,
            mode=self.mode,
            missing=", ".join(self._missing),
            example=json.dumps(dict.fromkeys(self._missing, "..."), ensure_ascii=False),
        )
        words = f' Dify says: "{talk.asked.complaint}"' if talk.asked.complaint else ""
        return f"failed ({self._exc}): {advice}.{words}"

    def _advice(self) -> str:
        exc, asked = self._exc, self._talk.asked
        if isinstance(exc, ConversationGone):
            return _CONVERSATION
        if exc.code in _BY_CODE:
            return _BY_CODE[exc.code]
        if exc.code == "provider_untrusted":
            return _UNTRUSTED
        if exc.code == "provider_unreachable":
            return _UNTRUSTED if isinstance(exc.__cause__, urllib3.exceptions.SSLError) else _UNREACHABLE
        if exc.code in ("provider_timeout", "answer_timeout"):
            return _INPUTS if self._missing and not asked.counts else _PINGS if asked.pings else _SILENT
        if asked.counts:
            return _RUN_FAILED
        return _BY_STATUS.get(exc.http_status) or self._by_status(exc.http_status)

    def _by_status(self, status: int) -> str:
        if status >= 500:
            return _DOWN
        if 300 <= status < 400:
            return _REDIRECT
        if status < 300:
            return _NOT_DIFY
        if self.refuses_blocking:
            return _NO_BLOCKING
        return _INPUTS if self._missing else explained(str(self._exc), _BY_ERROR_CODE, _REJECTED)
