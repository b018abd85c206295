"""The requirements: every package has an exact version, and every imported package is required."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CHOSEN = ("requirements.txt", "requirements-demo.txt", "requirements-dev.txt", "requirements-otel.txt")
#: What traces need.
OTEL = CHOSEN[3]
#: Optional: it needs a compiler.
FAST = "requirements-fast.txt"
PINS = (*CHOSEN, FAST, "constraints.txt")
#: The product in the image; the rest of demo/ and the tests have other requirements.
RUNS = ("app.py", "gunicorn.conf.py", "bootstrap", "config", "server", "channels", "services", "utils", "tools")


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-"))]


def requirements(*names: str) -> dict[str, Requirement]:
    """Return the requirements of the files by normalised name."""
    parsed = [Requirement(line.partition("#")[0]) for name in names for line in lines(name)]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def dependencies(requirement: Requirement) -> Iterator[Requirement]:
    """Yield the requirements of an installed package on this Python."""
    extras = requirement.extras or {""}
    for text in distribution(requirement.name).requires or []:
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield needed


@pytest.mark.parametrize("name", PINS)
def test_every_version_is_exact(name: str) -> None:
    """Each line pins one version with `==`."""
    pinned = requirements(name).values()

    assert pinned
    assert [str(r) for r in pinned if [s.operator for s in r.specifier] != ["=="]] == []


@pytest.mark.parametrize("name", [*CHOSEN, FAST])
def test_every_package_has_its_reason(name: str) -> None:
    """Each package of these files has a comment with its purpose."""
    assert [line for line in lines(name) if not line.partition("#")[2].strip()] == []


def test_dependencies_of_packages_are_pinned_too() -> None:
    """Every dependency has a pinned version, and constraints.txt has no other packages."""
    pinned = requirements(*CHOSEN, "constraints.txt")
    waiting = list(requirements(*CHOSEN).values())
    seen = {canonicalize_name(r.name) for r in waiting}

    while waiting:
        for needed in dependencies(waiting.pop()):
            if (name := canonicalize_name(needed.name)) not in seen:
                seen.add(name)
                waiting.append(needed)

    assert seen == pinned.keys()


def test_a_plain_install_reads_the_constraints() -> None:
    """`pip install -r requirements.txt` alone is exact: the files include constraints.txt."""
    assert "-c constraints.txt\n" in (ROOT / "requirements.txt").read_text()
    assert "-r requirements.txt\n" in (ROOT / "requirements-demo.txt").read_text()
    assert "-r requirements-demo.txt\n" in (ROOT / "requirements-dev.txt").read_text()
    assert "-r requirements-otel.txt\n" in (ROOT / "requirements-dev.txt").read_text()
    assert "-c constraints.txt\n" in (ROOT / OTEL).read_text()


def imported_packages(paths: list[Path]) -> set[str]:
    """Return the top-level names that the files import, without the standard library."""
    every = (node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    nodes = [node for node in every if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names


@pytest.mark.parametrize(
    ("where", "files"),
    [(RUNS, (CHOSEN[0], OTEL, FAST)), (("demo",), CHOSEN[:2]), (("tests", "bench"), PINS)],
    ids=["product", "demo", "tests"],
)
def test_imported_packages_are_required(where: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Each package that the code imports is in the requirements that are installed for it."""
    paths = [p for name in where for p in ((ROOT / name).rglob("*.py") if (ROOT / name).is_dir() else [ROOT / name])]
    ours = {path.stem for path in ROOT.iterdir()}
    of_package = packages_distributions()

    imported = imported_packages([path for path in paths if path.exists()]) - ours

    required = requirements(*files).keys()
    assert [i for i in imported if not required & {canonicalize_name(d) for d in of_package.get(i, [i])}] == []


def test_gunicorn_runs_without_the_compiled_parser() -> None:
    """gunicorn.conf.py and the callbacks' fast path do not need gunicorn_h1c, which takes a compiler to install."""
    without = "import sys; sys.modules['gunicorn_h1c'] = None; from server.fast_path import FastPath"
    without += "; print(FastPath.possible())"
    result = subprocess.run([sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.stdout == "False\n", result.stderr
    assert not re.search(r"^http_parser = .fast", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)


#: Needed by redis on Python before 3.11.3 only; Debian 12 has 3.11.2.
OLDER = {"async-timeout": "5.0.1"}
LOCKS = ("requirements.lock", "requirements-fast.lock", "requirements-dev.lock", "requirements-otel.lock")
#: Where the lock file has all of the packages, with what they bring along.
WHOLE = [(LOCKS[0], CHOSEN[:1]), (LOCKS[2], CHOSEN), (LOCKS[3], (OTEL,))]


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes of each package of a lock file."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE).strip())
    found = (re.match(r"([^\s[]+)\S*==(\S+) \\\n", entry) for entry in entries)
    hashes = [re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry) for entry in entries]
    return {canonicalize_name(f[1]): (f[2], h) for f, h in zip(found, hashes, strict=True) if f}


def wanted(*names: str) -> Iterator[Requirement]:
    """Yield what the files and all that they install require; a package may come more than once."""
    waiting = list(requirements(*names).values())
    seen: set[str] = set()
    while waiting:
        yield (requirement := waiting.pop())
        if str(requirement) not in seen:
            seen.add(str(requirement))
            waiting += dependencies(requirement)


def closure(*names: str) -> set[str]:
    """Return the packages that the files install, with all dependencies."""
    return {canonicalize_name(requirement.name) for requirement in wanted(*names)}


@pytest.mark.parametrize(("lock", "files"), [*WHOLE, (LOCKS[1], (FAST,))])
def test_a_lock_has_what_its_requirements_install(lock: str, files: tuple[str, ...]) -> None:
    """A lock file has exactly the packages of its requirements, at the pinned versions, each with hashes."""
    pinned = OLDER | {name: next(iter(r.specifier)).version for name, r in requirements(*PINS).items()}
    found = locked(lock)

    older = OLDER.keys() if "requirements.txt" in files else set()
    expected = closure(*files) | older if lock != LOCKS[1] else requirements(FAST).keys()
    assert found.keys() == expected
    assert {name: version for name, (version, _) in found.items()} == {name: pinned[name] for name in found}
    assert [name for name, (_, hashes) in found.items() if not hashes] == []


@pytest.mark.parametrize(("lock", "files"), WHOLE)
def test_a_lock_pins_a_package_with_the_extras_that_others_require(lock: str, files: tuple[str, ...]) -> None:
    """`a[b]` is pinned as `a[b]`: with hashes, pip takes `a==1` for no pin of it once there is a newer version."""
    text = (ROOT / lock).read_text()

    required = {f"{canonicalize_name(r.name)}[{','.join(sorted(r.extras))}]" for r in wanted(*files) if r.extras}
    assert [name for name in sorted(required) if f"\n{name}==" not in text] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    """Packages come from the index that is configured on the machine."""
    text = (ROOT / lock).read_text()

    assert not re.search(r"://|^\s*(--(extra-)?index-url|--find-links|--trusted-host|-i|-f)\b", text, re.MULTILINE)


def images() -> set[str]:
    """Return every image of the Dockerfile, compose.yaml and the manifests."""
    found = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for path in (ROOT / "compose.yaml", *(ROOT / "k8s").rglob("*.yaml")):
        found |= set(re.findall(r"^\s*(?:- )?image: (\S+)", path.read_text(), re.MULTILINE))
    return found


def test_images_are_pinned_by_exact_tag() -> None:
    """A tag has three numbers; the image that compose builds has none."""
    others = images() - {"wechatlaibao"}

    assert {image.partition(":")[0] for image in others} == {"python", "redis", "mysql", "wechatlaibao"}
    assert [image for image in others if not re.search(r":\d+\.\d+\.\d+(-[a-z-]+)?$", image)] == []
    assert "@sha256:" in (ROOT / "Dockerfile").read_text()
