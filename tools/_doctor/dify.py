"""Checks a Dify app: address, key, mode, and required inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

from config.groups import ProviderSettings
from services.errors import ProviderError
from services.ops.remedies import explained
from services.providers.base import BaseRAGProvider
from services.providers.client.limits import ClientLimits
from services.providers.dify.service import DifyService, DifyUrls
from tools._doctor.checks import TLS, Finding, judge_clock

#: App modes that /chat-messages serves. Other modes have other endpoints.
CHAT_MODES = ("chat", "agent-chat", "advanced-chat", "agent")

_REMEDIES = {
    401: "copy the key of this app from its page API Access (app-…) into DIFY_API_KEY",
    403: "switch the app's API on (Dify: Monitoring, Backend service API), and see that the app still exists",
    404: "correct DIFY_BASE_URL: the address that Dify's page API Access shows, with or without /v1",
    429: "wait a moment, or raise the limits of this Dify",
}
_UNREACHABLE = "see that DIFY_BASE_URL resolves and is open from here (in a container 127.0.0.1 is the container)"


def check_dify(name: str, settings: ProviderSettings, provider: BaseRAGProvider, window: float) -> Iterator[Finding]:
    """Yield the findings on the app of a bot or of `APPS`; `window` is as `judge_clock` takes it. Costs no tokens."""
    check = f"dify {name}"
    per_user = settings.dify_auth_mode == "user_token"
    service = DifyService(
        DifyUrls.build(settings.dify_base_url, settings.dify_chat_endpoint), limits=ClientLimits(pool_size=1)
    )
    code = settings.dify_api_keys[0] if settings.dify_api_keys else name.removeprefix("app:")
    authorization = " ".join(filter(None, (settings.dify_auth_prefix, code)))
    with closing(service):
        try:
            info = service.info(authorization=authorization)
        except ProviderError as exc:
            yield _error(check, f"{service.urls.root}/info", exc, per_user=per_user)
            return
        yield _kind(check, service.urls.root, str(info.get("mode") or ""), str(info.get("name") or ""))
        yield _chat(f"{check} chat", service, authorization, per_user=per_user)
    yield from _inputs(f"{check} inputs", provider)
    if service.clock_skew is not None:
        yield judge_clock(f"{check} clock", "Dify", service.clock_skew, window)


def _chat(check: str, service: DifyService, authorization: str, *, per_user: bool) -> Finding:
    """Send an empty question to the chat endpoint. Only Dify rejects it with its own error."""
    url = service.urls.chat
    try:
        service.check_chat(authorization=authorization)
    except ProviderError as exc:
        if exc.http_status in (200, 400, 404, 405) or 300 <= exc.http_status < 400:
            remedy = "correct DIFY_CHAT_ENDPOINT: Dify's own is /v1/chat-messages"
            return Finding(check, "failed", f"{url}: {exc}: questions do not go to Dify", remedy)
        return _error(check, url, exc, per_user=per_user)
    return Finding(check, "ok", f"{url} takes questions")


def _error(check: str, url: str, exc: ProviderError, *, per_user: bool) -> Finding:
    text = f"{url}: {exc}"
    if per_user and exc.http_status in (401, 403):
        return Finding(check, "warning", f"{text}: without a user's token it tells nothing", "ask a question")
    if exc.http_status in _REMEDIES:
        return Finding(check, "failed", text, _REMEDIES[exc.http_status])
    if exc.http_status == 200:
        return Finding(check, "failed", text, "DIFY_BASE_URL is a web page, not the API: that one ends in /v1")
    if 300 <= exc.http_status < 400:
        return Finding(check, "failed", f"{text}: a redirect", "set DIFY_BASE_URL to where it leads (https?)")
    if exc.http_status >= 500:
        return Finding(check, "failed", text, "Dify or the proxy before it is down: see its logs")
    if exc.code == "provider_timeout":
        return Finding(check, "failed", text, "Dify does not answer: see its load and logs")
    return Finding(check, "failed", text, explained(str(exc), TLS, _UNREACHABLE))


def _kind(check: str, root: str, mode: str, app: str) -> Finding:
    if mode and mode not in CHAT_MODES:
        text = f"the app {app!r} is a {mode} app, which cannot chat"
        return Finding(check, "failed", text, "use the key of a chatbot, agent or chatflow")
    return Finding(check, "ok", f"{root} has the app {app!r}, mode {mode or 'unknown'}")


def _inputs(check: str, provider: BaseRAGProvider) -> Iterator[Finding]:
    try:
        missing, wrong = provider.missing_inputs(), provider.wrong_inputs()
    except ProviderError as exc:
        yield Finding(check, "failed", f"/parameters: {exc}", "publish the app in Dify")
        return
    if missing:
        text = f"the app requires {', '.join(missing)}, which DIFY_INPUTS lacks: an answer may hang instead of failing"
        example = json.dumps({missing[0]: "…"}, ensure_ascii=False)
        yield Finding(check, "failed", text, f"add it (DIFY_INPUTS={example}), or make it optional in the app")
    for problem in wrong:
        text = f"in DIFY_INPUTS {problem}: Dify refuses every question"
        yield Finding(check, "failed", text, "correct the value, or add the option to the app's select")
    if not missing and not wrong:
        yield Finding(check, "ok", "nothing required is missing")
