"""Citations: an answer's sources as a numbered Markdown list."""

from __future__ import annotations

from typing import Any

import pytest

from utils.citations import MOST, SNIPPET_CHARACTERS, TITLE_CHARACTERS, citation_lines, typed_source


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"title": "员工手册.md", "score": 0.9}, "1. 员工手册.md"),
        ({"document_name": "handbook.md", "position": 1}, "1. handbook.md"),
        ({"title": "  ", "name": "FAQ"}, "1. FAQ"),
        ({"title": "Leave", "url": "https://hr.example/leave?a=1"}, "1. [Leave](https://hr.example/leave?a=1)"),
        ({"url": "https://hr.example/"}, "1. [https://hr.example/](https://hr.example/)"),
        ({"title": "a](http://evil.example) [b\n# c"}, "1. a http://evil.example b c"),
        ({"title": "x", "url": "javascript:alert(1)"}, "1. x"),
        ({"title": "x", "url": "https://a.example/) [y](https://evil.example"}, "1. x"),
        ({"title": "x", "url": "https://[bad"}, "1. x"),
        ({"title": "x", "url": 7}, "1. x"),
        ({"title": 7}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_a_source_becomes_a_line(source: dict[str, Any], line: str) -> None:
    """It has the source's name, linked if there is a safe URL; its text cannot add Markdown."""
    assert citation_lines([source]) == line


def test_the_same_document_is_listed_once() -> None:
    """Retrieval often finds several pieces of one document."""
    assert citation_lines([{"title": "手册"}, {"title": "手册"}, {"title": "制度"}]) == "1. 手册\n2. 制度"


def test_the_list_is_limited() -> None:
    """At most MOST sources are listed, each with at most TITLE_CHARACTERS characters of its name."""
    lines = citation_lines([{"title": f"{number}" + "长" * 500} for number in range(20)]).splitlines()

    assert len(lines) == MOST
    assert {len(line) for line in lines} == {TITLE_CHARACTERS + len("1. ")}


UNKNOWN = {"title": "", "url": "", "snippet": "", "score": None}


@pytest.mark.parametrize(
    ("source", "typed"),
    [
        (
            {"position": 1, "document_name": "hours.md", "score": 0.91, "content": "周一至周五"},
            {"title": "hours.md", "snippet": "周一至周五", "score": 0.91, "position": 1},
        ),
        (
            {"title": "Leave", "url": "https://hr.example/?a=1", "snippet": "Ten days.", "type": "web"},
            {"title": "Leave", "url": "https://hr.example/?a=1", "snippet": "Ten days.", "type": "web"},
        ),
        ({"title": "手册"}, {"title": "手册"}),
        (
            {"link": "https://hr.example/", "similarity": 1, "text": "x" * 700},
            {
                "title": "https://hr.example/",
                "url": "https://hr.example/",
                "score": 1,
                "snippet": "x" * SNIPPET_CHARACTERS,
            },
        ),
        ({"title": 7, "url": "javascript:alert(1)", "snippet": None, "score": True}, {"title": "javascript:alert(1)"}),
        ({"url": "https://[bad", "score": float("nan")}, {"title": "https://[bad"}),
        ({"title": "T", "score": 10**400}, {"title": "T"}),
        ({"url": "https://a.example/ b"}, {"title": "https://a.example/ b"}),
    ],
    ids=str,
)
def test_sources_of_every_provider_have_the_same_members(source: dict[str, Any], typed: dict[str, Any]) -> None:
    """Title, address, passage and score, empty where they are missing or wrong; further members stay."""
    found = typed_source(source)

    assert {name: found[name] for name in UNKNOWN | typed} == UNKNOWN | typed
    assert typed_source(found) == found
