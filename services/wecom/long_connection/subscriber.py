"""Keeps the bots subscribed, each by one of all replicas: takes a bot's lease, connects, reconnects, hands over.

A thread per bot and replica. Without the lease it looks every second whether it may take the lease. With the lease it
connects and subscribes; each connection has the fence with which the lease was taken.

- **Handover.** A replica that leaves marks its lease and continues to receive. A successor takes the lease and
  subscribes while that connection is open; WeCom then sends the old one `disconnected_event`, which is expected because
  the lease has a newer fence.
- **Eviction.** The same event under a lease that is still this replica's means that another program has subscribed.
  The lease is then marked `evicted`, and no replica takes it again before `resume`, or WECHAT_WS_RETRY. The other
  subscriber may also be a former holder that was paused just before it subscribed: then this replica subscribes again,
  once.
- **Failures.** A replica that cannot connect gives the lease back and pauses, so that another one tries. Wrong
  credentials keep the lease during a long pause: another replica has the same ones.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from config.bots import BotSettings
from config.errors import LaibaoError
from services import metrics
from services.errors import StoreUnavailable
from services.http.tunnel import ConnectFailed
from services.wecom.long_connection.lease_store import LEASE, HeldLease, LeaseStore
from services.wecom.long_connection.link import Arrivals, Link, LinkHandlers, LinkSocket
from services.wecom.long_connection.protocol import ACK_SECONDS, SUBSCRIBE, WRONG_SECRET, AckMissing, LinkLost

log = logging.getLogger(__name__)

#: Seconds between two looks at another replica's lease, and between two looks at the own connection.
LOOK = 1.0
TICK = 0.2
#: Seconds that a holder keeps its connection for a successor.
HANDOVER_SECONDS = 8.0
#: Seconds after which a connection counts as steady: its loss is followed by a reconnect at once.
STEADY = 60.0
#: The longest pause before a reconnect, and the pause after wrong credentials.
MOST_PAUSE, REFUSED_PAUSE = 30.0, 300.0
#: Seconds that a leaving replica waits for the handlers of messages that its connections received last.
LAST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BotAddress:
    """The address, BotID and Secret with which one bot subscribes."""

    name: str
    url: str
    bot_id: str
    secret: str = field(repr=False)
    #: Seconds after an eviction until the bot subscribes again; 0: never by itself.
    retry: float = 0.0


class Refused(LaibaoError):
    """WeCom has not accepted the subscription; `code` is its errcode."""

    code = "refused"


class Subscriber:
    """One bot on this replica."""

    def __init__(
        self,
        bot: BotAddress,
        store: LeaseStore,
        arrivals: Arrivals,
        serve: tuple[Callable[[Link], None], ...],
        *,
        open_socket: Callable[[str], LinkSocket],
        replica: str,
        look: float,
    ) -> None:
        self._bot = bot
        self._store = store
        self._arrivals = arrivals
        self._serve = serve
        self._open_socket = open_socket
        self._token = f"{replica}:{secrets.token_hex(4)}"
        self._look = look
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"subscriber-{bot.name}", daemon=True)
        #: Losses and failures since the connection was last steady.
        self._failures = 0
        #: Connections in a row that ended with 846609.
        self._unsubscribed = 0
        #: Until when this replica does not take the lease.
        self._pause_ends = 0.0
        #: The greatest fence seen, and whether Redis had a lease at the last look.
        self._fence = 0
        self._lease_seen = False
        self._link: Link | None = None

    def start(self) -> None:
        metrics.begin_bot(self._bot.name)
        self._thread.start()

    def leave(self) -> None:
        """Hand the connection over to another replica, or close it if there is none; take no lease any more."""
        self._leaving.set()

    def close(self) -> None:
        """Close the connection without waiting for a successor. Call it after `leave`."""
        if link := self._link:
            link.drop("ended")
        self.join(LOOK)

    def join(self, seconds: float) -> None:
        """Wait until the connection is handed over or closed, for `seconds` at most."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._leaving.is_set():
            try:
                lease = self._taken()
                if lease:
                    self._hold(lease)
            except StoreUnavailable:
                # A holder that has survived Redis's outage renews its lease first.
                self._pause(LEASE)
            except Exception:
                log.exception("long connection failed", extra={"bot": self._bot.name})
                self._pause(MOST_PAUSE)
            self._leaving.wait(self._look)

    def _pause(self, seconds: float) -> None:
        self._pause_ends = max(self._pause_ends, time.monotonic() + seconds)

    def _taken(self) -> HeldLease | None:
        """Take the lease if it is free and this replica may."""
        pausing = time.monotonic() < self._pause_ends
        state = self._store.look(self._bot.name, stands_by=not pausing)
        if self._lease_seen and not state.fence:
            # Redis has lost the lease. Its holder, if there is one, writes it again with the next renewal.
            pausing = True
            self._pause(LEASE)
        self._lease_seen = bool(state.fence)
        self._fence = max(self._fence, state.fence)
        if pausing:
            return None
        fence = self._store.take(self._bot.name, self._token, after=self._fence, retry=self._bot.retry)
        if not fence:
            return None
        metrics.BOT_HOLDER_CHANGES.labels(self._bot.name).inc()
        return HeldLease(self._store, self._bot.name, self._token, fence)

    def _hold(self, lease: HeldLease) -> None:
        """Keep the bot subscribed until the lease is given back, taken by another replica, or to be handed over."""
        lease.start()
        try:
            while not (lease.gone.is_set() or self._leaving.is_set()):
                link = self._subscribed(lease)
                if link is None or not self._served(link, lease):
                    return
                self._wait(lease, self._next_pause())
        finally:
            with suppress(StoreUnavailable):
                lease.give_back()

    def _subscribed(self, lease: HeldLease) -> Link | None:
        """Return a subscribed connection; None if there is none, or if the lease is gone."""
        try:
            return self._connected(lease)
        except (ConnectFailed, Refused, LinkLost, AckMissing) as exc:
            self._failed(lease, exc)
            return None

    def _connected(self, lease: HeldLease) -> Link | None:
        link = Link(self._open_socket(self._bot.url), self._bot.name, lease.fence, arrived=self._arrivals.take)
        threading.Thread(target=link.run, name=f"link-{self._bot.name}", daemon=True).start()
        try:
            # A replica that lost its lease while it connected would end the connection of the newer holder.
            lease.note(connecting="1")
            if lease.confirm():
                self._subscribe(link)
                return link
            link.drop("ended")
            return None
        except Exception:
            link.drop("ended")
            raise

    def _subscribe(self, link: Link) -> None:
        ack = link.request(SUBSCRIBE, {"bot_id": self._bot.bot_id, "secret": self._bot.secret})
        if ack.errcode:
            raise Refused(code=str(ack.errcode))

    def _failed(self, lease: HeldLease, error: LaibaoError) -> None:
        """Record the error of an attempt, and pause; keep the lease if another replica would fail, too."""
        cause = {"bot": self._bot.name, "code": error.code, "cause": str(error)}
        log.warning("long connection not subscribed", extra=cause)
        if error.code == str(WRONG_SECRET):
            lease.note(problem=error.code)
            self._wait(lease, REFUSED_PAUSE)
        # Long enough for another replica to see that the lease is free.
        self._pause(max(2 * self._look, self._next_pause()))
        unsettled = isinstance(error, AckMissing) or (isinstance(error, LinkLost) and error.sent)
        lease.give_back(problem=error.code, connecting="1" if unsettled else "")

    def _served(self, link: Link, lease: HeldLease) -> bool:
        """Serve a connection until it ends; return whether to reconnect under this lease."""
        name, began = self._bot.name, time.monotonic()
        self._link = link
        lease.note(subscribed="1", problem="", connecting="")
        log.info("long connection subscribed", extra={"bot": name, "fence": link.fence})
        for serve in self._serve:
            threading.Thread(target=_serve, args=(serve, link), daemon=True).start()
        metrics.BOTS_SUBSCRIBED.labels(name).inc()
        try:
            self._attend(link, lease)
        finally:
            metrics.BOTS_SUBSCRIBED.labels(name).dec()
        if time.monotonic() - began >= STEADY:
            self._failures = self._unsubscribed = 0
        self._unsubscribed = self._unsubscribed + 1 if link.reason == "unsubscribed" else 0
        if link.reason == "evicted" or self._unsubscribed > 1:
            return self._evicted(lease, link.reason)
        if self._leaving.is_set():
            return False
        lease.note(subscribed="", problem=link.reason)
        return True

    def _attend(self, link: Link, lease: HeldLease) -> None:
        """Send pings until the connection ends; hand it over if this replica leaves or has lost the lease."""
        while not link.lost.wait(TICK):
            link.beat()
            if lease.gone.is_set() or self._leaving.is_set():
                self._hand_over(link, lease)
                link.drop("ended")
        if self._leaving.is_set():
            # The process ends soon; frames that were sent may still be acknowledged.
            link.over.wait(ACK_SECONDS)

    def _hand_over(self, link: Link, lease: HeldLease) -> None:
        """Keep the connection until a successor's subscription ends it; return at once if there is no successor."""
        lease.note(leaving="1")
        end = time.monotonic() + HANDOVER_SECONDS
        while time.monotonic() < end and self._has_successor(lease) and not link.lost.wait(TICK):
            link.beat()

    def _has_successor(self, lease: HeldLease) -> bool:
        try:
            state = self._store.look(self._bot.name)
        except StoreUnavailable:
            return False
        return state.fence > lease.fence or state.has_successor

    def _evicted(self, lease: HeldLease, reason: str) -> bool:
        """Return whether to subscribe again: only if a former holder that was paused may have subscribed now.

        Else record that another program has subscribed, unless another replica has taken the lease.
        """
        while True:
            try:
                if self._store.look(self._bot.name).has_paused_holder:
                    lease.note(subscribed="", paused="")
                    return lease.confirm()
                if lease.give_back(evicted=reason):
                    metrics.BOT_EVICTIONS.labels(self._bot.name).inc()
                    log.error("another program runs this bot: not subscribed again", extra={"bot": self._bot.name})
                return False
            except StoreUnavailable:
                if self._leaving.wait(self._look):
                    return False

    def _next_pause(self) -> float:
        """Return the seconds until the next attempt: none after the first loss, then growing ones."""
        self._failures += 1
        longest = min(MOST_PAUSE, 2.0 ** (self._failures - 1)) if self._failures > 1 else 0.0
        return longest * random.uniform(0.5, 1.0)

    def _wait(self, lease: HeldLease, seconds: float) -> None:
        """Wait while the lease is held and this replica stays."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not lease.gone.is_set() and not self._leaving.wait(TICK):
            continue


def _serve(serve: Callable[[Link], None], link: Link) -> None:
    """Serve a link until it is lost; again after an error."""
    while not link.lost.is_set():
        try:
            serve(link)
            return
        except Exception:
            log.exception("long connection: sender failed", extra={"bot": link.bot})
            link.lost.wait(LOOK)


class LongConnections:
    """One `Subscriber` for each bot in websocket mode. Without such bots it does nothing."""

    def __init__(
        self,
        bots: Mapping[str, BotSettings],
        store: LeaseStore,
        handlers: LinkHandlers,
        *,
        open_socket: Callable[[str], LinkSocket],
        replica: str,
        look: float = LOOK,
    ) -> None:
        """`replica` names this process in the leases; `look` is the number of seconds between two looks at them.

        `open_socket` connects to an address, or raises ConnectFailed.
        """
        self._arrivals = Arrivals(handlers)
        self._subscribers: Sequence[Subscriber] = [
            Subscriber(
                _address(bot),
                store,
                self._arrivals,
                handlers.serve,
                open_socket=open_socket,
                replica=replica,
                look=look,
            )
            for bot in bots.values()
            if bot.mode == "websocket"
        ]

    def start(self) -> None:
        for subscriber in self._subscribers:
            subscriber.start()

    def leave(self) -> None:
        """Begin to hand the connections over to other replicas; messages that arrive meanwhile are still answered."""
        for subscriber in self._subscribers:
            subscriber.leave()

    def hand_over(self, seconds: float) -> None:
        """Hand the connections over, and wait until that is done, for `seconds` at most."""
        self.leave()
        end = time.monotonic() + seconds
        for subscriber in self._subscribers:
            subscriber.join(max(0.0, end - time.monotonic()))
        if self._subscribers:
            self._arrivals.wait(min(LAST_SECONDS, max(0.0, end - time.monotonic())))

    def close_all(self) -> None:
        """Close the connections that `hand_over` had no time for."""
        for subscriber in self._subscribers:
            subscriber.close()

    def stop(self) -> None:
        """Nothing to stop: the threads end with their connections."""


def _address(bot: BotSettings) -> BotAddress:
    return BotAddress(bot.name, bot.ws_url, bot.bot_id, next(iter(bot.secrets), ""), bot.ws_retry)
