"""What a flush and an enqueue cost with more waiting operations, watchers and keys.

Backlogs that are compared run at the same time, each on a server of its own: what else the machine
does then slows both. With libc's malloc (the servers in wheels; distributions build with jemalloc)
commands take more CPU when much is stored, whatever they do: see `--server` of `run.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from processes import APART, BATCHED, Bench, Fleet, Server

CAPACITY = 500
"""Released per second."""
RATE = 550
"""Enqueued per second: 1,000 waiting would soon be gone, and enough must always wait."""
BATCH_SIZE = 10
"""So small that batches are full: else backlogs would differ in the number of batches."""


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
        seconds = 10.0 * bench.scale
        with ThreadPoolExecutor() as pool:
            flushes = list(pool.map(lambda fleet: _flush(fleet, seconds), fleets))
        for fleet in fleets:
            fleet.stop()
        enqueues = _enqueues(fleets, calls=500, rounds=3 * bench.rounds)
    return {
        backlog.name: {**flush, "enqueue": enqueue}
        for backlog, flush, enqueue in zip(backlogs, flushes, enqueues, strict=True)
    }


@contextmanager
def _flushing(backlog: Backlog, binary: Path) -> Iterator[Fleet]:
    """A fleet whose backlog is in the index."""
    settings = {"watchers": backlog.watchers, "keys": backlog.keys}
    with (
        Server.running(binary) as server,
        Fleet(server, BATCHED, None, capacity=CAPACITY, batch_size=BATCH_SIZE, **settings) as fleet,
    ):
        fleet.produce("packed" if backlog.watchers == 1 else "in_tens", count=backlog.waiting)
        fleet.start(APART)
        fleet.run("apps.intake")
        time.sleep(1.0)
        yield fleet


def _flush(fleet: Fleet, seconds: float) -> dict[str, float]:
    """CPU seconds of the flusher and of the server per released operation."""
    before, cpu = fleet.starts(), fleet.cpu()
    fleet.produce("in_tens", rate=RATE, seconds=seconds, chunk=RATE // 10)
    used = {name: seconds - cpu[name] for name, seconds in fleet.cpu().items()}
    released = fleet.starts()[len(before) :]
    operations = sum(start.operations for start in released)
    return {
        "flusher": used["control"] / operations,
        "server": used["server"] / operations,
        "batch": operations / len(released),
    }


def _enqueues(fleets: list[Fleet], calls: int, rounds: int) -> list[float]:
    """Seconds that a call of `enqueue` takes, by fleet, while nothing else runs: medians."""
    medians = [
        [fleet.produce("enqueue", count=calls, timed=1).median_call or 0.0 for fleet in fleets]
        for _ in range(rounds)
    ]
    return [median(of_fleet) for of_fleet in zip(*medians, strict=True)]
