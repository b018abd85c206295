"""A server that answers every connection with fixed bytes, plain or over TLS: for replies no real server sends."""

from __future__ import annotations

import datetime
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class RawServer:
    """Reads a request, sends a reply, then closes or, with `hang`, waits until the client closes."""

    def __init__(self, *replies: bytes, hang: bool = False, tls: ssl.SSLContext | None = None) -> None:
        """Take the reply of each connection in turn; the last one is repeated."""
        self._replies, self._hang, self._tls = replies, hang, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        #: The requests, as received.
        self.heads: list[bytes] = []
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10.0)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(30.0)
        with suppress(OSError), connection:
            sock = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with sock:
                self.heads.append(received(sock))
                sock.sendall(self._replies[min(len(self.heads), len(self._replies)) - 1])
                while self._hang and sock.recv(65536):
                    pass


def received(sock: socket.socket) -> bytes:
    """Return a request with its body, which comes in a piece of its own; of another protocol, what came first."""
    data = sock.recv(65536)
    if b" HTTP/1." not in data:
        return data
    while b"\r\n\r\n" not in data and (piece := sock.recv(65536)):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head, re.IGNORECASE)
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0 and (piece := sock.recv(65536)):
        data += piece
        missing -= len(piece)
    return data


def self_signed(folder: Path, *hosts: str, certificate: str = "cert.pem") -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context for 127.0.0.1 or for `hosts`, and the certificate that a client must trust."""
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names = names or [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / certificate, folder / "key.pem"
    trusted.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    unencrypted = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


@contextmanager
def dripping(give_up: float = 20.0) -> Iterator[tuple[int, threading.Event]]:
    """Run a server whose reply's head comes byte by byte, without end; give its port, and an event.

    The event is set after `give_up` seconds, which ends the reply: a client that is bounded leaves before.
    """
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            peer, _ = listener.accept()
            received(peer)
            peer.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            with peer, suppress(OSError):
                while not given_up.wait(0.05):
                    peer.sendall(b"x")

        thread = threading.Thread(target=drip, daemon=True)
        watch = threading.Timer(give_up, given_up.set)
        thread.start()
        watch.start()
        try:
            yield listener.getsockname()[1], given_up
        finally:
            watch.cancel()
            given_up.set()
            thread.join(10.0)
