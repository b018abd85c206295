"""An owner that was stopped for longer than its lease continues, and its writes are refused after the takeover."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from demo.mocks.dify.error_replies import ERROR_REPLIES
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.chaos_talk import LEASE, begin, report
from tests.scenarios.stage.people import at_once
from tests.support.replicas import AES_KEY, TOKEN, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: DIFY_TIMEOUT in seconds, after which a silent run is given up.
DIFY_TIMEOUT = "8"


@contextmanager
def dify_by_fate() -> Iterator[dict[str, MockDify]]:
    """Run a Dify for each fate of the paused owner's run; the keys are the bots' names."""
    with (
        MockDify(delay=0.5, after_disconnect="runs on") as lasts,
        MockDify(delay=0.5, after_disconnect="dies") as dies,
        MockDify(delay=0.5, after_disconnect="runs on", outage=ERROR_REPLIES["403-forbidden"]) as hides,
    ):
        yield {"lasts": lasts, "dies": dies, "hides": hides}


def bots(by_name: Mapping[str, MockDify]) -> dict[str, str]:
    own = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    ways = {name: {**own, **dify_settings(dify.base_url, DIFY_TIMEOUT=DIFY_TIMEOUT)} for name, dify in by_name.items()}
    return {"WECHAT_BOTS": json.dumps(ways), "STREAM_LEASE": f"{LEASE:g}"}


def test_an_owner_that_comes_back_is_refused(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The old owner writes nothing more, logs which owner replaced it, and does not stop the provider's run.

    The new owner waits for a run that continues. It asks again after a run that ends with the old owner's connection,
    and at once if Dify refuses access to the run: then both owners have an answer to write at the same moment.
    """
    with dify_by_fate() as by_name:
        with fleet(2, settings_for(redis_url, **bots(by_name)), tmp_path) as replicas:
            talks = {name: begin(replicas, dify, name, f"user-{name}", "请假流程") for name, dify in by_name.items()}
            at_once(talk.wait_text for talk in talks.values())
            ids = {talk.bubble.stream_id for talk in talks.values()}
            owner, other = replicas.members
            with replicas.paused(owner):
                at_once(partial(talk.poll_until, lambda: replicas.takeovers().keys() >= ids) for talk in talks.values())
            at_once(talk.wait_end for talk in talks.values())
            records = {name: talk.record(redis_server, replicas) for name, talk in talks.items()}
            report({f"its run {name}": record for name, record in records.items()}, record_property)
            assert {name: (r.right, r.calls, r.replaced, list(r.takeovers)) for name, r in records.items()} == {
                "lasts": (True, 1, False, ["takeover"]),
                "dies": (True, 2, False, ["takeover"]),
                "hides": (True, 2, False, ["takeover"]),
            }
            wait_until(lambda: len(replicas.logged("owner refused")) >= len(talks))
            taken, refused = replicas.logged("stream taken over"), replicas.logged("owner refused")

        names = {line["stream_id"]: (line["former_owner"], line["owner"]) for line in taken}
        assert {line["stream_id"]: (line["owner"], line["present_owner"]) for line in refused} == names
        assert ({line["by"] for line in taken}, {line["by"] for line in refused}) == ({1}, {0})
        assert by_name["lasts"].stops == [], "its answer was still wanted"
        assert '"level": "ERROR"' not in owner.log + other.log
