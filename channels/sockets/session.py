"""The session of one socket: waits for a credential, then passes messages to the channel's peer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from channels.sockets.admission import CredentialChecker
from channels.sockets.socket import TOO_MANY_MESSAGES, Closed, Peer, Socket
from config.texts import Texts
from services.errors import AddressBlocked, AuthError, StoreUnavailable
from services.identity.callers import Caller
from services.sockets.store import OpenSocket

#: Our close code for a missing or wrong credential, and RFC 6455's for an internal error.
UNAUTHENTICATED = 4401
OUR_FAULT = 1011

#: Seconds a client has to send its credential in the first frame.
AUTH_SECONDS = 10.0


class SocketSession:
    """The peer of every socket: authenticates the client, then passes calls on to the channel's own peer.

    `admit` creates the channel's peer for an authenticated caller; it runs in the reader's thread.
    """

    def __init__(
        self,
        socket: Socket,
        channel: str,
        client_id: str,
        *,
        callers: CredentialChecker,
        admit: Callable[[SocketSession, Caller], Peer],
        texts: Texts,
        caller: Caller | None = None,
        auth_seconds: float = AUTH_SECONDS,
    ) -> None:
        """`caller` is None when the handshake carried no credential; the first frame must carry it then."""
        self.socket = socket
        self.channel = channel
        self.client_id = client_id
        #: Its entry in the registry; None before the client is authenticated.
        self.entry: OpenSocket | None = None
        #: An administrator disconnected it, and its close has begun.
        self.dismissed = False
        #: The number of messages received.
        self.received_count = 0
        self._callers = callers
        self._admit = admit
        self._texts = texts
        self._caller = caller
        self._peer: Peer | None = None
        self._auth_timer = threading.Timer(auth_seconds, self._give_up)
        self._auth_timer.daemon = True

    @property
    def busy(self) -> bool:
        return self._peer is not None and self._peer.busy

    def opened(self) -> None:
        if self._caller:
            self._begin(self._caller)
            return
        self._auth_timer.start()
        self.socket.send({"type": "auth_required"})

    def received(self, text: str) -> None:
        self.received_count += 1
        if self._peer:
            self._peer.received(text)
        else:
            self._authenticate(text)

    def closed(self, closed: Closed) -> None:
        self._auth_timer.cancel()
        if self._peer:
            self._peer.closed(closed)

    def close(self, code: int, key: str) -> None:
        """Close with the text of `key` as the reason."""
        self.socket.close(code, self._texts.get(key))

    def _authenticate(self, text: str) -> None:
        try:
            caller = self._callers.check(_token(text))
        except AuthError:
            self.close(UNAUTHENTICATED, "auth_failed")
        except AddressBlocked as exc:
            self.close(TOO_MANY_MESSAGES, exc.code)
        except StoreUnavailable:
            self.close(OUR_FAULT, "service_unavailable")
        else:
            self._begin(caller)

    def _begin(self, caller: Caller) -> None:
        self._auth_timer.cancel()
        self._peer = self._admit(self, caller)
        self._peer.opened()

    def _give_up(self) -> None:
        if not self._peer:
            self.close(UNAUTHENTICATED, "auth_required")


def _token(text: str) -> str:
    """Return the token of an `auth` frame, "" for any other message."""
    try:
        frame: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    token = frame.get("token") if isinstance(frame, dict) and frame.get("type") == "auth" else ""
    return token if isinstance(token, str) else ""
