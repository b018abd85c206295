"""The Dockerfile: what is in the image, what is not, and that its CMD serves."""

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

from tests.support.servers.image import BUILDER, Image, ignore_patterns, ignored
from tests.support.servers.processes import RedisServer, free_port, wait_until

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "Dockerfile"

# A build downloads some sixty packages: on a busy machine that takes minutes.
pytestmark = [pytest.mark.full, pytest.mark.scenario, pytest.mark.timeout(300)]


def copy_of_the_sources(target: Path) -> Path:
    """Return a context as a developer's folder is one day: with a .env, caches and a database in it."""
    skipped = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, target, ignore=skipped, dirs_exist_ok=True)
    for name in (".env", "config/.env", "services/.env.production", "services/users.db"):
        (target / name).write_text("DIFY_API_KEY=app-fake-key")
    return target


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, built once. Not below pytest's own folder: no other user may enter that."""
    folder = Path(tempfile.mkdtemp(prefix="laibao-image-"))
    folder.chmod(0o755)
    built = Image(folder, copy_of_the_sources(folder / "context"))
    try:
        built.build(DOCKERFILE.read_text())
        yield built
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settings(port: int, redis_url: str) -> dict[str, str]:
    """What `docker run --env` gives it."""
    bot = {"WECHAT_TOKEN": "fake-token", "WECHAT_ENCODING_AES_KEY": "fake" * 10 + "fak", "AUTH_MODE": "none"}
    dify = {"DIFY_BASE_URL": "http://127.0.0.1:9", "DIFY_API_KEY": "app-fake-key"}
    return {**bot, **dify, "PORT": str(port), "HOST": "127.0.0.1", "WORKERS": "1", "REDIS_URL": redis_url}


def status(port: int, path: str) -> int:
    """Return the HTTP status of a page, 0 where nobody answers."""
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


def test_only_what_runs_is_in_the_image(image: Image) -> None:
    """The image holds the product; no tests, no stage of the demo, no cache, no database, and no .env."""
    here = {path.name for path in image.workdir.iterdir()} - {"__pycache__"}
    demo = {path.name for path in (image.workdir / "demo").iterdir()} - {"__pycache__"}
    files = [path.name for path in image.workdir.rglob("*")]

    code = {"app.py", "gunicorn.conf.py", "config", "server", "channels", "services", "utils", "tools", "demo"}
    assert here == {*code, "requirements.lock", "wheels"}
    assert demo == {"__init__.py", "WXBizJsonMsgCrypt.py", "ierror.py"}
    assert [name for name in files if name.startswith(".env") or name.endswith(".db")] == []


def test_no_layer_holds_a_secret() -> None:
    """The Dockerfile sets no variable that is a secret, and takes none as an argument."""
    text = DOCKERFILE.read_text()

    assert re.search(r"^(ARG|ENV).*(TOKEN|KEY|PASSWORD|SECRET)", text, re.MULTILINE) is None
    assert "--mount=type=secret" not in text


def test_every_module_of_the_image_can_be_imported(image: Image) -> None:
    """Nothing that was left out is missing."""
    files = [path.relative_to(image.workdir) for path in image.workdir.rglob("*.py") if path.name != "gunicorn.conf.py"]
    names = sorted({".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files})

    done = image.run(
        ["python", "-c", f"import importlib, gunicorn_h1c\nfor name in {names}: importlib.import_module(name)"]
    )

    assert "services.answers.gateway" in names
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the image as somebody else")
def test_the_gateway_cannot_change_its_own_code(image: Image) -> None:
    """No file or folder of the image is writable for the user it runs as."""
    done = image.run(["sh", "-c", "find . -writable | head -n 3"])

    assert image.user not in (0, BUILDER)
    assert done.returncode == 0
    assert done.stdout == ""


def test_cmd_serves(image: Image, redis_server: RedisServer) -> None:
    """The image's CMD serves as its unprivileged user, its HEALTHCHECK agrees, and TERM ends it cleanly.

    That user has a place for its metrics, and they are on the operators' port alone.
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
def test_what_the_builder_is_not_sent(path: str, expected: bool) -> None:
    """.dockerignore keeps secrets, caches and tests from the builder, and nothing that runs."""
    assert ignored(Path(path), ignore_patterns(ROOT)) is expected
