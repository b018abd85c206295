"""Measure what a replica and Redis need for many answers at once, with real gunicorn and redis-server and a slow Dify.

    python -m tests.scenarios.footprint --streams 500 --deltas 200 --every 0.5
    python -m tests.scenarios.footprint --streams 40 --deltas 341 --every 0.04 --to-the-end

Every answer has `--deltas` deltas of `--text`, `--every` seconds apart; every bubble is polled once a second, as WeCom
does. Everything runs on this machine, and the load competes with the replica for its cores: CPU is therefore given as
the processes' own CPU seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from demo.mocks.dify import player as mock_dify_player
from demo.mocks.dify.scripts import DifyScript
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.mocks.dify.wire import Gap, Run, Step
from demo.wecom.simulator import SimulatedBot, WeComUser
from services.streams.store import stream_keys
from tests.support.replicas import AES_KEY, TOKEN, Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, free_port, wait_until

TICKS = os.sysconf("SC_CLK_TCK")
MB = 1 << 20


def serve_dify(port: int, text: str, deltas: int, every: float) -> None:
    """Run a mock Dify that answers every question with `deltas` deltas; it blocks until the process is killed."""

    def play(run: Run) -> Iterator[Step]:
        yield run.workflow_started()
        yield Gap(1.0)
        for _ in range(deltas):
            yield run.piece(text)
            yield Gap(every)
        yield run.message_end()
        yield run.workflow_finished(answer=text * deltas)

    # These runs are never stopped: checking for it every ten seconds leaves the CPU to the gateway.
    mock_dify_player._LOOK = 10.0
    threading.stack_size(256 * 1024)
    SCRIPTS["load"] = DifyScript(play, "load", text=lambda question: "")
    with MockDify("127.0.0.1", port, default="load", limit=3600.0), suppress(KeyboardInterrupt):
        threading.Event().wait()


class Bubbles:
    """The bubbles of many users; threads poll each once a second, with one encrypted poll that is sent repeatedly."""

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._polls: list[tuple[str, bytes]] = []
        self._threads = threads
        self.stream_ids: list[str] = []
        self.seconds: list[float] = []
        self.failed = 0
        self._stop = threading.Event()
        for number in range(threads):
            threading.Thread(target=self._poll, args=(number,), daemon=True).start()

    def ask(self, userid: str) -> None:
        with WeComUser(f"{self._url}/wechat/callback", SimulatedBot(TOKEN, AES_KEY), userid, timeout=30.0) as user:
            bubble = user.says("请说明年假怎么申请")
            poll = user.seals({"msgtype": "stream", "stream": {"id": bubble.stream_id}})
        self.stream_ids.append(bubble.stream_id)
        self._polls.append((f"/wechat/callback?{urlencode(poll.params)}", poll.body))

    def stop(self) -> None:
        self._stop.set()

    def _poll(self, number: int) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        while not self._stop.wait(0.001):
            began = time.monotonic()
            for path, body in self._polls[number :: self._threads]:
                self._once(connection, path, body)
            self._stop.wait(max(0.0, 1.0 - (time.monotonic() - began)))

    def _once(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
        began = time.monotonic()
        try:
            connection.request("POST", path, body)
            reply = connection.getresponse()
            self.failed += not (reply.read() and reply.status == 200)
        except (OSError, http.client.HTTPException):
            connection.close()
            self.failed += 1
        self.seconds.append(time.monotonic() - began)


def cpu_seconds(pids: Sequence[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(some[11]) + int(some[12]) for some in fields) / TICKS


def megabytes(pids: Sequence[int], kind: str) -> int:
    """Return the processes' memory in MiB: Rss, or Pss, which counts shared pages once."""
    lines = [line.split() for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return round(sum(int(line[1]) for line in lines if line[0] == f"{kind}:") / 1024)


class Measurement:
    """One replica of `workers` processes under one load."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self._options = options
        port = free_port()
        load = (port, options.text, options.deltas, options.every)
        dify = multiprocessing.get_context("spawn").Process(target=serve_dify, args=load, daemon=True)
        dify.start()
        stack.callback(dify.kill)
        self._redis = stack.enter_context(RedisServer(aof=True, options=("--appendfsync", "everysec")))
        settings = settings_for(self._redis.url(), **dify_settings(f"http://127.0.0.1:{port}"))
        settings |= {"REDIS_POOL_SIZE": "50", "HTTP_POOL_SIZE": "2000", "WORKERS": str(options.workers)}
        settings |= {"DIFY_MAX_CONCURRENT": "2000", "STREAM_MAX_PER_REPLICA": "2000"}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._replica = Replica(settings, folder, forked=False)
        stack.callback(self._replica.kill)
        self._replica.wait_ready()
        self._client = stack.enter_context(self._redis.client())
        self._bubbles = Bubbles(self._replica.url, min(48, max(8, options.streams // 10)))
        stack.callback(self._bubbles.stop)

    def run(self) -> dict[str, Any]:
        workers, all_of_it = self._replica.workers, [self._replica.process.pid, *self._replica.workers]
        time.sleep(2.0)
        idle = {"idle_rss": megabytes(workers, "Rss"), "idle_pss_all": megabytes(all_of_it, "Pss")}
        empty = self._client.info("memory")["used_memory"]
        began = time.monotonic()
        for number in range(self._options.streams):
            self._bubbles.ask(f"user{number:05}")
            time.sleep(max(0.0, began + (number + 1) / self._options.ramp - time.monotonic()))
        time.sleep(4.0)
        figures = idle | self._window(workers, all_of_it)
        if self._options.to_the_end:
            wait_until(lambda: not self._running(), timeout=3600.0)
            time.sleep(2.0)
            figures |= self._stored(empty) | {"after_rss": megabytes(workers, "Rss")}
        return figures

    def _window(self, workers: Sequence[int], all_of_it: Sequence[int]) -> dict[str, Any]:
        """Return the figures of `--window` seconds while all answers are running."""
        self._bubbles.seconds.clear()
        counts, began = self._stored_counts(), time.monotonic()
        used = [cpu_seconds(workers), cpu_seconds([self._redis.pid])]
        peak = 0
        while time.monotonic() - began < self._options.window:
            time.sleep(1.0)
            peak = max(peak, megabytes(workers, "Rss"))
        seconds, polls = time.monotonic() - began, sorted(self._bubbles.seconds)
        used = [cpu_seconds(workers) - used[0], cpu_seconds([self._redis.pid]) - used[1]]
        rates = [(now - before) / seconds for now, before in zip(self._stored_counts(), counts, strict=True)]
        return {
            "running": self._running(),
            "cpu": round(used[0] / seconds, 2),
            "redis_cpu": round(used[1] / seconds, 2),
            "rss": peak,
            "pss_all": megabytes(all_of_it, "Pss"),
            "deltas_per_s": round(rates[1] / len(self._options.text.encode())),
            "chunks_per_s": round(rates[0]),
            "polls_per_s": round(len(polls) / seconds),
            "poll_ms_median": round(1000 * polls[len(polls) // 2], 1),
            "poll_ms_p99": round(1000 * polls[len(polls) * 99 // 100], 1),
            "polls_failed": self._bubbles.failed,
        }

    def _stored(self, empty: int) -> dict[str, Any]:
        """Return the size of an answer in Redis: of its own keys, and its share of all memory and of the AOF."""
        streams, keys = self._options.streams, stream_keys(self._bubbles.stream_ids[0])
        sizes = {name: self._client.memory_usage(key, samples=0) for name, key in keys._asdict().items()}
        files = sum(path.stat().st_size for path in self._redis.directory.rglob("*.aof"))
        used = self._client.info("memory")["used_memory"] - empty
        chunks, text = self._stored_counts()
        return {
            "chunks": round(chunks / streams),
            "text_bytes": round(text / streams),
            "redis_bytes": round(used / streams),
            "own_keys": sizes,
            "aof_bytes": round(files / streams),
        }

    def _stored_counts(self) -> tuple[int, int]:
        """Return the number of chunks and the bytes of text of all streams."""
        keys = [stream_keys(stream_id) for stream_id in self._bubbles.stream_ids]
        with self._client.pipeline(transaction=False) as pipeline:
            for one in keys:
                pipeline.llen(one.messages)
                pipeline.strlen(one.text)
            counts = pipeline.execute()
        return sum(counts[::2]), sum(counts[1::2])

    def _running(self) -> int:
        return sum(self._client.zcard(f"dify_streams:running:{number}") for number in range(16))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.footprint", description="What a replica needs")
    parser.add_argument("--streams", type=int, default=200, help="answers at once")
    parser.add_argument("--deltas", type=int, default=120, help="pieces of an answer")
    parser.add_argument("--text", default="答案", help="one piece")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two pieces")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--window", type=float, default=15.0, help="seconds that are measured")
    parser.add_argument("--ramp", type=float, default=50.0, help="questions a second until all are asked")
    parser.add_argument("--to-the-end", action="store_true", help="wait for the answers' ends, and weigh them in Redis")
    with ExitStack() as stack:
        print(json.dumps(Measurement(parser.parse_args(), stack).run()), flush=True)


if __name__ == "__main__":
    main()
