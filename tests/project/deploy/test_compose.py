"""compose.yaml: valid for the compose specification, and consistent with the image and the gateway's settings."""

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

from config import VERSION
from config.settings import load_settings
from tests.support.servers.processes import RedisServer, require_binary

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text("utf-8"))

#: The .env of a first installation.
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
    """Raise `ValidationError` unless the file matches the compose specification's own schema."""
    jsonschema.validators.validator_for(SCHEMA)(SCHEMA).validate(compose)


@pytest.fixture
def compose() -> dict[str, Any]:
    """The parsed file, with its variables not replaced."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


@pytest.fixture
def web(compose: dict[str, Any]) -> Service:
    service: Service = compose["services"]["web"]
    return service


def test_the_file_is_valid(compose: dict[str, Any]) -> None:
    """The compose specification's schema accepts the file and knows every key in it."""
    check(compose)


def test_the_schema_check_finds_an_error(compose: dict[str, Any], web: Service) -> None:
    """`check` refuses a key that compose does not know."""
    web["depend_on"] = ["redis"]

    with pytest.raises(jsonschema.ValidationError):
        check(compose)


def test_the_gateway_waits_only_for_services_with_a_health_check(compose: dict[str, Any], web: Service) -> None:
    """`depends_on` has Redis and MySQL, on condition `service_healthy`, and every service has a health check."""
    waited_for = web["depends_on"]

    assert waited_for.keys() == {"redis", "mysql"}
    assert all(condition["condition"] == "service_healthy" for condition in waited_for.values())
    assert all("test" in service["healthcheck"] for service in compose["services"].values())


def test_the_image_is_this_version(web: Service) -> None:
    """An older one stays beside it, for the way back."""
    assert web["image"] == f"wechatlaibao:{VERSION}"


def test_a_plain_up_starts_no_mysql(compose: dict[str, Any], web: Service) -> None:
    """A plain `compose up` starts the gateway and Redis; MySQL has a profile and is not required."""
    started = [name for name, service in compose["services"].items() if "profiles" not in service]

    assert started == ["web", "redis"]
    assert web["depends_on"]["mysql"]["required"] is False


def test_streams_survive_a_restart_of_redis(compose: dict[str, Any]) -> None:
    """Redis writes an append-only file to a volume and never evicts keys."""
    redis = compose["services"]["redis"]
    options = dict(re.findall(r"(--[\w-]+) (\S+)", redis["command"][2]))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert redis["volumes"] == ["redis:/data"]


class ComposedRedis(RedisServer):
    """The Redis of compose.yaml, at a free port."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        super().__init__()
        self._command = [f"{name}={value}" for name, value in env.items()]
        self._command += [word.replace("$$", "$") for word in command]

    def command(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return ["env", *self._command, *where]


@pytest.mark.scenario
def test_redis_requires_the_password_of_env(compose: dict[str, Any]) -> None:
    """Redis runs with the command of compose.yaml; its health check passes with the password and fails without it."""
    service = compose["services"]["redis"]
    auth = {name: VARIABLE.sub(lambda m: MINE[m[1]], value) for name, value in service["environment"].items()}

    with ComposedRedis(service["command"], auth) as server:
        health = [require_binary("redis-cli"), "-p", str(server.port), "ping"]
        known, unknown = (
            subprocess.run(health, capture_output=True, text=True, env={**os.environ, **env}, timeout=10)
            for env in (auth, {})
        )

    assert "--requirepass" not in " ".join(service["command"]), "a command line is shown to everybody on the machine"
    assert "redis-cli ping" in service["healthcheck"]["test"][-1]
    assert "PONG" in known.stdout
    assert "PONG" not in unknown.stdout


def test_every_service_has_limits(compose: dict[str, Any]) -> None:
    """Memory, processes, rights and the size of the log are limited; MySQL alone begins with root's capabilities."""
    assert [name for name, service in compose["services"].items() if service.get("cap_drop") != ["ALL"]] == ["mysql"]
    for service in compose["services"].values():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_compose_requires_a_redis_password(compose: dict[str, Any]) -> None:
    """With `:?` compose itself refuses to start and says which variable is missing."""
    environment = compose["services"]["redis"]["environment"]

    assert environment == {"REDISCLI_AUTH": "${REDIS_PASSWORD:?is missing in .env: any long random text}"}


def test_every_volume_is_declared(compose: dict[str, Any]) -> None:
    """Databases write to named volumes, which `compose down` keeps."""
    used = {volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}

    assert used == compose["volumes"].keys()


def test_only_the_gateway_is_reachable_from_outside(compose: dict[str, Any], web: Service) -> None:
    """Redis and MySQL publish no port; the gateway publishes the port that its image exposes."""
    publishing = [name for name, service in compose["services"].items() if "ports" in service]
    exposed = re.search(r"^EXPOSE (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert publishing == ["web"]
    assert exposed
    assert web["ports"] == [f"${{PORT:-5000}}:{exposed[1]}"]
    assert web["environment"]["PORT"] == exposed[1]


def test_no_secret_is_written_in_the_file(compose: dict[str, Any]) -> None:
    """Every password comes from the environment or from .env."""
    variables = {name: str(v) for s in compose["services"].values() for name, v in s.get("environment", {}).items()}

    secrets = {name: value for name, value in variables.items() if name.endswith(("PASSWORD", "TOKEN", "KEY", "AUTH"))}
    del secrets["FILES_MAX_BYTES_PER_KEY"]

    mysql = {"MYSQL_RANDOM_ROOT_PASSWORD": "yes", "MYSQL_PASSWORD": "${MYSQL_PASSWORD:-}"}
    assert secrets == {**mysql, "REDISCLI_AUTH": "${REDIS_PASSWORD:?is missing in .env: any long random text}"}


def environment_of(web: Service, env_file: dict[str, str]) -> dict[str, str]:
    """Return the gateway's environment: .env, overridden by `environment` with its variables replaced."""
    own = {name: VARIABLE.sub(lambda m: env_file.get(m[1]) or m[2], v) for name, v in web["environment"].items()}
    return {**env_file, **own}


@pytest.mark.parametrize(("mode", "more"), [("none", {}), ("allowlist", {"AUTH_ALLOWLIST": "zhangsan"})])
def test_the_gateway_starts_without_mysql_and_auth_api(web: Service, mode: str, more: dict[str, str]) -> None:
    """Bot, Dify and AUTH_MODE in .env are sufficient together with what compose.yaml sets."""
    settings = load_settings(environment_of(web, {**MINE, "AUTH_MODE": mode, "LOG_DIR": "logs", **more}), env_file=None)

    assert settings.warnings == ()
    assert settings.log_dir is None, "the root file system is read-only"
    assert (settings.port, settings.ops_port) == (5000, 9090)
    assert settings.redis_address.get_secret_value() == "redis://:fake-redis-password@redis:6379/1"
    assert settings.auth_mode == mode
    assert settings.sql_url is None


def test_the_gateway_and_mysql_agree(compose: dict[str, Any], web: Service) -> None:
    """With the profile, the gateway uses the database and the user that MySQL's container creates."""
    mine = {"MYSQL_HOST": "mysql", "MYSQL_PASSWORD": "fake-password", "AUTH_MODE": "none"}

    settings = load_settings(environment_of(web, {**MINE, **mine}), env_file=None)
    mysql = environment_of(compose["services"]["mysql"], mine)

    assert (settings.mysql_database, settings.mysql_user) == (mysql["MYSQL_DATABASE"], mysql["MYSQL_USER"])
    assert settings.mysql_host in compose["services"]


def test_the_batch_worker_equals_the_gateway_but_for_its_command(compose: dict[str, Any], web: Service) -> None:
    """With its own profile it has the gateway's image, settings and rights; the module of its command exists."""
    batch = compose["services"]["batch"]
    differs = {"profiles", "command", "healthcheck", "ports"}

    assert batch["profiles"] == ["batch"]
    assert {name: batch[name] for name in batch if name not in differs} == {
        name: web[name] for name in web if name not in differs
    }
    assert batch["command"][:2] == ["python", "-m"]
    assert importlib.util.find_spec(batch["command"][2])
    assert f"/dev/tcp/127.0.0.1/{web['environment']['OPS_PORT']} " in batch["healthcheck"]["test"][-1]


def test_the_grace_period_is_long_enough_for_the_drain(web: Service) -> None:
    """stop_grace_period = default of DRAIN_SECONDS + 10 (graceful_timeout) + 5."""
    drain = load_settings(environment_of(web, {**MINE, "AUTH_MODE": "none"}), env_file=None).drain_seconds

    assert web["stop_grace_period"] == f"{drain + 10 + 5:g}s"
