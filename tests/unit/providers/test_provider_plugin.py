"""A user's own provider: the file that docs/providers.md shows, found by import path and by entry point."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.groups import ProviderSettings
from services.providers.base import BaseRAGProvider
from services.providers.registry import build_provider
from tests.support.answers import ask
from tests.support.own_provider import MODULE, MockOllama, shown_file
from tests.support.texts import KEYS


@pytest.fixture
def ollama() -> Iterator[MockOllama]:
    with MockOllama() as mock:
        yield mock


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path with the file of the documentation."""
    (tmp_path / f"{MODULE}.py").write_text(shown_file(), "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop(MODULE, None)


def built(name: str, ollama: MockOllama) -> BaseRAGProvider:
    """Build the provider that a setting names, with the address of the mock."""
    settings = ProviderSettings.model_validate({"rag_provider": name})
    provider = build_provider(settings, bot="default", pool_size=1, texts=KEYS)
    provider.url = f"{ollama.address}/api"  # type: ignore[attr-defined]
    return provider


def test_the_shown_file_is_twenty_lines() -> None:
    """Blank lines do not count; the file is complete."""
    assert len([line for line in shown_file().splitlines() if line.strip()]) <= 20


def test_a_file_is_found_by_its_import_path(folder: Path, ollama: MockOllama) -> None:
    """`RAG_PROVIDER=my_provider:Ollama`."""
    provider = built(f"{MODULE}:Ollama", ollama)

    assert ask(provider, "年假").text == ollama.expected_answer("年假")
    assert ollama.asked[0].body == {"model": "qwen3", "prompt": "年假"}
    assert provider.health_check()


def test_a_package_is_found_by_its_entry_point(folder: Path, ollama: MockOllama) -> None:
    """`RAG_PROVIDER=ollama` works if a package with the documented entry point is installed."""
    installed = folder / "my_provider-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-provider\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[wechatlaibao.providers]\nollama = {MODULE}:Ollama\n")

    assert ask(built("ollama", ollama), "年假").text == ollama.expected_answer("年假")


def test_an_answer_without_an_end_is_an_error(folder: Path, ollama: MockOllama) -> None:
    """The documented file detects a stream without an end."""
    assert ask(built(f"{MODULE}:Ollama", ollama), "[[eof]]").code == "provider_truncated"


def test_the_base_class_loads_no_http_client() -> None:
    """A plug-in that imports `services.providers.base` loads the standard library and modules of ours without I/O."""
    outside = "{'requests', 'urllib3', 'pydantic', 'config.settings'}"
    script = f"import sys, services.providers.base; print({outside} & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert loaded.stdout.strip() == "set()"
