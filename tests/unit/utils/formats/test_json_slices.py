"""JSON in pieces: the pieces give the whole value, and only one piece is in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from utils.formats.json_slices import PIECE, Slices, is_sliced, json_pieces, text_member


@given(st.lists(st.text()), st.dictionaries(st.text(), st.integers() | st.text()))
def test_joined_pieces_are_the_json_of_the_value(slices: list[str], others: dict[str, int | str]) -> None:
    """This holds for any slices, at any depth of the value; slices can be read twice."""
    text = "".join(slices)
    value = {"a": others, "data": {"content": Slices(lambda: slices), "b": None}, "c": [others]}

    written = b"".join(json_pieces(value))

    assert json.loads(written) == {"a": others, "data": {"content": text, "b": None}, "c": [others]}
    assert list(Slices(lambda: slices)) == list(Slices(lambda: slices))


def test_slices_are_read_when_their_piece_is_requested() -> None:
    """Of 3 MB of text only the first 30 KB are read for the first piece; no piece is much longer than PIECE."""
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
    """A value without slices gives one piece; a lone surrogate becomes a question mark."""
    assert text_member(lambda: ["an", "swer"], long=False) == "answer"
    assert is_sliced({"data": {"content": text_member(lambda: [], long=True)}})
    assert not is_sliced({"data": {"content": "answer"}})
    assert list(json_pieces({"content": "答\ud800"})) == ['{"content":"答?"}'.encode()]
