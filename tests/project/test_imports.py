"""The house has floors and imports go down only; what speaks to the outside is in few, named places."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("config", "channels", "services", "utils", "tools", "bench", "demo")
FILES = ("app", "gunicorn.conf")

#: The floors of docs/architecture.md, matched in this order: a module, or all below a package.
FLOORS = {
    "config": 0, "utils": 0, "services.errors": 0, "services.models": 0, "services.metrics": 0,
    "services.wecom.crypto": 0, "services.wecom.codes": 0,
    "services.answers.answer": 2, "services.streams.owned_stream": 2, "services.streams.flusher": 2, "services.streams.manager": 2,
    "services.streams.producer": 2, "services.streams.readers": 2, "services.streams.following": 2,
    "services.answers.memory": 2, "services.answers.provider_run": 2,
    "services.answers.takeover": 3, "services.answers.gateway": 3, "services.deliverer": 3,
    "services.batches.manager": 3, "services.batches.worker": 3, "services.batches.item": 3,
    "channels": 4,
    "app": 5, "gunicorn.conf": 5, "tools": 5, "bench": 5, "demo": 5,
    "services": 1,
}  # fmt: skip
#: Beside the stairs: it imports everything, and only the top floor imports it; its parts are its own.
CONTAINER, PARTS = "services.container", "services.factories"

#: A package from outside, and the modules that may import it; `*` is any name.
OUTSIDE = {
    "redis": (
        "services.*_store",
        "services.redis_*",
        "services.limits.rate_limiter",
        "services.batches.broker",
        CONTAINER,
    ),
    "dramatiq": ("services.batches.broker",),
    "sqlalchemy": ("services.*_store", "services.sql_*"),
    "pymysql": ("services.sql_*",),
    "requests": ("services.*_service", "services.http.connections", "services.providers.*"),
    "urllib3": ("services.*_service", "services.http.connections", "services.providers.*"),
    "flask": ("app", "channels.*", "demo.*"),
    "gunicorn": ("config.gunicorn_*", "gunicorn.conf", "app"),
    "gevent": ("config.gunicorn_*", "gunicorn.conf"),
    "prometheus_client": ("services.metrics", "services.ops.metrics_files"),
    "fakeredis": ("demo.*",),
}
#: Floor 5 is for people at a terminal: it may also look into Redis and speak HTTP by itself.
TOP_MAY = ("redis", "sqlalchemy", "pymysql", "requests", "urllib3")


@dataclass(frozen=True)
class Import:
    importer: str
    #: The full dotted name, as deep as the statement tells: `services.errors` of `from services import errors`.
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Return every module of the product by its dotted name."""
    paths = [ROOT / f"{name}.py" for name in FILES] + [p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py"))]
    return {_dotted(path): path for path in paths if path.exists()}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(importer: str, source: str, known: set[str]) -> Iterator[Import]:
    """Yield what a module imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{importer}:{node.lineno} imports relative to itself: name the module in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (Import(importer, name if name in known else str(node.module), node.lineno) for name in names)


def floor(module: str) -> int | None:
    """Return the floor of one of our modules; None for the container and for what is not ours."""
    if module in (CONTAINER, PARTS):
        return None
    return next((level for name, level in FLOORS.items() if _below(module, name)), None)


def _below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def may_import(module: str, package: str) -> bool:
    """Tell whether a module may import a package from outside."""
    if package in TOP_MAY and floor(module) == 5:
        return True
    return any(fnmatchcase(module, place) for place in OUTSIDE[package])


def climbs(found: Import) -> bool:
    """Tell whether an import goes up, or to the container from below the top floor."""
    own, other = floor(found.importer), floor(found.imported)
    if found.imported == CONTAINER:
        return own != 5
    if found.imported == PARTS:
        return found.importer != CONTAINER
    return own is not None and other is not None and other > own


@pytest.fixture(scope="module")
def found() -> list[Import]:
    """Every import of every module."""
    every = modules()
    return [i for name, path in every.items() for i in imports(name, path.read_text("utf-8"), set(every))]


def test_imports_go_down_only(found: list[Import]) -> None:
    """No module imports one of a floor above its own; the container is imported by the top floor alone."""
    assert [str(i) for i in found if climbs(i)] == []


def test_what_speaks_to_the_outside_has_its_place(found: list[Import]) -> None:
    """Redis in stores, SQL in the SQL stores, HTTP in services and providers, Flask in app, channels and demo."""
    outside = [(i, i.imported.split(".")[0]) for i in found]

    assert [str(i) for i, package in outside if package in OUTSIDE and not may_import(i.importer, package)] == []


def test_every_module_has_a_floor() -> None:
    """The walk saw the product, and knows the floor of each of its modules."""
    names = set(modules())

    assert {"services.errors", "services.models", "utils.deadline"} <= names
    assert {name for name in names if floor(name) is None} == {CONTAINER, PARTS}


def test_nothing_imports_the_tests(found: list[Import]) -> None:
    """The product stands without its tests: the image has none."""
    assert [str(i) for i in found if _below(i.imported, "tests")] == []


@pytest.mark.parametrize(
    ("importer", "line", "wrong"),
    [
        ("services.streams.store", "from services import gateway", True),
        ("services.streams.store", "import services.answers.gateway", True),
        ("utils.formats.sse", "def f():\n    from services.streams.store import StreamStore", True),
        ("channels.wecom.channel", "from services.container import Container", True),
        ("app", "from services.container import Container", False),
        ("services.container", "from channels.wecom.channel import blueprint", False),
        ("channels.wecom.channel", "from services.answers.gateway import Gateway", False),
        ("services.identity.token_store", "from services.redis.lock_store import LockStore", False),
    ],
)
def test_the_walk_sees_an_import_that_climbs(importer: str, line: str, wrong: bool) -> None:
    """Each way to write an import is judged by where it leads."""
    (only,) = imports(importer, line, {"services.answers.gateway", "services.streams.store"})

    assert climbs(only) is wrong


@pytest.mark.parametrize(
    ("module", "package", "allowed"),
    [
        ("services.streams.store", "redis", True),
        ("services.answers.gateway", "redis", False),
        ("services.providers.dify.service", "requests", True),
        ("services.providers.dify.provider", "requests", True),
        ("channels.wecom.channel", "requests", False),
        ("services.answers.answer", "flask", False),
        ("tools.doctor", "redis", True),
        ("tools.doctor", "flask", False),
    ],
)
def test_the_walk_knows_who_may_speak_to_the_outside(module: str, package: str, allowed: bool) -> None:
    """The table above is read as it is meant."""
    assert may_import(module, package) is allowed


def test_only_the_settings_read_the_environment() -> None:
    """os.environ and os.getenv are used below the top floor by config alone."""
    readers = {
        name
        for name, path in modules().items()
        if (floor(name) or 0) < 5 and not _below(name, "config") and _reads_environment(path.read_text("utf-8"))
    }

    assert readers == set()


def _reads_environment(source: str) -> bool:
    names = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return any(isinstance(n.value, ast.Name) and n.value.id == "os" and n.attr in ("environ", "getenv") for n in names)


def test_the_product_names_no_module_of_python_itself() -> None:
    """No package of ours hides one of the standard library."""
    assert not set(FOLDERS) & sys.stdlib_module_names
