"""`python -m bench.sockets`: kill a replica (-9) in the middle of many answers, which continue at another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import median

from bench.load.socket_clients import Client, Crowd
from bench.parts.sockets import ANSWERING, IDLE, WITHIN, answer_errors, ask, settings
from bench.stage.servers import allow_files
from bench.stage.stage import Stage


def main(argv: Sequence[str] | None = None) -> int:
    """Print the result; return 0 if every answer was complete and asked for once."""
    options = parse(argv)
    sockets = options.idle + options.answering
    allow_files(4 * sockets + 2000)
    with Stage(own_core=False) as stage:
        dify = stage.dify(options.pieces, options.every)
        store = stage.redis()
        first, second = (stage.replica(store, dify, **settings(sockets)) for _ in range(2))
        crowd = stage.enter_context(Crowd(first.port))
        clients = [Client(f"asking-{number}") for number in range(options.answering)]
        for client in [*(Client(f"idle-{number}") for number in range(options.idle)), *clients]:
            crowd.join(client)
        ask(crowd, clients, "killed", WITHIN)
        half = options.pieces * options.every / 2
        crowd.listen_for(half)
        for client in clients:
            client.pause = 0.0
        running = sum(not client.status for client in clients)
        crowd.port = second.port
        first.kill()
        errors = answer_errors(crowd, clients, dify, 2 * half)
    pauses = [client.pause for client in clients]
    print(f"killed (-9): {running} answers under way, {half:g} s after the last was asked for")
    print(f"continued elsewhere: {len(clients) - len(errors)} of {len(clients)}, byte for byte, each asked for once")
    print(f"longest pause in an answer: median {median(pauses):.1f} s, worst {max(pauses):.1f} s")
    print(*errors, sep="\n", end="")
    return 1 if errors else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sockets", description="Kill a replica with many sockets.")
    parser.add_argument("--idle", type=int, default=IDLE, help="sockets that only listen")
    parser.add_argument("--answering", type=int, default=ANSWERING, help="sockets that ask")
    parser.add_argument("--pieces", type=int, default=120, help="pieces of an answer")
    parser.add_argument("--every", type=float, default=0.25, help="seconds between two of them")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
