"""The floors of the product: imports go down only, and few packages may import what connects to the outside."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("config", "bootstrap", "server", "channels", "services", "utils", "tools", "bench", "demo")
FILES = ("app", "gunicorn.conf")

#: The floors of docs/architecture.md, of packages and of the modules that lie directly in `services`.
FLOORS = {
    "app": 8, "gunicorn.conf": 8, "server": 8, "bootstrap": 8, "tools": 8, "demo": 8, "bench": 8,
    "channels": 7,
    "services.batches": 6, "services.realtime": 6, "services.wecom": 6,
    "services.answers": 5, "services.feedback": 5, "services.usage": 5, "services.admin": 4,
    "services.streams": 4, "services.identity": 4, "services.providers": 4,
    "services.files": 4, "services.sockets": 4, "services.ops": 4,
    "services.conversations": 4,
    "services.redis": 3, "services.sql": 3, "services.http": 3, "services.rules": 3,
    "services.errors": 2, "services.attachments": 2, "services.forms": 2, "services.models": 2,
    "services.channels": 2, "services.metrics": 2,
    "services.rounds": 2,
    "config": 1,
    "utils": 0,
}  # fmt: skip
#: Packages of `channels` that are no channels: channels may import these, but not each other.
SHARED_BY_CHANNELS = (
    *("channels.asking", "channels.following", "channels.options", "channels.rating", "channels.thinking"),
    *("channels.registry", "channels.web", "channels.sockets", "channels.waiting"),
)

#: Third-party packages and the modules that may import them; `*` is any name.
OUTSIDE = {
    "redis": (
        "services.redis.*",
        "services.*.*store",
        "services.identity.rate_limiter",
        "bootstrap.container",
    ),
    "sqlalchemy": (
        *("services.*.*store", "services.sql.*"),
        *("services.batches.tables", "services.batches.claims", "services.usage.tables"),
    ),
    "alembic": ("services.sql.*",),
    "pymysql": ("services.sql.*",),
    "requests": ("services.*_service", "services.http.*", "services.providers.*"),
    "urllib3": ("services.*_service", "services.http.*", "services.providers.*"),
    "flask": ("app", "bootstrap.blueprints", "channels.*", "demo.*"),
    "gunicorn": ("server.*", "gunicorn.conf", "app"),
    "gevent": ("server.*", "gunicorn.conf"),
    "prometheus_client": ("services.metrics", "services.ops.metrics_files"),
    "fakeredis": ("demo.*",),
    "opentelemetry": ("services.ops.otlp_service",),
    "PIL": ("services.files.*", "demo.mocks.*"),
}
#: Floor 8 includes the command line tools, which may also read Redis and SQL and send HTTP.
TOP, TOP_MAY = 8, ("redis", "sqlalchemy", "pymysql", "requests", "urllib3")


@dataclass(frozen=True)
class Import:
    importer: str
    #: The full dotted name as far as known from the statement: `services.errors` of `from services import errors`.
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Return every module of the product by dotted name."""
    paths = [ROOT / f"{name}.py" for name in FILES] + [p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py"))]
    return {_dotted(path): path for path in paths if path.exists()}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def nodes(source: str) -> list[ast.AST]:
    """Return the nodes of a module that the tests of this file look at."""
    return [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom | ast.Attribute)
    ]


def imports(importer: str, source: str, known: set[str]) -> Iterator[Import]:
    """Yield the imports of a module, those inside functions and under TYPE_CHECKING included."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from (Import(importer, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{importer}:{node.lineno} imports relative to itself: name the module in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (Import(importer, name if name in known else str(node.module), node.lineno) for name in names)


def floor(module: str) -> int | None:
    """Return the floor of a module, or None if the module is not ours."""
    return next((level for name, level in FLOORS.items() if _below(module, name)), None)


def package(module: str) -> str:
    """Return a module's package: `services.redis` of `services.redis.store`, `utils` of `utils.sse`."""
    depth = 2 if module.split(".")[0] in ("services", "channels") else 1
    return ".".join(module.split(".")[:depth])


def _below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def may_import(module: str, package: str) -> bool:
    """Tell whether a module may import a third-party package."""
    if package in TOP_MAY and floor(module) == TOP:
        return True
    return any(fnmatchcase(module, place) for place in OUTSIDE[package])


def climbs(found: Import) -> bool:
    """Tell whether an import goes up."""
    own, other = floor(found.importer), floor(found.imported)
    return own is not None and other is not None and other > own


def between_channels(found: Import) -> bool:
    """Tell whether one channel imports another."""
    own, other = package(found.importer), package(found.imported)
    ours = own.startswith("channels.") and other.startswith("channels.")
    return ours and own != other and other not in SHARED_BY_CHANNELS


@pytest.fixture(scope="module")
def found() -> list[Import]:
    """All imports of all modules."""
    every = modules()
    return [i for name, path in every.items() for i in imports(name, path.read_text("utf-8"), set(every))]


def test_imports_go_down_only(found: list[Import]) -> None:
    """No module imports one of a higher floor, of another channel, or of the tests, which the image does not have."""
    for is_wrong in (climbs, between_channels, lambda i: _below(i.imported, "tests")):
        assert [str(i) for i in found if is_wrong(i)] == []


def test_packages_have_no_circular_imports(found: list[Import]) -> None:
    """Below the top floor no package imports, directly or not, a package that imports it."""
    needs: dict[str, set[str]] = defaultdict(set)
    for one in found:
        own, other = package(one.importer), package(one.imported)
        if own != other and floor(one.importer) != TOP and floor(one.imported) is not None:
            needs[own].add(other)

    assert circles(needs) == []


def circles(needs: dict[str, set[str]]) -> list[str]:
    """Return each circle once, as a path of packages."""

    def ways(way: tuple[str, ...]) -> Iterator[str]:
        for name in sorted(needs.get(way[-1], ())):
            if name == way[0]:
                yield " > ".join((*way, name))
            elif name > way[0] and name not in way:
                yield from ways((*way, name))

    return [circle for name in sorted(needs) for circle in ways((name,))]


def test_circles_are_found() -> None:
    """A circle is found from any of its packages and listed once."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a > b > c > a"]


def test_only_named_modules_import_what_connects_to_the_outside(found: list[Import]) -> None:
    """Stores import redis, SQL stores SQLAlchemy, services and providers HTTP clients; app, channels and demo Flask."""
    outside = [(i, i.imported.split(".")[0]) for i in found]

    assert [str(i) for i, package in outside if package in OUTSIDE and not may_import(i.importer, package)] == []


def test_every_module_has_a_floor() -> None:
    """`modules` finds the product, and `FLOORS` covers each of its modules."""
    names = set(modules())

    assert {"services.errors", "services.models", "utils.deadline"} <= names
    assert {name for name in names if floor(name) is None} == {"services"}


def test_the_tables_name_existing_modules_only() -> None:
    """Each pattern of `FLOORS`, `OUTSIDE` and the other tables matches a module."""
    names = set(modules())
    named = {
        *FLOORS,
        *SHARED_BY_CHANNELS,
        *(place for places in OUTSIDE.values() for place in places),
    }

    assert [name for name in sorted(named) if not any(fnmatchcase(module, name) for module in names)] == []


@pytest.mark.parametrize(
    ("importer", "line", "wrong"),
    [
        ("services.streams.store", "from services.answers import gateway", True),
        ("services.streams.store", "import services.answers.gateway", True),
        ("utils.formats.sse", "def f():\n    from services.streams.store import StreamStore", True),
        ("channels.wecom.channel", "from bootstrap.container import Container", True),
        ("services.redis.store", "from services.streams.store import StreamStore", True),
        ("app", "from bootstrap.container import Container", False),
        ("bootstrap.container", "from channels.wecom.channel import blueprint", False),
        ("channels.wecom.channel", "from services.answers.gateway import Gateway", False),
        ("services.identity.token_store", "from services.redis.lock_store import LockStore", False),
        ("services.identity.keys", "from services.wecom.crypto import decode_key", True),
        ("services.answers.takeover", "from services.wecom.late_answers import LateAnswers", True),
    ],
)
def test_imports_that_go_up_are_found(importer: str, line: str, wrong: bool) -> None:
    """Each form of the import statement is judged by the module that it names."""
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
def test_may_import_follows_the_table(module: str, package: str, allowed: bool) -> None:
    """`OUTSIDE` allows third-party packages by the module's name, and the topmost floor has exceptions."""
    assert may_import(module, package) is allowed


def test_only_the_settings_read_the_environment() -> None:
    """Below the top floor only `config` uses os.environ and os.getenv."""
    readers = {
        name
        for name, path in modules().items()
        if (floor(name) or 0) < TOP and not _below(name, "config") and _reads_environment(path.read_text("utf-8"))
    }

    assert readers == set()


def _reads_environment(source: str) -> bool:
    names = (node for node in nodes(source) if isinstance(node, ast.Attribute))
    return any(isinstance(n.value, ast.Name) and n.value.id == "os" and n.attr in ("environ", "getenv") for n in names)


def test_no_package_hides_one_of_the_standard_library() -> None:
    """The names of our folders are not in the standard library."""
    assert not set(FOLDERS) & sys.stdlib_module_names
