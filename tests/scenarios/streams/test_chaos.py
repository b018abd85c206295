"""Every replica is killed while sixty users are being answered, and a little of everything that `make chaos` does."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import Bubble
from tests.scenarios.chaos.__main__ import arguments, run
from tests.scenarios.chaos.channels import CHANNELS
from tests.scenarios.chaos.report import happened
from tests.scenarios.evening import __main__ as evening
from tests.scenarios.stage.chaos_fleet import fleet
from tests.scenarios.stage.chaos_record import records_of, table
from tests.scenarios.stage.killer import Killer
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, require_binary, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

PEOPLE = 60
TIMEOUT = 90.0


def test_sixty_conversations_outlive_every_replica(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every answer arrives whole: none is interrupted, goes backwards or is asked for twice."""
    with MockDify(delay=0.1, limit=120.0, after_disconnect="runs on") as dify, ThreadPoolExecutor(PEOPLE) as pool:
        dify.holds_at = 8
        env = settings_for(redis_url, **dify_settings(dify.base_url), STREAM_LEASE="3")
        with fleet(3, env, tmp_path) as replicas:

            def asks(number: int) -> tuple[str, Bubble]:
                person = replicas.person(f"user{number}", at=number)
                question = f"{number} 号的问题 [[{('chatflow', 'chat')[number % 2]}]]"
                bubble = person.says(question)
                person.sees_finish(bubble, TIMEOUT, every=0.7)
                return question, bubble

            asking = [pool.submit(asks, number) for number in range(PEOPLE)]
            with Killer(replicas, every=3.5, most=3) as killer:
                wait_until(lambda: killer.kills == 3, 60.0)
                dify.holds_at = None
                asked = dict(each.result(2 * TIMEOUT) for each in asking)
            records = records_of(asked, replicas, redis_server, dify)

    figures = f"{table('answers', {'all': records})}\n\n{happened(replicas)}"
    print("", figures, sep="\n")
    record_property("chaos", figures)
    assert killer.kills == 3
    assert len(records) == PEOPLE
    assert [f"{record.question}: {record}" for record in records if not record.right] == []
    assert {(record.calls, record.interrupted, record.backwards) for record in records} == {(1, False, 0)}
    assert sum(len(record.takeovers) for record in records) >= PEOPLE / 3, "each kill met somebody"


def test_a_little_chaos_breaks_no_invariant(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """One person or program on every channel, while Dify's connections are cut and Redis is stopped and killed."""
    faults = ("dify-cut", "redis-pause", "redis-restart")
    short = ["--seconds", "7", "--every", "1", "--longest", "2", "--people", "0.1", "--replicas", "2"]
    report = run(arguments([*short, "--faults", *faults]), tmp_path)

    record_property("chaos", str(report))
    assert (report.breaches, report.broken) == ([], [])
    assert set(report.seen) == set(CHANNELS)
    assert set(report.faults) <= set(faults)


@pytest.mark.parametrize("of_command_line", [arguments, evening.arguments], ids=["chaos", "evening"])
def test_the_folder_for_the_logs_is_made(of_command_line: Callable[[list[str]], Namespace], tmp_path: Path) -> None:
    """A run of five minutes must not fail because of it."""
    for server in ("redis-server", "mariadbd"):
        require_binary(server)

    options = of_command_line(["--logs", str(tmp_path / "runs" / "first")])

    assert options.logs.is_dir()
