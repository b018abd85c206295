"""deploy/: units that systemd understands, and every figure of units, programs and site in step with the product."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
from pathlib import Path

import pytest

from channels.batch.uploads import FORM_BYTES
from config.settings import Settings, load_settings
from tests.support.replicas import ROOT, AppServer, Replica, settings_for
from tests.support.servers.installed import BATCH, HOME, WEB, install, program, unit_lines
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
    """Return what the gateway makes of a manager's environment over a person's .env."""
    mine = {**settings_for("redis://127.0.0.1:6379/1"), "LOG_DIR": "logs", "HOST": "0.0.0.0", "PORT": "5000"}
    return load_settings({**mine, **dict(word.split("=", 1) for word in environment.split())}, env_file=None)


# systemd


def analyze(home: Path, text: str, *, command: str = "verify") -> subprocess.CompletedProcess[str]:
    """Have systemd-analyze look at a unit whose home is this one."""
    analyzer, file = require_binary("systemd-analyze"), home.with_name("wechatlaibao@5000.service")
    file.write_text(text.replace(HOME, str(home)))
    options = ["--man=no"] if command == "verify" else ["--offline=true", "--threshold=25", "--no-pager"]
    return subprocess.run([analyzer, command, *options, str(file)], capture_output=True, text=True, timeout=60)


@units
def test_systemd_knows_every_word_of_the_units(unit: Path, home: Path) -> None:
    """Its own analyzer finds nothing to remark on."""
    done = analyze(home, unit.read_text())

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("ExecStart=", "ExecStrat="), ("PrivateTmp=yes", "PrivateTmp=perhaps"), ("venv/bin/", "venv/sbin/")],
    ids=["name", "value", "path"],
)
def test_a_wrong_unit_is_seen(home: Path, right: str, wrong: str) -> None:
    """The check above remarks on a word systemd does not know, on a value, and on a program that is not there."""
    assert analyze(home, WEB.read_text().replace(right, wrong)).stderr


@units
def test_the_units_leave_little_to_attack(unit: Path, home: Path) -> None:
    """Systemd's judgement of the rights a unit leaves its process: 2.5 at most, of 10 for all of them."""
    done = analyze(home, unit.read_text(), command="security")

    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@units
def test_what_the_units_start_is_there(unit: Path, home: Path) -> None:
    """The folder has what gunicorn looks for, the program can be run, its module imported, the document read."""
    lines = unit_lines(unit)
    started, *arguments = lines["ExecStart"].replace(HOME, str(home)).split()

    assert lines["WorkingDirectory"] == HOME
    assert (home / "gunicorn.conf.py").is_file()
    assert Path(started).is_file()
    assert all(importlib.util.find_spec(name) for name in arguments[1:2])
    assert Path(lines["Documentation"].removeprefix("file:").replace(HOME, str(home))).is_file()


def test_a_replica_is_named_by_its_port() -> None:
    """What the unit sets goes before .env: this machine alone, behind one proxy, logs to the journal."""
    settings = under(unit_lines(WEB)["Environment"].replace("%i", "5001"))

    assert (settings.host, settings.port, settings.ops_port) == ("127.0.0.1", 5001, 15001)
    assert (settings.trusted_proxies, settings.log_dir, settings.warnings) == (1, None, ())


def test_the_worker_has_a_port_of_its_own() -> None:
    """Its health is for this machine, on a port that no replica has."""
    settings = under(unit_lines(BATCH)["Environment"])
    port = unit_lines(BATCH)["ExecStart"].split("--port ")[1]

    assert (settings.host, settings.log_dir, settings.warnings) == ("127.0.0.1", None, ())
    assert f"127.0.0.1:{port}" not in upstream_of(SITE.read_text())


@units
def test_a_unit_has_the_time_to_leave(unit: Path) -> None:
    """TimeoutStopSec = DRAIN_SECONDS' default + 10 (graceful_timeout) + 5, and SIGTERM goes to the first process."""
    lines = unit_lines(unit)

    assert int(lines["TimeoutStopSec"]) == Settings.model_fields["drain_seconds"].default + 10 + 5
    assert lines["KillMode"] == "mixed"


def test_a_replica_may_open_enough_files(defaults: Settings) -> None:
    """For every socket, every reader, every answer, and the connections that are kept."""
    most = [defaults.sockets_max, defaults.http_waits_max, defaults.stream_max_per_replica, defaults.http_pool_size]

    assert int(unit_lines(WEB)["LimitNOFILE"]) > 2 * sum(most)


def test_both_units_leave_the_same_rights() -> None:
    """What one may not, the other may not."""
    web, batch = (unit.read_text().partition("StateDirectory=")[2].splitlines() for unit in (WEB, BATCH))

    rights = [line for line in web if "=" in line and not line.startswith("#")]
    assert len(rights) > 20
    assert rights == [line for line in batch if "=" in line and not line.startswith("#")]


@pytest.mark.scenario
def test_gunicorn_tells_systemd_when_it_listens(redis_server: RedisServer, tmp_path: Path) -> None:
    """Type=notify: READY=1 comes when connections are taken, and never where a setting is wrong."""
    assert unit_lines(WEB)["Type"] == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        env = settings_for(redis_server.url(), NOTIFY_SOCKET=str(tmp_path / "notify"))
        replica = Replica(env, tmp_path)
        try:
            told = manager.recv(4096).decode()
            with socket.create_connection(("127.0.0.1", replica.port), timeout=10):
                pass
        finally:
            replica.kill()
        wrong = Replica({**env, "WORKERS": "many"}, tmp_path)
        assert wrong.process.wait(30) != 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)

    assert "READY=1" in told.splitlines()


# supervisor: tests/scenarios/processes/test_supervisor.py runs it


@pytest.mark.parametrize(("name", "unit"), [("wechatlaibao", WEB), ("wechatlaibao-batch", BATCH)], ids=["web", "batch"])
def test_a_supervised_program_is_what_the_unit_is(name: str, unit: Path) -> None:
    """The same command, folder, user and environment, the same signal to the same process, the same time to leave."""
    supervised, lines = program(name), unit_lines(unit)
    environment = supervised["environment"].replace('"', "").replace("500%(process_num)d", "%i").replace(",", " ")

    assert supervised["command"] == lines["ExecStart"]
    assert (supervised["directory"], supervised["user"]) == (lines["WorkingDirectory"], lines["User"])
    assert environment == lines["Environment"]
    assert (supervised["stopsignal"], supervised["stopasgroup"], supervised["killasgroup"]) == ("TERM", "false", "true")
    assert supervised["stopwaitsecs"] == lines["TimeoutStopSec"]


# nginx: tests/scenarios/processes/test_nginx.py runs it


def locations() -> dict[str, str]:
    """Return the site's locations as they are written, each with its lines."""
    found = re.findall(r"^    location (.+?) \{\n(.*?)^    \}", SITE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def figure(text: str, directive: str) -> int:
    """Return a directive's number: seconds, megabytes or whatever."""
    match = re.search(rf"^\s*{directive} (\d+)[sm]?;", text, re.MULTILINE)
    assert match, directive
    return int(match[1])


def test_nginx_has_the_patience_each_endpoint_needs(defaults: Settings) -> None:
    """Callbacks as short as WeCom's own, sockets beyond a heartbeat, answers as long as they may take."""
    callback, sockets, chat = (
        figure(locations()[name], "proxy_read_timeout") for name in ("/wechat/callback", "/ws/", "/api/chat")
    )

    assert 5 <= callback < 10
    assert sockets > max(defaults.websocket_heartbeat_timeout, defaults.websocket_heartbeat_interval)
    assert chat > defaults.stream_ttl


def test_nginx_limits_every_address_but_wecoms() -> None:
    """Connections and requests of each client, wherever it leads to a replica; callbacks come from few addresses."""
    led = {name: text for name, text in locations().items() if "proxy_pass" in text}
    limited = {name for name, text in led.items() if "limit_conn " in text and "limit_req " in text}

    assert set(led) - limited == {"/wechat/callback"}
    assert "limit" not in led["/wechat/callback"]


def test_nginx_takes_the_longest_batch(defaults: Settings) -> None:
    """Its limit is above BATCH_MAX_BYTES and a form around it, and not by much."""
    beyond = figure(locations()["/api/batch"], "client_max_body_size") * 2**20 - defaults.batch_max_bytes

    assert FORM_BYTES < beyond <= 2**20


def test_nginx_gives_up_idle_connections_first() -> None:
    """Sooner than gunicorn closes them: a request must not meet one that is being closed."""
    upstream = SITE.read_text().partition("}")[0]
    kept = re.search(r"^keepalive = (\d+)$", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)

    assert kept
    assert figure(upstream, "keepalive_timeout") < int(kept[1])


def test_nginx_leads_where_the_ingress_leads(redis_url: str) -> None:
    """The same addresses are for the world on a bare machine and in a cluster, and all that is named is there."""
    with AppServer(redis_url) as app_server:
        routes = sorted({str(rule).partition("<")[0] for rule in app_server.app.url_map.iter_rules()})
    rules = [rule for ingress in every(render(BASE), "Ingress") for rule in ingress["spec"]["rules"]]
    public = [path for rule in rules for path in rule["http"]["paths"]]

    by_ingress = {path["path"]: [route for route in routes if covers(path, route)] for path in public}
    by_nginx = [route for route in routes if any(leads(location, route) for location in locations())]

    assert all(by_ingress.values()), by_ingress
    assert sorted({route for found in by_ingress.values() for route in found}) == by_nginx


def covers(path: dict[str, str], address: str) -> bool:
    """Tell whether a path of the ingress leads to an address."""
    exact = address == path["path"]
    return exact or (path["pathType"] == "Prefix" and address.startswith(path["path"] + "/"))


def leads(location: str, address: str) -> bool:
    """Tell whether a location of the site passes an address on."""
    if "proxy_pass" not in locations()[location]:
        return False
    if location.startswith("~ "):
        return re.search(location[2:], address) is not None
    return address.startswith(location)
