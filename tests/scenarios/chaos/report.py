"""Verdicts over what was seen, and the tables of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from demo.mocks.dify.server import MockDify
from tests.scenarios.chaos.channels import Seen
from tests.scenarios.stage.chaos_fleet import Fleet
from tests.support.servers.processes import RedisServer

#: Sentences instead of an answer, and what is sent at most once: the person asks again.
REFUSALS = (
    *("store_unavailable", "service_unavailable", "draining", "auth_unavailable"),
    *("replica_full", "turns_full", "user_full", "quota_used"),
    *("provider_unreachable", "dropped", "unheard", "push unknown", "late message lost"),
)
#: What is a breach of an invariant.
BREACHES = ("lost", "doubled", "cut off", "no end", "backwards")
#: Calls of the provider for one question, at most: one more where owner and answer were both lost.
MOST_CALLS = 2
#: Errors that are printed.
MOST_ERRORS = 40
COLUMNS = (
    *("asked", "whole", "refused", *BREACHES, "calls per question", "at most"),
    *("late answers", "longest wait: median", "at most"),
)
#: Log messages about owners, with the field that has the kind.
EVENTS = {
    "stream taken over": "kind",
    "answer recovered": "outcome",
    "question asked again": "cause",
    "stream handed over": "",
    "owner refused": "",
}


def verdict(seen: Seen) -> str:
    """Return `whole`, `refused`, or the breach."""
    if not seen.end:
        return "no end"
    if seen.times() > 1 or (seen.end == "completed" and len(seen.text) > len(seen.wanted)):
        return "doubled"
    if seen.end == "completed":
        return "whole" if seen.text == seen.wanted else "lost"
    return "refused" if seen.end in REFUSALS and not seen.text else "cut off"


def shown(seen: Seen) -> str:
    """Return where the text that was seen differs from the answer."""
    if seen.text == seen.wanted:
        return ""
    pairs = zip(seen.text, seen.wanted, strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(seen.text), len(seen.wanted)))
    return f" after {same} characters {seen.text[same : same + 60]!r}, not {seen.wanted[same : same + 60]!r}"


def name_of(question: str) -> str:
    """Return the part of a question by which the provider's calls are counted."""
    return question.partition("：")[0]


@dataclass
class Report:
    """Everything that was seen in a run, and its figures."""

    #: By channel.
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    #: By fault, the seconds until all replicas accepted questions after each.
    faults: dict[str, list[float]] = field(default_factory=dict)
    #: Errors of the driver or of the product that are no verdict on a question.
    broken: list[str] = field(default_factory=list)
    #: Calls of the provider by the question's name.
    calls: Counter[str] = field(default_factory=Counter)
    ratings_lost: int = 0
    redis: str = ""
    logged: str = ""

    def count(self, dify: MockDify, fleet: Fleet, redis: RedisServer) -> None:
        """Take the figures of the servers."""
        self.calls = Counter(name_of(request.body["query"]) for request in list(dify.requests))
        self.redis, self.logged = memory_of(redis), happened(fleet)
        for replica in fleet.everyone:
            self.broken += [line[:500] for line in replica.log.splitlines() if "Traceback" in line]

    @property
    def breaches(self) -> list[str]:
        """Every question with which an invariant was broken."""
        found = [
            f"{channel}: {verdict(seen)} ({seen.end}, backwards {seen.backwards}): {seen.question}{shown(seen)}"
            for channel, each in self.seen.items()
            for seen in each
            if (verdict(seen) in BREACHES or seen.backwards) and not self._is_evicted(channel, seen)
        ]
        often = [
            f"asked {count} times: {name}" for name, count in self.calls.items() if "-" in name and count > MOST_CALLS
        ]
        lost = self.ratings_lost and "memory-lru" not in self.faults
        return [*found, *often, *([f"{self.ratings_lost} ratings did not arrive"] if lost else [])]

    def _is_evicted(self, channel: str, seen: Seen) -> bool:
        """Return whether Redis may have dropped what its end needs, as it may a rating, which nobody else has."""
        return "memory-lru" in self.faults and channel == "long" and not seen.end

    @property
    def right(self) -> bool:
        return not (self.breaches or self.broken)

    def __str__(self) -> str:
        whole = [seen for each in self.seen.values() for seen in each]
        rows = [self._row(channel, each) for channel, each in {**self.seen, "all": whole}.items() if each]
        said = Counter(seen.end for seen in whole if verdict(seen) == "refused")
        parts = [
            table(("channel", *COLUMNS), rows),
            table(("fault", "injected", "accepted again: median", "at most"), map(_fault, self.faults.items())),
            f"refused: {_counted(said)}; ratings that did not arrive: {self.ratings_lost}",
            self.redis,
            self.logged,
            *(["breaches:", *self.breaches, *self.broken[:MOST_ERRORS]] if not self.right else ["nothing was broken"]),
        ]
        return "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:])

    def _row(self, channel: str, each: Sequence[Seen]) -> list[str]:
        verdicts = Counter(map(verdict, each))
        verdicts["backwards"] = sum(seen.backwards for seen in each)
        calls = [self.calls[name_of(seen.question)] for seen in each if verdict(seen) != "refused"]
        stalls = [seen.stall for seen in each]
        return [
            *(channel, str(len(each)), *(str(verdicts[kind]) for kind in ("whole", "refused", *BREACHES))),
            f"{sum(calls) / max(1, len(calls)):.2f}",
            str(max(calls, default=0)),
            str(sum(seen.times() for seen in each if seen.late)),
            f"{median(stalls):.1f} s",
            f"{max(stalls):.1f} s",
        ]


def _fault(item: tuple[str, Sequence[float]]) -> list[str]:
    name, recoveries = item
    return [name, str(len(recoveries)), f"{median(recoveries):.1f} s", f"{max(recoveries):.1f} s"]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "nothing"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
    return "\n".join([first, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *others])


def memory_of(redis: RedisServer) -> str:
    """Return Redis' memory and keys in words."""
    with redis.client() as client:
        info: Mapping[str, object] = client.info("memory")
        evicted = client.info("stats")["evicted_keys"]
        keys = list(client.scan_iter(count=1000))
        endless = [str(key) for key in keys if client.ttl(key) == -1]
    kinds = Counter(re.sub(r"[0-9a-f]{16,}|[\w-]{20,}", "…", key) for key in endless)
    used = f"Redis: {info['used_memory_human']} at the end, {info['used_memory_peak_human']} at most, {len(keys)} keys"
    return f"{used}, {evicted} evicted, without a life: {_counted(kinds)}"


def happened(fleet: Fleet) -> str:
    """Return how often each event of `EVENTS` was logged."""
    lines = [(message, line.get(how, "")) for message, how in EVENTS.items() for line in fleet.logged(message)]
    counted = Counter(f"{message} ({how})" if how else message for message, how in lines)
    return ", ".join(f"{event}: {times}" for event, times in sorted(counted.items())) or "no change of owner"
