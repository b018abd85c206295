"""JSON that is written in pieces: the same value as in one, and no more of it in memory than a piece."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from utils.formats.json_slices import PIECE, Slices, is_sliced, json_pieces, text_member


@given(st.lists(st.text()), st.dictionaries(st.text(), st.integers() | st.text()))
def test_pieces_are_the_json_of_the_whole(slices: list[str], others: dict[str, int | str]) -> None:
    """Whatever the slices are cut into, and however deep they lie."""
    text = "".join(slices)
    value = {"a": others, "data": {"content": Slices(lambda: slices), "b": None}, "c": [others]}

    written = b"".join(json_pieces(value))

    assert json.loads(written) == {"a": others, "data": {"content": text, "b": None}, "c": [others]}
    assert list(Slices(lambda: slices)) == list(Slices(lambda: slices))


def test_slices_are_read_when_their_piece_is_asked_for() -> None:
    """A megabyte is never there as a whole."""
    read: list[int] = []

    def slices() -> Iterator[str]:
        for number in range(100):
            read.append(number)
            yield "答" * 10_000

    pieces = json_pieces({"content": Slices(slices)})
    sizes = [len(next(pieces))]
    assert read == [0]
    sizes += [len(piece) for piece in pieces]

    assert max(sizes) < PIECE + 4 * 4096
    assert sum(sizes) == len('{"content":""}') + 3_000_000


def test_a_short_text_is_a_string() -> None:
    """And the JSON of a value without slices is one piece."""
    assert text_member(lambda: ["an", "swer"], long=False) == "answer"
    assert is_sliced({"data": {"content": text_member(lambda: [], long=True)}})
    assert not is_sliced({"data": {"content": "answer"}})
    assert list(json_pieces({"content": "答\ud800"})) == ['{"content":"答?"}'.encode()]
