"""A real nginx with the shipped configuration; only addresses and the certificate's path are changed."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from demo.wecom.simulator import WeComUser
from tests.support.replicas import ROOT, Replica, wecom_user
from tests.support.servers.processes import Server, free_port, require_binary
from tests.support.servers.raw_server import self_signed

SITE = ROOT / "deploy" / "nginx.conf"
#: The certificate's folder in the shipped configuration.
PLACE = "/etc/ssl/laibao"
#: The rest of nginx's configuration, with options that a distribution may have enabled for all sites.
MAIN = """
user {user} {group};
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    log_format upstream '$status $upstream_addr $request_method $uri';
    access_log {folder}/access.log upstream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_min_length 1;
    gzip_types *;
    include {folder}/site.conf;
}}
"""


class Nginx(Server):
    """Nginx in front of two replicas, with TLS on 127.0.0.1."""

    def __init__(self, replicas: Sequence[Replica], *, site: str = "") -> None:
        """Take the replicas, and a site's text in place of the shipped one."""
        super().__init__()
        self._binary = require_binary("nginx")
        self._site = site or SITE.read_text()
        self._replicas = replicas
        self.plain_port = free_port()
        self.certificate = self.directory / "fullchain.pem"
        self_signed(self.directory, certificate=self.certificate.name)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        (self.directory / "site.conf").write_text(self.placed())
        main = self.directory / "main.conf"
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(user.pw_gid).gr_name
        main.write_text(MAIN.format(folder=self.directory, user=user.pw_name, group=group))
        # SIGKILL would end the master only, and its workers would go on serving.
        dying = [setpriv, "--pdeathsig", "TERM"] if (setpriv := shutil.which("setpriv")) else []
        return [*dying, self._binary, "-e", str(self.directory / "error.log"), "-c", str(main)]

    def placed(self) -> str:
        """Return the site with this machine's addresses and paths."""
        ports = {"80": self.plain_port, "443": self.port}
        site = re.sub(r"listen (\d+)", lambda m: f"listen 127.0.0.1:{ports[m[1]]}", self._site)
        site = re.sub(r"listen \[::\]:(\d+)", lambda m: f"listen 127.0.0.2:{ports[m[1]]}", site)
        for shipped, replica in zip(upstream_of(self._site), self._replicas, strict=True):
            site = site.replace(f"server {shipped} ", f"server 127.0.0.1:{replica.port} ")
        return site.replace(PLACE, str(self.directory))

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.stop()

    def log(self) -> str:
        return super().log() + (self.directory / "error.log").read_text(errors="replace")[-2000:]

    def served(self, path: str) -> list[tuple[str, str]]:
        """Return the status and the replica's address of each request of `path` so far."""
        lines = [line.split() for line in (self.directory / "access.log").read_text().splitlines()]
        return [(words[0], words[1]) for words in lines if words[-1] == path]

    def person(self, userid: str = "zhangsan") -> WeComUser:
        """Return a WeCom user whose callbacks go through nginx."""
        user = wecom_user([self.url], userid)
        user.wire._http.verify = str(self.certificate)
        return user

    def protocol(self) -> str | None:
        """Return the protocol that nginx chooses for a client that also offers HTTP/2."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            return secure.selected_alpn_protocol()


@contextmanager
def in_front_of(replicas: Sequence[Replica]) -> Iterator[Nginx]:
    """Run nginx in front of two replicas; in the block `requests` and WebSocket clients trust its certificate."""
    with Nginx(replicas) as nginx, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(nginx.certificate))
        patch.setenv("SSL_CERT_FILE", str(nginx.certificate))
        yield nginx


def upstream_of(site: str) -> list[str]:
    """Return the addresses of the upstream servers in a site, each once."""
    return list(dict.fromkeys(re.findall(r"^ +server ([\d.:]+) ", site, re.MULTILINE)))
