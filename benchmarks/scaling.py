"""What a flush and an enqueue cost with more waiting operations, watchers and keys.

A flush is timed by hand (`apps.flushes`): the same work in every round, so that only the backlog
differs. Backlogs that are compared run at the same time, each on a server of its own: what else the
machine does then slows both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from processes import BATCHED, Bench, Fleet, Server

BATCH_SIZE, BATCHES = 10, 50
"""Operations of a batch and batches of a flush."""


@dataclass(frozen=True)
class Backlog:
    name: str
    waiting: int
    watchers: int = 1
    keys: int = 0


def measure(bench: Bench) -> dict[str, Any]:
    many = int(1_000_000 * bench.scale)
    waiting = [Backlog("1,000 waiting", 1_000), Backlog(f"{many:,} waiting", many)]
    watchers_and_keys = [
        Backlog("1 watcher", 20_000),
        Backlog("1,000 watchers", 20_000, watchers=1_000),
        Backlog("1,000 keys", 20_000, keys=1_000),
    ]
    return {
        "waiting": _costs(bench, waiting),
        "watchers and keys": _costs(bench, watchers_and_keys),
    }


def _costs(bench: Bench, backlogs: list[Backlog]) -> dict[str, dict[str, float]]:
    with ExitStack() as stack:
        fleets = [
            stack.enter_context(_flushing(backlog, bench.server.binary)) for backlog in backlogs
        ]
        with ThreadPoolExecutor() as pool:
            flushes = list(pool.map(_flush, fleets))
        enqueues = _enqueues(fleets, calls=500, rounds=3 * bench.rounds)
    return {
        backlog.name: {**flush, "enqueue": enqueue}
        for backlog, flush, enqueue in zip(backlogs, flushes, enqueues, strict=True)
    }


@contextmanager
def _flushing(backlog: Backlog, binary: Path) -> Iterator[Fleet]:
    """A fleet whose backlog is in the index."""
    settings = {
        "watchers": backlog.watchers,
        "keys": backlog.keys,
        "batch_size": BATCH_SIZE,
        "max_concurrent_batches": BATCHES,
    }
    with (
        Server.running(binary) as server,
        Fleet(server, BATCHED, None, **settings) as fleet,
    ):
        fleet.produce("packed" if backlog.watchers == 1 else "in_tens", count=backlog.waiting)
        fleet.run("apps.intake")
        time.sleep(1.0)
        yield fleet


def _flush(fleet: Fleet) -> dict[str, float]:
    """CPU seconds of the flusher and of the server per released operation."""
    costs: dict[str, float] = json.loads(fleet.run("apps.flushes"))
    return costs


def _enqueues(fleets: list[Fleet], calls: int, rounds: int) -> list[float]:
    """Seconds that a call of `enqueue` takes, by fleet, while nothing else runs: medians."""
    medians = [
        [fleet.produce("enqueue", count=calls, timed=1).median_call or 0.0 for fleet in fleets]
        for _ in range(rounds)
    ]
    return [median(of_fleet) for of_fleet in zip(*medians, strict=True)]
