"""deploy/: systemd accepts the units, and all figures of units, programs and site fit the product."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from channels.openai.requests import CompletionRules
from channels.web.multipart import FIELDS_BYTES
from config.settings import Settings, load_settings
from tests.support.replicas import ROOT, AppServer, Replica, settings_for
from tests.support.servers.installed import BATCH, HOME, WEB, install, program, unit_lines, write_settings
from tests.support.servers.manifests import BASE, every, render
from tests.support.servers.nginx import SITE, upstream_of
from tests.support.servers.processes import RedisServer, require_binary

pytestmark = pytest.mark.full

units = pytest.mark.parametrize("unit", [WEB, BATCH], ids=["web", "batch"])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return install(tmp_path / "home", {})


@pytest.fixture
def defaults() -> Settings:
    return load_settings(settings_for("redis://127.0.0.1:6379/1"), env_file=None)


def under(environment: str) -> Settings:
    """Return the settings that the gateway loads from a service manager's environment over a .env."""
    mine = {**settings_for("redis://127.0.0.1:6379/1"), "LOG_DIR": "logs", "HOST": "0.0.0.0", "PORT": "5000"}
    return load_settings({**mine, **dict(word.split("=", 1) for word in environment.split())}, env_file=None)


# systemd


def analyze(home: Path, text: str, *, command: str = "verify") -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on a unit with this folder as its home."""
    analyzer, file = require_binary("systemd-analyze"), home.with_name("wechatlaibao@5000.service")
    file.write_text(text.replace(HOME, str(home)))
    options = ["--man=no"] if command == "verify" else ["--offline=true", "--threshold=25", "--no-pager"]
    return subprocess.run([analyzer, command, *options, str(file)], capture_output=True, text=True, timeout=60)


@units
def test_systemd_accepts_the_units(unit: Path, home: Path) -> None:
    """`systemd-analyze verify` has no remark."""
    done = analyze(home, unit.read_text())

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("ExecStart=", "ExecStrat="), ("PrivateTmp=yes", "PrivateTmp=perhaps"), ("venv/bin/", "venv/sbin/")],
    ids=["name", "value", "path"],
)
def test_systemd_analyze_finds_an_error(home: Path, right: str, wrong: str) -> None:
    """It reports an unknown key, an invalid value, and a program that does not exist."""
    assert analyze(home, WEB.read_text().replace(right, wrong)).stderr


@units
def test_the_units_have_a_low_exposure(unit: Path, home: Path) -> None:
    """`systemd-analyze security` rates the unit's exposure at 2.5 at most, on a scale to 10."""
    done = analyze(home, unit.read_text(), command="security")

    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@units
def test_the_units_start_an_existing_program(unit: Path, home: Path) -> None:
    """The working directory has gunicorn.conf.py; program, module and documentation exist."""
    lines = unit_lines(unit)
    started, *arguments = lines["ExecStart"].replace(HOME, str(home)).split()

    assert lines["WorkingDirectory"] == HOME
    assert (home / "gunicorn.conf.py").is_file()
    assert Path(started).is_file()
    assert all(importlib.util.find_spec(name) for name in arguments[1:2])
    assert Path(lines["Documentation"].removeprefix("file:").replace(HOME, str(home))).is_file()


def test_a_reload_checks_the_settings_first(home: Path) -> None:
    """systemd carries the commands out in this order, and none after one that failed."""
    check, signal = re.findall(r"^ExecReload=(.*)$", WEB.read_text(), re.MULTILINE)
    command = check.replace(HOME, str(home)).split()
    env = {"PATH": os.environ["PATH"]}

    wrong = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=60)
    write_settings(home, settings_for("redis://127.0.0.1:1/1"))
    right = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=60)

    assert (wrong.returncode, wrong.stderr.count("\n"), right.returncode) == (1, 1, 0), wrong.stderr + right.stderr
    assert signal == "/bin/kill -HUP $MAINPID"


def test_a_replicas_settings_follow_from_its_port() -> None:
    """The unit overrides .env: it listens on loopback only, behind one proxy, and logs to the journal."""
    settings = under(unit_lines(WEB)["Environment"].replace("%i", "5001"))

    assert (settings.host, settings.port, settings.ops_port) == ("127.0.0.1", 5001, 15001)
    assert (settings.trusted_proxies, settings.log_dir, settings.warnings) == (1, None, ())


def test_the_worker_has_its_own_port() -> None:
    """Its health is served on loopback, on a port that no replica of the site has."""
    settings = under(unit_lines(BATCH)["Environment"])
    port = unit_lines(BATCH)["ExecStart"].split("--port ")[1]

    assert (settings.host, settings.log_dir, settings.warnings) == ("127.0.0.1", None, ())
    assert f"127.0.0.1:{port}" not in upstream_of(SITE.read_text())


@units
def test_a_unit_has_time_to_drain(unit: Path) -> None:
    """TimeoutStopSec = default of DRAIN_SECONDS + 10 (graceful_timeout) + 5; SIGTERM goes to the first process only."""
    lines = unit_lines(unit)

    assert int(lines["TimeoutStopSec"]) == Settings.model_fields["drain_seconds"].default + 10 + 5
    assert lines["KillMode"] == "mixed"


def test_a_replica_may_open_enough_files(defaults: Settings) -> None:
    """LimitNOFILE is over twice the sum of the limits of sockets, readers, streams and pooled connections."""
    most = [defaults.sockets_max, defaults.http_waits_max, defaults.stream_max_per_replica, defaults.http_pool_size]

    assert int(unit_lines(WEB)["LimitNOFILE"]) > 2 * sum(most)


def test_both_units_have_the_same_restrictions() -> None:
    """The web and the batch unit have the same lines after StateDirectory."""
    web, batch = (unit.read_text().partition("StateDirectory=")[2].splitlines() for unit in (WEB, BATCH))

    rights = [line for line in web if "=" in line and not line.startswith("#")]
    assert len(rights) > 20
    assert rights == [line for line in batch if "=" in line and not line.startswith("#")]


@pytest.mark.scenario
def test_gunicorn_notifies_systemd_when_it_listens(redis_server: RedisServer, tmp_path: Path) -> None:
    """Type=notify: READY=1 is sent when connections are accepted, and not when a setting is wrong."""
    assert unit_lines(WEB)["Type"] == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        env = settings_for(redis_server.url(), NOTIFY_SOCKET=str(tmp_path / "notify"))
        replica = Replica(env, tmp_path)
        try:
            notification = manager.recv(4096).decode()
            with socket.create_connection(("127.0.0.1", replica.port), timeout=10):
                pass
        finally:
            replica.kill()
        wrong = Replica({**env, "WORKERS": "many"}, tmp_path)
        assert wrong.process.wait(30) != 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)

    assert "READY=1" in notification.splitlines()


# supervisor: tests/scenarios/processes/test_supervisor.py runs it


@pytest.mark.parametrize(("name", "unit"), [("wechatlaibao", WEB), ("wechatlaibao-batch", BATCH)], ids=["web", "batch"])
def test_a_supervised_program_equals_the_unit(name: str, unit: Path) -> None:
    """Command, folder, user, environment and stop timeout are equal, and SIGTERM goes to the first process only."""
    supervised, lines = program(name), unit_lines(unit)
    environment = supervised["environment"].replace('"', "").replace("500%(process_num)d", "%i").replace(",", " ")

    assert supervised["command"] == lines["ExecStart"]
    assert (supervised["directory"], supervised["user"]) == (lines["WorkingDirectory"], lines["User"])
    assert environment == lines["Environment"]
    assert (supervised["stopsignal"], supervised["stopasgroup"], supervised["killasgroup"]) == ("TERM", "false", "true")
    assert supervised["stopwaitsecs"] == lines["TimeoutStopSec"]


# nginx: tests/scenarios/processes/test_nginx.py runs it


def locations() -> dict[str, str]:
    """Return the bodies of the site's locations by name."""
    found = re.findall(r"^    location (.+?) \{\n(.*?)^    \}", SITE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def figure(text: str, directive: str) -> int:
    """Return a directive's number, without its unit (seconds or megabytes)."""
    match = re.search(rf"^\s*{directive} (\d+)[sm]?;", text, re.MULTILINE)
    assert match, directive
    return int(match[1])


def test_nginxs_read_timeouts_fit_the_endpoints(defaults: Settings) -> None:
    """Callbacks: 5 to 10 s, like WeCom's own; sockets: longer than a heartbeat; answers: longer than STREAM_TTL."""
    callback, sockets, chat = (
        figure(locations()[name], "proxy_read_timeout") for name in ("/wechat/callback", "/ws/", "/api/chat")
    )

    assert 5 <= callback < 10
    assert sockets > max(defaults.websocket_heartbeat_timeout, defaults.websocket_heartbeat_interval)
    assert chat > defaults.stream_ttl


def test_nginx_limits_clients_but_not_wecom() -> None:
    """Each proxied location limits connections and requests per client, but for callbacks: WeCom has few addresses."""
    proxied = {name: text for name, text in locations().items() if "proxy_pass" in text}
    limited = {name for name, text in proxied.items() if "limit_conn " in text and "limit_req " in text}

    # A request comes to the last one from another location, which has counted it.
    assert set(proxied) - limited == {"/wechat/callback", "@next_replica"}
    assert "limit" not in proxied["/wechat/callback"]


def test_nginx_accepts_the_largest_batch(defaults: Settings) -> None:
    """`client_max_body_size` exceeds BATCH_MAX_BYTES by more than a form's overhead and by 1 MiB at most."""
    beyond = figure(locations()["/api/batch"], "client_max_body_size") * 2**20 - defaults.batch_max_bytes

    assert FIELDS_BYTES < beyond <= 2**20


def test_nginx_accepts_the_largest_request_of_openai_clients(defaults: Settings) -> None:
    """`client_max_body_size` exceeds text and pictures by 1 MiB at most."""
    largest = CompletionRules(defaults.history_max_bytes, defaults.media_max_bytes, "").body_bytes
    beyond = figure(locations()["/v1/"], "client_max_body_size") * 2**20 - largest

    assert 0 < beyond <= 2**20


#: A row of the guide's table of locations: the paths, and what the file does for them.
ROW = re.compile(r"^\| (?P<paths>`/[^|]*) \|[^|]*\| (?P<met>[^|]*) \|$", re.MULTILINE)


def test_the_guide_has_the_figures_of_the_nginx_site() -> None:
    """Each size and read timeout of a location stands in its row of docs/deployment.md, and no other one does."""
    guide = (ROOT / "docs" / "deployment.md").read_text().partition("## nginx")[2]
    rows = {path: row["met"] for row in ROW.finditer(guide) for path in re.findall(r"`(/[^`]*)`", row["paths"])}
    sizes = {name: re.search(r"client_max_body_size (\d+)m;", text) for name, text in locations().items()}
    waits = {name: re.search(r"proxy_read_timeout (\d+)s;", text) for name, text in locations().items()}
    shown = {name: name.removeprefix("= ") for name in locations() if name.removeprefix("= ") in rows}

    assert len(shown) >= 7
    for name, path in shown.items():
        size, wait = sizes[name], waits[name]
        assert re.findall(r"\d+ MB", rows[path]) == ([f"{size[1]} MB"] if size else []), path
        named = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) s(?:;|,| |$)", rows[path])]
        assert not named or (wait and int(wait[1]) in named), path


def test_nginx_closes_idle_connections_first() -> None:
    """Its `keepalive_timeout` is below gunicorn's, so that no request is sent on a connection that gunicorn closes."""
    upstream = SITE.read_text().partition("}")[0]
    kept = re.search(r"^keepalive = (\d+)$", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)

    assert kept
    assert figure(upstream, "keepalive_timeout") < int(kept[1])


def test_nginx_and_the_ingress_publish_the_same_addresses(redis_url: str) -> None:
    """Every path of the ingress has a route, and nginx forwards exactly the routes that the ingress does."""
    with AppServer(redis_url) as app_server:
        routes = sorted({str(rule).partition("<")[0] for rule in app_server.app.url_map.iter_rules()})
    rules = [rule for ingress in every(render(BASE), "Ingress") for rule in ingress["spec"]["rules"]]
    public = [path for rule in rules for path in rule["http"]["paths"]]

    by_ingress = {path["path"]: [route for route in routes if covers(path, route)] for path in public}
    by_nginx = [route for route in routes if any(forwards(location, route) for location in locations())]

    assert all(by_ingress.values()), by_ingress
    assert sorted({route for found in by_ingress.values() for route in found}) == by_nginx


def covers(path: dict[str, str], address: str) -> bool:
    """Tell whether a path of the ingress matches an address."""
    exact = address == path["path"]
    return exact or (path["pathType"] == "Prefix" and address.startswith(path["path"] + "/"))


def forwards(location: str, address: str) -> bool:
    """Tell whether a location of the site forwards an address."""
    if "proxy_pass" not in locations()[location]:
        return False
    if location.startswith("~ "):
        return re.search(location[2:], address) is not None
    if location.startswith("= "):
        return address == location[2:]
    return address.startswith(location)


def test_the_installed_settings_need_no_folder_of_logs(tmp_path: Path) -> None:
    """After the documented commands the unprivileged user, who owns no folder, can start what is installed."""
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    (line,) = re.findall(r"^sudo (sed .*LOG_DIR=\S*' \.env)", page, re.MULTILINE)
    (tmp_path / ".env").write_text((ROOT / "demo.env").read_text("utf-8"))
    assert "\nLOG_DIR=logs\n" in (tmp_path / ".env").read_text("utf-8")

    subprocess.run(["bash", "-ec", line], cwd=tmp_path, check=True, timeout=30)

    assert "\nLOG_DIR=\n" in (tmp_path / ".env").read_text("utf-8")
