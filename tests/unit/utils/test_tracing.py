"""A request's ids: which are taken, and what is sent onward."""

from __future__ import annotations

import re
import threading

import pytest

from utils.tracing import Trace, current_trace, onward_headers, read_trace, tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("taken", ["7", "order-7", "a" * 128, "1-67891233-abcdef012345678912345678", "x=1/2+3@4:5"])
def test_a_clients_request_id_is_taken(taken: str) -> None:
    assert read_trace(taken, "").request_id == taken


@pytest.mark.parametrize("wrong", ["", "a" * 129, "a b", "a\nb", 'a"b', "é", "a\x00", "<script>"])
def test_another_request_id_is_replaced(wrong: str) -> None:
    """By a random one, so that every reply has an id to ask about."""
    first, second = read_trace(wrong, "").request_id, read_trace(wrong, "").request_id

    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"),
        (f" 00-{TRACE}-{PARENT}-00 ", f"00-{TRACE}-{PARENT}-00"),
        (f"cc-{TRACE}-{PARENT}-ff-what-follows", f"00-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-02", f"00-{TRACE}-{PARENT}-00"),
        (f"00-{TRACE}-{PARENT}-01-more", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"cc-{TRACE}-{PARENT}-01more", ""),
        (f"cc-{TRACE}-{PARENT}-01-{'x' * 300}", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{PARENT}-01", ""),
        (f"00-{TRACE}-{PARENT}", ""),
        ("", ""),
    ],
)
def test_a_traceparent_is_taken_as_w3c_says(sent: str, taken: str) -> None:
    """A malformed one begins no trace; of a later version the known part counts."""
    assert read_trace("r", sent) == Trace("r", taken)


def test_a_request_to_the_provider_continues_the_trace() -> None:
    """With a parent id of its own; without a trace there is no header."""
    assert onward_headers() == {}
    with tracing(read_trace("r", f"00-{TRACE}-{PARENT}-01")):
        first, second = onward_headers()["traceparent"], onward_headers()["traceparent"]

    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", first)
    assert len({first[36:52], second[36:52], PARENT}) == 3
    assert onward_headers() == {}


def test_a_trace_belongs_to_its_thread() -> None:
    """Another thread, which serves another request, has none; a block within a block ends with the outer trace."""
    seen: list[Trace] = []
    with tracing(Trace("r1")):
        with tracing(Trace("r2")):
            other = threading.Thread(target=lambda: seen.append(current_trace()))
            other.start()
            other.join()
        seen.append(current_trace())

    assert seen == [Trace(), Trace("r1")]
