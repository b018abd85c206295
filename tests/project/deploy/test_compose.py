"""compose.yaml: valid for the compose specification, and in step with the image and the gateway's settings."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from config.settings import load_settings
from tests.support.servers.processes import RedisServer, require_binary

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text("utf-8"))

#: What a person puts into .env for the first afternoon.
MINE = {
    "WECHAT_TOKEN": "fake-token",
    "WECHAT_ENCODING_AES_KEY": "fake" * 10 + "fak",
    "DIFY_BASE_URL": "https://dify.example.com",
    "DIFY_API_KEY": "app-fake-key",
    "REDIS_PASSWORD": "fake-redis-password",
}
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?])?([^}]*)\}")

Service = dict[str, Any]


def check(compose: dict[str, Any]) -> None:
    """Raise `ValidationError` where the compose specification's own schema does not hold."""
    jsonschema.validators.validator_for(SCHEMA)(SCHEMA).validate(compose)


@pytest.fixture
def compose() -> dict[str, Any]:
    """The file as it is, variables not replaced."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


@pytest.fixture
def web(compose: dict[str, Any]) -> Service:
    service: Service = compose["services"]["web"]
    return service


def test_the_file_is_valid(compose: dict[str, Any]) -> None:
    """The compose specification's schema accepts the file, and knows every word in it."""
    check(compose)


def test_a_wrong_file_is_seen(compose: dict[str, Any], web: Service) -> None:
    """The check above refuses a word that compose does not know."""
    web["depend_on"] = ["redis"]

    with pytest.raises(jsonschema.ValidationError):
        check(compose)


def test_a_start_waits_only_for_services_that_tell_their_health(compose: dict[str, Any], web: Service) -> None:
    """Whatever the gateway waits for has a health check, and the gateway has one itself."""
    waited_for = web["depends_on"]

    assert waited_for.keys() == {"redis", "mysql"}
    assert all(condition["condition"] == "service_healthy" for condition in waited_for.values())
    assert all("test" in service["healthcheck"] for service in compose["services"].values())


def test_a_first_afternoon_needs_no_mysql(compose: dict[str, Any], web: Service) -> None:
    """A plain `compose up` starts the gateway and Redis: MySQL is behind a profile and nothing insists on it."""
    started = [name for name, service in compose["services"].items() if "profiles" not in service]

    assert started == ["web", "redis"]
    assert web["depends_on"]["mysql"]["required"] is False


def test_streams_survive_a_restart_of_redis(compose: dict[str, Any]) -> None:
    """Redis writes an append-only file to a volume and never evicts a running stream."""
    redis = compose["services"]["redis"]
    command = redis["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert redis["volumes"] == ["redis:/data"]


@pytest.mark.scenario
def test_redis_asks_for_the_password_of_env(compose: dict[str, Any], tmp_path: Path) -> None:
    """It starts by the file's own command, answers its own health check and the gateway, and nobody without it."""
    service = compose["services"]["redis"]
    command = [VARIABLE.sub(lambda m: MINE[m[1]], word) for word in service["command"]]
    auth = {name: VARIABLE.sub(lambda m: MINE[m[1]], value) for name, value in service["environment"].items()}
    options = tuple(command[1:])

    with RedisServer(options=options) as server:
        health = [require_binary("redis-cli"), "-p", str(server.port), "ping"]
        known, unknown = (
            subprocess.run(health, capture_output=True, text=True, env={**os.environ, **env}, timeout=10)
            for env in (auth, {})
        )

    assert "redis-cli ping" in service["healthcheck"]["test"][-1]
    assert "PONG" in known.stdout
    assert "PONG" not in unknown.stdout


def test_without_a_redis_password_compose_refuses_to_start(compose: dict[str, Any]) -> None:
    """Compose itself says what is missing: `:?`."""
    assert "${REDIS_PASSWORD:?is missing in .env: any long random text}" in compose["services"]["redis"]["command"]


def test_every_volume_is_declared(compose: dict[str, Any]) -> None:
    """What a database writes is in a named volume, so that `compose down` keeps it."""
    used = {volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}

    assert used == compose["volumes"].keys()


def test_only_the_gateway_is_reachable_from_outside(compose: dict[str, Any], web: Service) -> None:
    """Redis and MySQL publish no port; the gateway publishes the one its image exposes."""
    publishing = [name for name, service in compose["services"].items() if "ports" in service]
    exposed = re.search(r"^EXPOSE (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert publishing == ["web"]
    assert exposed
    assert web["ports"] == [f"${{PORT:-5000}}:{exposed[1]}"]
    assert web["environment"]["PORT"] == exposed[1]


def test_no_secret_is_written_in_the_file(compose: dict[str, Any]) -> None:
    """Every password comes from the environment or .env."""
    variables = {name: str(v) for s in compose["services"].values() for name, v in s.get("environment", {}).items()}

    secrets = {name: value for name, value in variables.items() if name.endswith(("PASSWORD", "TOKEN", "KEY", "AUTH"))}

    mysql = {"MYSQL_RANDOM_ROOT_PASSWORD": "yes", "MYSQL_PASSWORD": "${MYSQL_PASSWORD:-}"}
    assert secrets == {**mysql, "REDISCLI_AUTH": "${REDIS_PASSWORD}"}


def environment_of(web: Service, env_file: dict[str, str]) -> dict[str, str]:
    """Return what compose hands to the gateway: .env, and over it `environment` with its variables replaced."""
    own = {name: VARIABLE.sub(lambda m: env_file.get(m[1]) or m[2], v) for name, v in web["environment"].items()}
    return {**env_file, **own}


@pytest.mark.parametrize(("mode", "more"), [("none", {}), ("allowlist", {"AUTH_ALLOWLIST": "zhangsan"})])
def test_the_gateway_starts_without_mysql_and_auth_api(web: Service, mode: str, more: dict[str, str]) -> None:
    """Bot, Dify and AUTH_MODE in .env are all it needs beside what the file sets itself."""
    settings = load_settings(environment_of(web, {**MINE, "AUTH_MODE": mode, "LOG_DIR": "logs", **more}), env_file=None)

    assert settings.warnings == ()
    assert settings.log_dir is None, "the root file system is read-only"
    assert (settings.port, settings.ops_port) == (5000, 9090)
    assert settings.redis_address.get_secret_value() == "redis://:fake-redis-password@redis:6379/1"
    assert settings.auth_mode == mode
    assert settings.sql_url is None


def test_the_gateway_and_mysql_agree(compose: dict[str, Any], web: Service) -> None:
    """With the profile on, the gateway asks for the database and the user that MySQL made."""
    mine = {"MYSQL_HOST": "mysql", "MYSQL_PASSWORD": "fake-password", "AUTH_MODE": "none"}

    settings = load_settings(environment_of(web, {**MINE, **mine}), env_file=None)
    mysql = environment_of(compose["services"]["mysql"], mine)

    assert (settings.mysql_database, settings.mysql_user) == (mysql["MYSQL_DATABASE"], mysql["MYSQL_USER"])
    assert settings.mysql_host in compose["services"]


def test_batches_have_a_worker_for_who_wants_one(compose: dict[str, Any], web: Service) -> None:
    """Behind a profile of its own: the gateway's image, settings and rights, and another command that is there."""
    batch = compose["services"]["batch"]
    differs = {"profiles", "command", "healthcheck", "ports"}

    assert batch["profiles"] == ["batch"]
    assert {name: batch[name] for name in batch if name not in differs} == {
        name: web[name] for name in web if name not in differs
    }
    assert batch["command"][:2] == ["python", "-m"]
    assert importlib.util.find_spec(batch["command"][2])
    assert f":{web['environment']['OPS_PORT']}/healthz" in batch["healthcheck"]["test"][-1]


def test_the_grace_period_is_long_enough_for_the_drain(web: Service) -> None:
    """stop_grace_period = DRAIN_SECONDS' default + 10 (graceful_timeout) + 5."""
    drain = load_settings(environment_of(web, {**MINE, "AUTH_MODE": "none"}), env_file=None).drain_seconds

    assert web["stop_grace_period"] == f"{drain + 10 + 5:g}s"
