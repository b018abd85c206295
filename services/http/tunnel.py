"""Opens a connection for a protocol other than HTTP: by the environment's proxy, with TLS where needed."""

from __future__ import annotations

import socket
from http.client import HTTPConnection, HTTPException
from urllib.parse import SplitResult, urlsplit

from requests import Session
from requests.utils import get_auth_from_url, select_proxy
from urllib3.util import make_headers

from config.errors import LaibaoError
from services.http.certificates import tls_context, tls_failure


class ConnectFailed(LaibaoError):
    """There is no connection: `code` is connect_failed, tls_failed, or proxy_failed."""

    code = "connect_failed"


def open_connection(host: str, port: int, *, tls: bool, timeout: float) -> socket.socket:
    """Return a connection to a host; each step of connecting takes `timeout` seconds at most.

    HTTPS_PROXY, ALL_PROXY and NO_PROXY apply with TLS and without it; the connection is a tunnel (CONNECT). The
    certificate is checked as `certificates.py` says.

    Raises:
        ConnectFailed: the host, its certificate, or the proxy. The cause's text is not in it: it may have a password.
    """
    address = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    found = Session().merge_environment_settings(address, {}, None, None, None)
    proxy = select_proxy(address, found["proxies"])
    sock = _tunnel(proxy, host, port, timeout) if proxy else _direct(host, port, timeout)
    try:
        return tls_context(address).wrap_socket(sock, server_hostname=host) if tls else sock
    except OSError as exc:
        sock.close()
        raise ConnectFailed(tls_failure(exc) or type(exc).__name__, code="tls_failed") from None


def _direct(host: str, port: int, timeout: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout)
    except OSError as exc:
        raise ConnectFailed(type(exc).__name__) from None


def _tunnel(proxy: str, host: str, port: int, timeout: float) -> socket.socket:
    address = _proxy_address(proxy)
    user, password = get_auth_from_url(address.geturl())
    headers = {"Proxy-Authorization": make_headers(basic_auth=f"{user}:{password}")["authorization"]} if user else {}
    connection = HTTPConnection(address.hostname or "", address.port or 80, timeout=timeout)
    connection.set_tunnel(host, port, headers)
    try:
        connection.connect()
    except (OSError, HTTPException) as exc:
        connection.close()
        raise ConnectFailed(type(exc).__name__, code="proxy_failed") from None
    return connection.sock


def _proxy_address(proxy: str) -> SplitResult:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        # The port is checked when it is read.
        _ = parts.port
    except ValueError:
        # Its text may have a piece of a password with a "/" in it.
        raise ConnectFailed("HTTPS_PROXY or ALL_PROXY is not an address", code="proxy_failed") from None
    if parts.scheme != "http":
        raise ConnectFailed(f"a proxy with {parts.scheme}://, expected http://", code="proxy_failed")
    return parts
