"""The Dockerfile: the content of the image, and a container that runs its CMD."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import VERSION
from tests.support.servers.image import BUILDER, Image, ignore_patterns, ignored
from tests.support.servers.processes import RedisServer, free_port, wait_until

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "Dockerfile"

# A build downloads about sixty packages, which takes minutes on a busy machine.
pytestmark = [pytest.mark.full, pytest.mark.scenario, pytest.mark.timeout(900)]


def copy_of_the_sources(target: Path) -> Path:
    """Return a build context like a developer's folder, with .env files and a database in it."""
    skipped = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, target, ignore=skipped, dirs_exist_ok=True)
    for name in (".env", "config/.env", "services/.env.production", "services/users.db"):
        (target / name).write_text("DIFY_API_KEY=app-fake-key")
    return target


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, built once. It is not below pytest's folder, which other users may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="laibao-image-"))
    folder.chmod(0o755)
    built = Image(folder, copy_of_the_sources(folder / "context"))
    try:
        built.build(DOCKERFILE.read_text())
        yield built
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settings(port: int, redis_url: str) -> dict[str, str]:
    """Return the environment that `docker run --env` would set."""
    bot = {"WECHAT_TOKEN": "fake-token", "WECHAT_ENCODING_AES_KEY": "fake" * 10 + "fak", "AUTH_MODE": "none"}
    dify = {"DIFY_BASE_URL": "http://127.0.0.1:9", "DIFY_API_KEY": "app-fake-key"}
    return {**bot, **dify, "PORT": str(port), "HOST": "127.0.0.1", "WORKERS": "1", "REDIS_URL": redis_url}


def status(port: int, path: str) -> int:
    """Return the HTTP status of a page, or 0 if the connection fails."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def user_of(pid: int) -> int:
    found = re.search(r"^Uid:\t(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def test_the_image_holds_the_product_only(image: Image) -> None:
    """It has no tests, no page that plays WeCom, no mock of a provider, no cache, no database and no .env."""
    here = {path.name for path in image.workdir.iterdir()} - {"__pycache__"}
    demo = {path.name for path in (image.workdir / "demo").iterdir()} - {"__pycache__"}
    files = [path.name for path in image.workdir.rglob("*")]

    folders = {"bootstrap", "channels", "config", "demo", "server", "services", "tools", "utils"}
    assert here == {"app.py", "gunicorn.conf.py", *folders, "requirements.lock", "requirements-otel.lock"}
    assert demo == {"__init__.py", "WXBizJsonMsgCrypt.py", "ierror.py", "wecom", "mocks"}
    assert sorted(path.name for path in (image.workdir / "demo/mocks").glob("*.py")) == ["__init__.py", "http.py"]
    assert [name for name in files if name.startswith(".env") or name.endswith(".db")] == []


def test_the_labels_name_product_and_version(image: Image) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels.items()}

    assert (labels["title"], labels["version"], labels["licenses"]) == ("WechatLaibao", VERSION, "MIT")


def test_no_layer_holds_a_secret() -> None:
    """The Dockerfile has no variable and no build argument for a secret."""
    text = DOCKERFILE.read_text()

    assert re.search(r"^(ARG|ENV).*(TOKEN|KEY|PASSWORD|SECRET)", text, re.MULTILINE) is None
    assert "--mount=type=secret" not in text


def test_every_module_of_the_image_can_be_imported(image: Image) -> None:
    """No module imports one that was left out of the image."""
    files = [path.relative_to(image.workdir) for path in image.workdir.rglob("*.py") if path.name != "gunicorn.conf.py"]
    names = sorted({".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files})

    done = image.run(
        ["python", "-c", f"import importlib, gunicorn_h1c\nfor name in {names}: importlib.import_module(name)"]
    )

    assert "services.answers.gateway" in names
    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE" in image.run(["python", "-m", "tools.migrate", "sql"]).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the image as somebody else")
def test_the_gateway_cannot_change_its_own_code(image: Image) -> None:
    """No file or folder of the image is writable for its user."""
    done = image.run(["sh", "-c", "find . -writable | head -n 3"])

    assert image.user not in (0, BUILDER)
    assert done.returncode == 0
    assert done.stdout == ""


def test_cmd_serves(image: Image, redis_server: RedisServer) -> None:
    """The image's CMD serves as its unprivileged user, its HEALTHCHECK passes, and SIGTERM ends it with code 0.

    That user can write its metrics, which are served on OPS_PORT only.
    """
    port, ops_port = free_port(), free_port()

    with image.container(**settings(port, redis_server.url()), OPS_PORT=str(ops_port)) as gateway:
        wait_until(lambda: status(port, "/healthz") or gateway.poll() is not None, timeout=60)
        log = image.log.read_text()
        assert status(port, "/healthz") == 200, log
        wait_until(lambda: status(port, "/readyz") == 200, timeout=30)
        assert image.run(image.healthcheck, PORT=str(port)).returncode == 0
        assert (status(ops_port, "/metrics"), status(port, "/metrics")) == (200, 404)
        assert user_of(gateway.pid) == (image.user if os.geteuid() == 0 else os.geteuid())

        gateway.terminate()
        assert gateway.wait(60) == 0

    assert image.run(image.healthcheck, PORT=str(port)).returncode != 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".env", True),
        ("config/.env", True),
        ("config/.env.production", True),
        ("services/__pycache__/x.pyc", True),
        ("tests/app/test_app.py", True),
        (".git/config", True),
        ("config/environment.py", False),
        ("services/wecom/codes.py", False),
    ],
)
def test_dockerignore_excludes_secrets_caches_and_tests(path: str, expected: bool) -> None:
    """Those files are not sent to the builder; modules of the product are."""
    assert ignored(Path(path), ignore_patterns(ROOT)) is expected
