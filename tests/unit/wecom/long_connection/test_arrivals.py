"""What a connection receives is handled in threads, a bounded number at a time, and knows where its answer goes."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

import services.wecom.long_connection.link as link_module
from services.wecom.long_connection.link import Arrivals, Link, LinkHandlers
from services.wecom.long_connection.protocol import MESSAGE
from services.wecom.long_connection.view import AnswerTarget
from tests.support.servers.processes import wait_until


def test_a_thread_that_cannot_start_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may refuse threads for a moment; afterwards as many messages are handled at once as before."""
    monkeypatch.setattr(link_module, "MOST_HANDLED", 1)
    handled: list[str] = []
    handlers = LinkHandlers(on_message=lambda link, req_id, body: handled.append(req_id), on_event=lambda *_: None)
    taking, link = Arrivals(handlers), cast(Link, None)

    def refuses(thread: threading.Thread, *args: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuses)
        with pytest.raises(RuntimeError):
            taking.take(link, MESSAGE, "r1", {})
    taking.take(link, MESSAGE, "r2", {})

    wait_until(lambda: handled == ["r2"])


def test_a_target_is_read_as_it_was_written() -> None:
    """Also where a newer version has written more."""
    target = AnswerTarget("r-1", "zhangsan", "wrGROUP")

    assert AnswerTarget.read(target.written()) == target
    assert AnswerTarget.read('["r-1", "zhangsan", "wrGROUP", "more"]') == target


def test_the_repr_of_a_target_has_no_credential() -> None:
    """A req_id lets its holder answer the person; a repr may get into a log."""
    assert repr(AnswerTarget("r-1", "zhangsan", "wrGROUP")) == "AnswerTarget()"
