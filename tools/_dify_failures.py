"""What to do when Dify does not answer: every way to fail as one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from services.errors import ConversationGone, ProviderError
from services.providers.json_fields import mapping, mappings, text
from tools._checks import explained

#: App modes that are streamed only.
AGENTS = ("agent-chat", "agent")
MISSING_KEY = (
    "no API key: set DIFY_API_KEY to the app's key (in Dify: the app's page API Access, app-...), "
    "or give --api-key - and the key on standard input"
)
_BY_STATUS = {
    401: "Dify refuses the key: copy the key of this very app from its page API Access (app-...) into DIFY_API_KEY",
    403: "Dify does not serve this app: switch its API on (Monitoring, Backend service API), see that it still exists",
    404: "{address} is not Dify's API: correct --base-url or DIFY_BASE_URL to the one on the app's page API Access",
    413: "the question is too large for Dify or the proxy before it: shorten it, or send less in --inputs",
    429: "Dify has too many requests for this app now, or its plan is used up: wait, or raise the limit in Dify",
}
#: By the code in Dify's refusal.
_BY_REFUSAL = (
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


@dataclass(frozen=True)
class Scene:
    """What a sentence about a failure needs to know."""

    address: str
    user: str
    timeout: float
    #: Events and pings that came before it.
    events: int = 0
    pings: int = 0
    #: Dify's own words.
    words: str = ""
    blocking: bool = False
    #: The app's mode, and the inputs it requires and was not given; asked for where they may be the reason.
    mode: str = ""
    missing: tuple[str, ...] = ()


def sentence(exc: ProviderError, scene: Scene) -> str:
    """Return what failed and what to do about it, with Dify's own words where it said any."""
    facts = {
        "address": scene.address,
        "user": scene.user,
        "timeout": scene.timeout,
        "longer": 2 * scene.timeout,
        "mode": scene.mode,
        "missing": ", ".join(scene.missing),
        "example": json.dumps(dict.fromkeys(scene.missing, "..."), ensure_ascii=False),
    }
    words = f' Dify says: "{scene.words}"' if scene.words else ""
    return f"failed ({exc}): {_advice(exc, scene).format(**facts)}.{words}"


def may_be_the_app(exc: ProviderError) -> bool:
    """Tell whether the app's mode or required inputs may be why: it refuses such a question, or never answers it."""
    return exc.code in ("provider_rejected", "provider_timeout", "answer_timeout")


def refuses_blocking(exc: ProviderError, scene: Scene) -> bool:
    """Tell whether the app is one that only streams, and was asked otherwise."""
    return exc.code == "provider_rejected" and scene.blocking and scene.mode in AGENTS


def required_inputs(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the inputs without which the app is not to be asked."""
    form = [mapping(field) for item in mappings(parameters.get("user_input_form")) for field in item.values()]
    return [text(field.get("variable")) for field in form if field.get("required")]


def _advice(exc: ProviderError, scene: Scene) -> str:
    if isinstance(exc, ConversationGone):
        return _CONVERSATION
    if exc.code in _BY_CODE:
        return _BY_CODE[exc.code]
    if exc.code == "provider_unreachable":
        return _UNTRUSTED if isinstance(exc.__cause__, urllib3.exceptions.SSLError) else _UNREACHABLE
    if exc.code in ("provider_timeout", "answer_timeout"):
        return _INPUTS if scene.missing and not scene.events else _PINGS if scene.pings else _SILENT
    if scene.events:
        return _RUN_FAILED
    return _BY_STATUS.get(exc.http_status) or _refused(exc, scene)


def _refused(exc: ProviderError, scene: Scene) -> str:
    if exc.http_status >= 500:
        return _DOWN
    if 300 <= exc.http_status < 400:
        return _REDIRECT
    if exc.http_status < 300:
        return _NOT_DIFY
    if refuses_blocking(exc, scene):
        return _NO_BLOCKING
    return _INPUTS if scene.missing else explained(str(exc), _BY_REFUSAL, _REJECTED)
