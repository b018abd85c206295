"""The bytes of request bodies in memory, and the uploads at once, are bounded: of all requests and of each caller."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from flask import Flask, Response
from werkzeug.test import Client, TestResponse

from channels.web.bodies import FREE_BYTES, LARGE_BYTES, BodyBudget, CountedBodies, UploadSlots, release_body
from channels.web.errors import register_rest_errors
from channels.web.rest import RestError, raw_body
from config.texts import Texts
from services import metrics
from services.identity.callers import ANONYMOUS

MIB = 1024 * 1024
ANN, BEN = {"Authorization": "Bearer key-a"}, {"X-API-Key": "key-b"}


class Program:
    """Sends bodies to an application with budgets of 4 MiB and, for each caller, 2 MiB."""

    def __init__(self, *, open_to_all: bool = False) -> None:
        app = Flask(__name__)
        register_rest_errors(app, Texts("en"))
        app.add_url_rule("/", view_func=self._view, methods=["GET", "POST"])
        budget = BodyBudget(most=4 * MIB, most_per_caller=2 * MIB)
        self._client = Client(CountedBodies(app.wsgi_app, budget, open_to_all=open_to_all))
        self.releases = self.fails = False

    def sends(
        self, size: int, headers: dict[str, str], *, address: str = "192.0.2.1", buffered: bool = True
    ) -> TestResponse:
        """Send a body that takes `size` bytes of the budget."""
        environ, sent = {"REMOTE_ADDR": address}, b"x" * (size + FREE_BYTES)
        return self._client.post("/", data=sent, headers=headers, environ_overrides=environ, buffered=buffered)

    @contextmanager
    def holds(self, size: int, headers: dict[str, str], address: str = "192.0.2.1") -> Iterator[None]:
        """Have a body in memory that takes `size` bytes of the budget, until the end of its reply."""
        reply = self.sends(size, headers, address=address, buffered=False)
        assert reply.status_code == 200
        yield
        reply.close()

    def sends_pieces(self, sent: io.BytesIO) -> TestResponse:
        """Send a body without its length."""
        environ = {"wsgi.input": sent, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
        return self._client.post("/", environ_overrides=environ)

    def _view(self) -> Response:
        sent = raw_body(max_bytes=8 * MIB)
        if self.releases:
            release_body()
        if self.fails:
            raise RuntimeError("a bug")
        return Response(iter([b"%d" % len(sent)]))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every test ends with as many bytes as it began with."""
    before = held()
    yield
    assert held() == before


def held() -> float:
    return metrics.REGISTRY.get_sample_value("wechatlaibao_body_bytes") or 0.0


def refused(limit: str) -> float:
    return metrics.REGISTRY.get_sample_value("wechatlaibao_bodies_refused_total", {"limit": limit}) or 0.0


def test_bytes_count_until_the_reply_has_ended() -> None:
    """All but the first ones of a body."""
    program, before = Program(), held()

    with program.holds(MIB, ANN):
        assert held() == before + MIB

    assert held() == before


def test_a_callers_bodies_are_bounded_together() -> None:
    """The one beyond the limit is refused, with the time after which to send it again; other callers' are read."""
    program, before = Program(), refused("caller")

    with program.holds(MIB, ANN), program.holds(MIB, ANN):
        reply = program.sends(1, ANN)
        other = program.sends(MIB, BEN)
    later = program.sends(2 * MIB, ANN)

    assert reply.json == {
        "code": 503,
        "message": "Too many large bodies are being received. Send it again later.",
        "data": {"reason": "bodies_full"},
    }
    assert (reply.status_code, reply.headers["Retry-After"], refused("caller")) == (503, "5", before + 1)
    assert (other.status_code, later.status_code) == (200, 200)


def test_all_bodies_are_bounded_together() -> None:
    """However many callers they are of; small ones are read all the same."""
    program, before = Program(), refused("process")

    with ExitStack() as stack:
        for number in range(4):
            stack.enter_context(program.holds(MIB, {"X-API-Key": str(number)}))
        assert program.sends(1, ANN).status_code == 503
        assert program.sends(0, ANN).data == b"%d" % FREE_BYTES
        assert program.sends(-1000, ANN).data == b"%d" % (FREE_BYTES - 1000)

    assert refused("process") == before + 1
    assert program.sends(1, ANN).status_code == 200


def test_a_body_of_unknown_length_counts_as_it_arrives() -> None:
    """It is refused at the limit, before it is in memory."""
    sent = io.BytesIO(b"x" * 3 * MIB)

    assert Program().sends_pieces(sent).status_code == 503
    assert sent.tell() == 2 * MIB + 2 * FREE_BYTES


@pytest.mark.parametrize("open_to_all", [False, True])
def test_a_caller_without_a_credential_is_its_address(open_to_all: bool) -> None:
    """Where none is needed, one that is shown anyway does not count: anybody can make up another one."""
    program = Program(open_to_all=open_to_all)
    shown = (ANN, BEN) if open_to_all else ({}, {})

    with program.holds(2 * MIB, shown[0], "2001:db8::1"):
        assert program.sends(1, shown[1], address="2001:db8::2").status_code == 503
        assert program.sends(1, shown[1], address="2001:db8:1::1").status_code == 200


def test_a_body_may_be_released_before_its_reply() -> None:
    """The bytes count no longer while its answer is awaited."""
    program, before = Program(), held()
    program.releases = True

    with program.holds(2 * MIB, ANN):
        assert held() == before
        assert program.sends(2 * MIB, ANN).status_code == 200


def test_a_request_that_fails_gives_its_bytes_back() -> None:
    """Its error is that of any request."""
    program = Program()
    program.fails = True

    assert [program.sends(2 * MIB, ANN).status_code for _ in range(3)] == [500] * 3


def test_chinese_readers_are_told_in_chinese() -> None:
    """The sentence is translated like all of them."""
    english = "Too many large bodies are being received. Send it again later."

    assert Texts("zh").translated(english) not in ("", english)


@contextmanager
def slot_of(
    slots: UploadSlots, principal: str, address: str = "192.0.2.1", size: int = LARGE_BYTES + 1
) -> Iterator[None]:
    """Hold a slot in the request of a caller."""
    with (
        Flask(__name__).test_request_context(environ_overrides={"REMOTE_ADDR": address}),
        slots.held(principal, size=size),
    ):
        yield


def test_a_callers_uploads_leave_slots_for_others() -> None:
    """Its second one is refused after a wait, with the time after which to send it again; each is counted."""
    slots, before = UploadSlots("files_busy", "Too many.", most=2, most_per_caller=1, seconds=0.1), refused("slots")

    with slot_of(slots, "key:a"):
        with pytest.raises(RestError) as busy, slot_of(slots, "key:a"):
            pass
        with slot_of(slots, "key:b"), pytest.raises(RestError), slot_of(slots, "key:c"):
            pass
        with slot_of(slots, "key:a", size=LARGE_BYTES):
            pass
    with slot_of(slots, "key:a"):
        pass

    assert (busy.value.status, busy.value.data, busy.value.headers) == (
        503,
        {"reason": "files_busy"},
        {"Retry-After": "10"},
    )
    assert refused("slots") == before + 2


def test_an_anonymous_caller_is_its_address_at_the_slots_too() -> None:
    """Two addresses are two callers; the name of a visitor is none."""
    slots = UploadSlots("files_busy", "Too many.", most=2, most_per_caller=1, seconds=0.1)

    with slot_of(slots, ANONYMOUS), slot_of(slots, ANONYMOUS, "192.0.2.2"):
        pass
    with slot_of(slots, ANONYMOUS), pytest.raises(RestError), slot_of(slots, f"{ANONYMOUS}/visitor-a"):
        pass


def test_a_waiting_upload_takes_the_slot_that_becomes_free() -> None:
    """Of its own caller as well."""
    slots = UploadSlots("files_busy", "Too many.", most=2, most_per_caller=1, seconds=60.0)
    began, done = threading.Event(), threading.Event()

    def uploads() -> None:
        began.set()
        with slot_of(slots, "key:a"):
            done.set()

    with slot_of(slots, "key:a"):
        thread = threading.Thread(target=uploads)
        thread.start()
        assert began.wait(60.0)
        assert not done.is_set()
    thread.join(60.0)

    assert done.is_set()
