"""Where the files of an answer come from, and which addresses are tried."""

from __future__ import annotations

import pytest

from demo.mocks.dify.features.files import signed
from services.attachments import AnswerFile
from services.files.sources import MOST_SOURCES, Source, attached_from_json, attached_to_json, sources_of

ROOT = "http://dify.example:5001"


@pytest.mark.parametrize(
    ("url", "root", "tried"),
    [
        (signed("a"), ROOT, [ROOT + signed("a")]),
        (signed("a"), "", []),
        (ROOT + signed("a"), ROOT, [ROOT + signed("a")]),
        (signed("a", "http://api:5001"), ROOT, [ROOT + signed("a"), signed("a", "http://api:5001")]),
        ("https://a.example/x.png", ROOT, ["https://a.example/x.png"]),
        ("img/x.png", ROOT, []),
        ("file:///etc/passwd", ROOT, []),
    ],
)
def test_the_addresses_of_a_file(url: str, root: str, tried: list[str]) -> None:
    """A signed one is Dify's, whatever host it names; no relative one of another folder, and no other scheme."""
    assert list(Source(url, "", True).candidates(root)) == tried


def test_sources_are_unique_and_bounded() -> None:
    """Those of the text first; a signature makes no other file."""
    text = f"![猫]({signed('a')}) ![站](https://a.example/x.png)"
    told = [AnswerFile(f"{signed('a')}&again=1", "", True), AnswerFile(signed("b"), "报告.pdf")]

    assert [source.name for source in sources_of(text, told)] == ["猫", "站", "报告.pdf"]
    assert len(sources_of("".join(f"![{n}](https://a.example/{n})" for n in range(50)), ())) == (MOST_SOURCES)


def test_what_was_told_survives_a_takeover() -> None:
    files = [AnswerFile(signed("a"), "名", True), AnswerFile(signed("b")), AnswerFile(signed("a"), "名", True)]

    assert attached_from_json(attached_to_json(files)) == files[:2]
    assert attached_from_json("") == []


def test_people_see_no_signed_address() -> None:
    """It names Dify's host and is dead soon; nor is an address in any log."""
    assert Source("https://a.example/x.png", "x", True).public_url == "https://a.example/x.png"
    assert Source(ROOT + signed("a"), "x", True).public_url == ""
    assert "sign" not in repr(Source(signed("a"), "x", True))
    assert "sign" not in repr(AnswerFile(signed("a"), "x", True))
