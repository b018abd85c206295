"""The sentences about wrong requests in both languages."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from config.texts import Texts
from config.texts.requests import ZH_REQUESTS

ROOT = Path(__file__).parents[3]
ZH = Texts("zh").translated
CHINESE = re.compile("[\u4e00-\u9fff]")
#: The modules whose English sentences are replies about requests: all channels, and what reads files of questions.
MODULES = [path for folder in ("channels", "utils/questions/files") for path in (ROOT / folder).rglob("*.py")]
#: The calls that take such a sentence.
CALLS = ("RestError", "AdmissionRefused", "wrong_field", "_wrong", "_refused", "invalid", "FileRefused")
#: Long sentences have a name of their own.
NAMES = ("message", "problem")


class Form(BaseModel):
    """Fields that can be wrong in every way that our requests can be."""

    model_config = {"extra": "forbid"}

    text: Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]*$")] = "ab"
    number: Annotated[int, Field(ge=0, lt=10)] = 1
    share: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.5
    choice: Literal["one", "two"] = "one"
    only: Literal["one"] = "one"
    flag: bool = True
    texts: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    inputs: Annotated[dict[str, int], Field(max_length=1)] = {}
    must: int


WRONG: dict[str, Any] = {
    "text": ["a", "abcd", "A1", 7],
    "number": [-1, 10, "x", 1.5, None],
    "share": [0, 2, "x", float("inf")],
    "choice": ["three"],
    "only": ["two"],
    "flag": [7, "perhaps"],
    "texts": [[], ["a", "b", "c"], "a", [7]],
    "inputs": [{"a": 1, "b": 2}, 7, {"a": "x"}],
    "surplus": [1],
}


def problems() -> Iterator[str]:
    """Yield what pydantic says of each wrong value, in a query string and in a body of JSON."""
    for field in ({name: value} for name, values in WRONG.items() for value in values):
        for read in (Form.model_validate, partial(Form.model_validate_json, strict=True)):
            given: Any = field if read == Form.model_validate else json.dumps(field)
            try:
                read(given)
            except ValidationError as exc:
                yield from (problem["msg"] for problem in exc.errors(include_url=False, include_input=False))


def sentences() -> Iterator[str]:
    """Yield the literal English sentences of the modules, with a part in braces as `7`."""
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            taken = list(node.args) if isinstance(node, ast.Call) and name in CALLS else []
            taken += [node.value] if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in NAMES else []
            yield from (said for one in taken if " " in (said := _literal(one)))


def _literal(node: ast.expr) -> str:
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(_literal(part) if isinstance(part, ast.Constant) else "7" for part in parts)
    return ""


SENTENCES, PROBLEMS = sorted(set(sentences())), sorted(set(problems()))


@pytest.mark.parametrize("english", SENTENCES)
def test_our_sentences_are_translated(english: str) -> None:
    assert ZH(english) != english
    assert CHINESE.search(ZH(english))


@pytest.mark.parametrize("english", PROBLEMS)
def test_problems_of_fields_are_translated(english: str) -> None:
    """All that pydantic says of the kinds of fields that requests have; limits stay as they are."""
    translated = ZH(english)

    assert CHINESE.search(translated)
    assert set(re.findall("[0-9]+", translated)) <= set(re.findall("[0-9]+", english))
    assert Texts("en").translated(english) == english


def test_there_are_sentences_to_translate() -> None:
    """The scans above find the sentences and the problems of fields."""
    assert "The body is not JSON." in SENTENCES
    assert "The body is too large: 7 bytes are taken at most." in SENTENCES
    assert "Another request was sent with this Idempotency-Key." in SENTENCES
    assert len(PROBLEMS) > 20


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("String should have at most 64 characters", "最多 64 个字符"),
        ("Input should be 'show', 'hide' or 'separate'", "应为 'show', 'hide' 或 'separate'"),
        ("The body is too large: 1048576 bytes are taken at most.", "请求体过大：最多 1048576 字节。"),
        ("Value error, either texts or items is needed", "texts 和 items 应有且只有一个"),
        ("抱歉", "抱歉"),
        ("another sentence", "another sentence"),
        ("", ""),
    ],
)
def test_a_translation_keeps_the_parts(english: str, chinese: str) -> None:
    """A sentence that is not known stays as it is."""
    assert ZH(english) == chinese


def test_templates_have_the_same_parts() -> None:
    """A Chinese template names no part that the English one lacks."""
    for english, chinese in ZH_REQUESTS.items():
        assert set(re.findall(r"\{(\w+)\}", chinese)) <= set(re.findall(r"\{(\w+)\}", english)), english
