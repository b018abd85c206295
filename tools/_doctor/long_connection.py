"""Checks a bot's long connection by its lease in Redis: a subscription of the doctor's own would end the running one.

Where no replica has the lease, the address is tried, and with `subscribe` BotID and Secret too. That takes the lease
first, so no replica subscribes meanwhile; but it ends the connection of any other program that runs the bot.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from channels.wecom.link_socket import open_socket
from config.bots import BotSettings
from services.errors import StoreUnavailable
from services.http.tunnel import ConnectFailed
from services.ops.remedies import EVICTED
from services.wecom.long_connection.lease_store import HeldLease, LeaseState, LeaseStore
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import SUBSCRIBE, WRONG_SECRET, AckMissing, LinkLost
from tools._doctor.checks import Finding

#: Seconds to connect, to wait for the reply to the subscription, and to see whether another program subscribes again.
CONNECT, REPLY, BACK = 3.0, 3.0, 2.0
#: Seconds for the end of the connection.
CLOSE = 1.0
_REMEDIES = {
    "connect_failed": "see that the name in WECHAT_WS_URL resolves and its port is open from here",
    "tls_failed": "name the authority's file in REQUESTS_CA_BUNDLE, if a proxy or a private WeCom has its own",
    "proxy_failed": "correct HTTPS_PROXY, or except the host in NO_PROXY: the proxy must allow CONNECT",
    "handshake_failed": "correct WECHAT_WS_URL, or the proxy in the way: it leads to something else than WeCom",
    "ack_missing": "see that WECHAT_WS_URL leads to WeCom: it took the connection and does not reply",
    "link_lost": "see that no proxy or firewall on the way closes the connection",
    str(WRONG_SECRET): "correct WECHAT_BOT_ID and WECHAT_BOT_SECRET: WeCom's console shows them on the bot's page",
}


def check_long_connection(bot: BotSettings, store: LeaseStore, *, subscribe: bool = False) -> Iterator[Finding]:
    """Yield the findings on a bot in websocket mode; `subscribe` tries BotID and Secret where no replica runs it."""
    check, state = f"connection {bot.name}", store.look(bot.name)
    if state.evicted:
        yield _evicted(check, bot, state)
    elif state.is_held:
        yield from _held(check, bot, state)
    elif subscribe:
        yield _tried(check, bot, store)
    else:
        yield _reachable(check, bot, state)


def _evicted(check: str, bot: BotSettings, state: LeaseState) -> Finding:
    text = f"another program runs this bot since {state.now - state.expires:.0f} s ago, so no replica subscribes it"
    if bot.ws_retry:
        text += f" until {bot.ws_retry:g} s have passed (WECHAT_WS_RETRY)"
    return Finding(check, "failed", text, EVICTED.format(bot=bot.name))


def _held(check: str, bot: BotSettings, state: LeaseState) -> Iterator[Finding]:
    if state.problem:
        yield _failed(check, "the replica that holds it is not subscribed", state.problem)
    elif not state.subscribed:
        yield Finding(check, "warning", "a replica is connecting", "run the doctor again in some seconds")
    else:
        yield Finding(check, "ok", "a replica is subscribed: BotID and Secret are right, and no other program has it")
        yield _standby(f"standby {bot.name}", state)


def _standby(check: str, state: LeaseState) -> Finding:
    if state.has_successor:
        return Finding(check, "ok", "another replica would take it over")
    text = "no second replica: WeCom drops what people write while this one restarts"
    return Finding(check, "warning", text, "run two services or pods with this Redis, and restart them one by one")


def _reachable(check: str, bot: BotSettings, state: LeaseState) -> Finding:
    """Open a connection and close it again, without subscribing."""
    try:
        with _connected(bot, fence=0):
            pass
    except ConnectFailed as exc:
        return _failed(check, f"no connection to {bot.ws_url}", exc.code)
    if state.problem:
        return _failed(check, "no replica is subscribed, and the last attempt failed", state.problem)
    text = f"{bot.ws_url} answers; no replica is subscribed, so BotID and Secret are not checked"
    remedy = "start the gateway and run the doctor again, or add --subscribe: that ends another program's connection"
    return Finding(check, "warning", text, remedy)


def _tried(check: str, bot: BotSettings, store: LeaseStore) -> Finding:
    """Subscribe for some seconds under the lease."""
    token = f"doctor:{secrets.token_hex(4)}"
    if not (fence := store.take(bot.name, token)):
        return Finding(check, "warning", "a replica has begun to connect", "run the doctor again in some seconds")
    lease = HeldLease(store, bot.name, token, fence)
    lease.start()
    try:
        return _subscribed(check, bot, fence)
    except (ConnectFailed, LinkLost, AckMissing) as exc:
        return _failed(check, f"no subscription at {bot.ws_url}", exc.code)
    finally:
        with suppress(StoreUnavailable):
            lease.give_back()


def _subscribed(check: str, bot: BotSettings, fence: int) -> Finding:
    secret = next(iter(bot.secrets), "")
    with _connected(bot, fence) as link:
        ack = link.request(SUBSCRIBE, {"bot_id": bot.bot_id, "secret": secret}, seconds=REPLY)
        if ack.errcode:
            return _failed(check, "WeCom refuses the subscription", str(ack.errcode))
        link.lost.wait(BACK)
        if link.reason == "evicted":
            return Finding(check, "failed", "another program runs this bot: it subscribed again", "stop that program")
        return Finding(check, "ok", "BotID and Secret are right; no other program has subscribed again")


@contextmanager
def _connected(bot: BotSettings, fence: int) -> Iterator[Link]:
    """Give an open connection to the block, and close it. What arrives is dropped."""
    link = Link(open_socket(bot.ws_url, timeout=CONNECT), bot.name, fence, arrived=lambda *_: None)
    reader = threading.Thread(target=link.run, name=f"link-{bot.name}", daemon=True)
    reader.start()
    try:
        yield link
    finally:
        link.drop("ended")
        reader.join(CLOSE)


def _failed(check: str, text: str, code: str) -> Finding:
    otherwise = "look the errcode up at https://developer.work.weixin.qq.com/devtool/query"
    return Finding(check, "failed", f"{text} ({code})", _REMEDIES.get(code, otherwise))
