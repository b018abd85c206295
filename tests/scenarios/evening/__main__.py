"""Let a company ask for an evening, and compare the books of everybody: `make evening`.

People of twelve departments ask three replicas, in WeCom, on the chat page, by `/v1`, REST and in batches. One replica
after the other is killed, and SQL is away in between: first it does not answer, then it refuses connections. When all
has settled, what people saw, the question log, the sums of usage, the counters of quotas and the provider's own count
must agree to the question. Exits with status 1 if they do not, or if an answer was lost or doubled.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from demo.mocks.dify.runs import AfterDisconnect, Runs
from services.feedback import rating_store
from services.usage import ended_store
from tests.scenarios.chaos.__main__ import Crowd, made_folder, say
from tests.scenarios.chaos.report import Report
from tests.scenarios.chaos.world import World, world
from tests.scenarios.evening.books import Books, streams_of
from tests.scenarios.evening.company import company, cost_of, give_tokens, settings
from tests.scenarios.stage.killer import Killer

#: Most seconds until every stream has ended and is counted: a killed replica's claims are due again after 45 s.
SETTLED = 150.0


def take_sql_away(here: World, options: argparse.Namespace) -> None:
    """Let people ask for a while, take SQL away in the middle, and wait until they stop asking."""
    around = (options.seconds - options.outage) / 2
    time.sleep(around)
    here.maria.pause()
    say(f"{around:5.0f} s  SQL does not answer")
    time.sleep(options.outage / 2)
    here.maria.stop()
    say(f"{around + options.outage / 2:5.0f} s  SQL refuses connections")
    time.sleep(options.outage / 2)
    here.maria.start()
    say(f"{around + options.outage:5.0f} s  SQL is back")
    time.sleep(around)


def settle(here: World) -> bool:
    """Wait until every stream has ended, and no stream or rating waits to be counted; return whether that came true."""
    end = time.monotonic() + SETTLED
    while time.monotonic() < end:
        with here.redis.client() as client:
            waiting = client.zcard(ended_store.QUEUE) + client.zcard(rating_store.QUEUE)
        if not waiting and "processing" not in streams_of(here, "status").values():
            return True
        time.sleep(1.0)
    return False


def run(options: argparse.Namespace, folder: Path) -> Books:
    """Run the evening, and return its books."""
    report, dice = Report(), random.Random(options.seed)
    changes = settings(folder, options.log, options.people)
    fate = options.after_disconnect
    with world(3, folder, dice, fate=fate, token_seconds=None, settings=changes) as here:
        here.dify.runs, here.dify.costs = Runs(max_age=86_400, max_runs=10**6), cost_of
        channels, programs = company(options.people)
        give_tokens(here, programs)
        crowd = Crowd(here, report, channels, 1.0, pause=options.pause)
        crowd.begin(options.seconds)
        with Killer(here.replicas, every=options.every) as killer:
            take_sql_away(here, options)
        crowd.wait_end()
        settled = settle(here)
        report.count(here.dify, here.replicas, here.redis)
        books = Books.of(here, report, killer.kills, options.log == "full")
        if not settled:
            books.faults.append(f"not settled within {SETTLED:g} s")
    return books


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, those of the command line by default."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.evening", description=about)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=300.0, help="for how long people ask")
    parser.add_argument("--every", type=float, default=20.0, metavar="SECONDS", help="between two kills")
    parser.add_argument("--outage", type=float, default=120.0, metavar="SECONDS", help="of SQL, in the middle")
    parser.add_argument(
        "--pause", type=float, default=40.0, metavar="SECONDS", help="between two questions, in the mean"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", choices=("full", "off"), default="full", help="QUESTION_LOG")
    fates = get_args(AfterDisconnect)
    parser.add_argument("--after-disconnect", choices=fates, default="runs on", help="a run whose owner was killed")
    parser.add_argument("--logs", type=made_folder, metavar="FOLDER", help="keep the replicas' logs there")
    return parser.parse_args(given)


def main() -> int:
    """Return 0 if the books agree."""
    options = arguments()
    say(f"{options.people} people, {options.seconds:g} s, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="laibao-evening-") as folder:
        books = run(options, options.logs or Path(folder))
    say(f"\n{books}")
    return 1 if books.faults else 0


if __name__ == "__main__":
    sys.exit(main())
