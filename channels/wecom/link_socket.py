"""Opens the WebSocket of a long connection: TCP, proxy, TLS, and the client's handshake."""

from __future__ import annotations

import math
import socket
import time
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.uri import parse_uri

from channels.sockets.handshake import PROTOCOL_LOG
from channels.sockets.socket import Socket, SocketTimes
from services.http.connections import keepalive
from services.http.tunnel import ConnectFailed, open_connection
from utils.slow_peers import SEND_BUFFER

#: Seconds for each step of connecting, and for the whole handshake.
CONNECT_SECONDS = 5.0
#: Bytes of the largest frame accepted: the size of WeCom's largest callback.
MAX_BYTES = 1024 * 1024
#: Frames per second that WeCom may send on average: messages, and acknowledgements of a thousand answers.
RATE = 2000.0
#: TCP keepalive: seconds of silence before the first probe, between two, and their number. A connection of a bot that
#: nobody writes to is found dead within their sum, well before a ping of `Link` is missed.
PROBES = (5, 3, 3)
_READ_BYTES = 16 * 1024


def open_socket(url: str, *, timeout: float = CONNECT_SECONDS) -> Socket:
    """Return an open WebSocket to `url` (ws:// or wss://).

    Raises:
        ConnectFailed: there is no connection, or no WebSocket at this address (`handshake_failed`).
    """
    parts = urlsplit(url)
    tls = parts.scheme == "wss"
    sock = open_connection(parts.hostname or "", parts.port or (443 if tls else 80), tls=tls, timeout=timeout)
    try:
        protocol = _shake_hands(sock, url, time.monotonic() + timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *keepalive(*PROBES)):
            sock.setsockopt(*option)
    except OSError as exc:
        sock.close()
        raise ConnectFailed(type(exc).__name__, code="handshake_failed") from None
    except ConnectFailed:
        sock.close()
        raise
    # Heartbeats are WeCom's own pings, see `Link.beat`.
    return Socket(sock, times=SocketTimes(heartbeat_interval=math.inf), rate=RATE, protocol=protocol)


def _shake_hands(sock: socket.socket, url: str, end: float) -> ClientProtocol:
    protocol = ClientProtocol(parse_uri(url), max_size=MAX_BYTES, logger=PROTOCOL_LOG)
    protocol.send_request(protocol.connect())
    sock.sendall(b"".join(protocol.data_to_send()))
    # One event is the response. WeCom sends nothing before the subscription.
    while not protocol.events_received():
        if protocol.handshake_exc:
            raise ConnectFailed(_cause(protocol.handshake_exc), code="handshake_failed")
        sock.settimeout(max(0.001, end - time.monotonic()))
        data = sock.recv(_READ_BYTES)
        protocol.receive_data(data) if data else protocol.receive_eof()
    if protocol.handshake_exc:
        raise ConnectFailed(_cause(protocol.handshake_exc), code="handshake_failed")
    return protocol


def _cause(error: Exception) -> str:
    return f"HTTP {error.response.status_code}" if isinstance(error, InvalidStatus) else type(error).__name__
