"""Seeded mutations of real requests, messages and streams."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

#: Values that parsers and type checks are likely to mishandle.
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), -0.0),
    *(
        "",
        " ",
        "\x00",
        "\ud800",
        "\u202e",
        "\r\n",
        "a" * 5000,
        "字" * 2000,
        "👩\u200d👧" * 50,
        "%00",
        "../../etc/passwd",
    ),
    *(
        "<script>",
        "{token}",
        "`a" * 2000,
        "[" * 2000,
        "[a](/files/x)" * 50,
        "data:image/png;base64,AAAA",
        "http://[::1",
    ),
    *([], {}, [[]] * 100, {"": ""}, {"__proto__": {}}),
)
#: Pieces of bytes that cut, join or invalidate what they are put into.
SPLINTERS = (
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"%",
    b'"',
    b"\\u",
    b"{" * 50,
    b": ",
    b"1e999",
)
#: Levels of the deepest value.
DEPTH = 2000


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value with up to three members replaced, removed, renamed, wrapped or exchanged."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 3)):
        places = [(node, key) for node in _containers(root) for key in _keys(node)]
        node, key = rng.choice(places)
        rng.choice(_CHANGES)(node, key, rng, places)
        # A change may have removed the only member.
        root = root or [None]
    return root[0]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to four of them, or pieces of them, changed."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 1, 1, 2, 8, 64)))
        piece = rng.choice((b"", rng.choice(SPLINTERS), rng.randbytes(end - start), data[start:end] * 2))
        data = data[:start] + piece + (b"" if rng.random() < 0.02 else data[end:])
    return data


def mutated_json(value: Any, rng: random.Random) -> bytes:
    """Return a JSON text of a mutated value; one of ten is also mutated as bytes."""
    shallow = json.dumps(mutated_value(value, rng), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
        shallow = shallow.replace(b'"', opening * DEPTH + b"1" + closing * DEPTH, 1)
    return mutated_bytes(shallow, rng) if rng.random() < 0.1 else shallow


def _containers(node: Any) -> list[Any]:
    found = [node] if isinstance(node, dict | list) and node else []
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [*found, *(inner for child in children for inner in _containers(child))]


def _keys(node: Any) -> Sequence[Any]:
    return list(node) if isinstance(node, dict) else range(len(node))


def _replace(node: Any, key: Any, rng: random.Random, places: Any) -> None:
    node[key] = copy.deepcopy(rng.choice(NASTY))


def _remove(node: Any, key: Any, rng: random.Random, places: Any) -> None:
    if isinstance(node, dict) or key < len(node):
        del node[key]


def _rename(node: Any, key: Any, rng: random.Random, places: Any) -> None:
    if isinstance(node, dict):
        node[rng.choice(("", "type", "id", f"{key}x", str(key).upper()))] = node.pop(key)


def _wrap(node: Any, key: Any, rng: random.Random, places: Any) -> None:
    node[key] = rng.choice(([node[key]], {"a": node[key]}, str(node[key])))


def _exchange(node: Any, key: Any, rng: random.Random, places: Any) -> None:
    other, name = rng.choice(places)
    node[key] = copy.deepcopy(other[name])


_CHANGES: Sequence[Callable[[Any, Any, random.Random, Any], None]] = (
    _replace,
    _replace,
    _remove,
    _rename,
    _wrap,
    _exchange,
)
