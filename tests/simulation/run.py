"""Run schedules and print what they were: `make simulate`, or with ``SEED=`` one of them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from celery_batcher.embedded import EmbeddedServer

from . import world
from .faults import FAULTS
from .schedule import BrokenError, Result, Schedule

PORTION = 25
REPLAYED = 400
SHOWN = 20


@dataclass
class Summary:
    """What many schedules were, together."""

    schedules: int = 0
    steps: int = 0
    operations: int = 0
    done: int = 0
    dead: int = 0
    repeated: int = 0
    kills: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    broken: dict[int, str] = field(default_factory=dict)

    def add(self, result: Result | BrokenError) -> None:
        """Count one schedule."""
        self.schedules += 1
        if isinstance(result, BrokenError):
            self.broken[result.seed] = str(result)
            return
        for name in ("steps", "operations", "done", "dead", "repeated", "kills", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(result, name))
        self.faults += result.faults
        self.happened += result.happened

    def merge(self, other: Summary) -> None:
        """Count what another has counted."""
        for name in ("schedules", "steps", "operations", "done", "dead", "repeated", "kills"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds += other.seconds
        self.faults += other.faults
        self.happened += other.happened
        self.broken |= other.broken

    def table(self) -> str:
        """Rows of Markdown."""
        rows = [
            ("schedules", self.schedules),
            ("broken invariants", len(self.broken)),
            ("operations enqueued or tried to", self.operations),
            ("of them done", self.done),
            ("of them dead letters", self.dead),
            ("handled more than once", self.repeated),
            *sorted(self.happened.items()),
            ("lost", sum("broken: lost" in text for text in self.broken.values())),
            ("steps", self.steps),
            ("hours that passed in them", round(self.seconds / 3600, 1)),
            ("processes killed", self.kills),
            *((f"calls: {FAULTS.get(name, name)}", n) for name, n in sorted(self.faults.items())),
        ]
        return "\n".join(
            ["| what | how many |", "|---|---:|"] + [f"| {a} | {b:,} |" for a, b in rows]
        )


@contextmanager
def connected(store: str) -> Iterator[Any]:
    """A client of a server of its own for the Redis store; None for memory."""
    if store == "memory":
        yield None
        return
    with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        yield client


def simulate(seeds: Iterable[int], client: Any = None) -> Summary:
    """Run the schedules of these seeds."""
    summary = Summary()
    for seed in seeds:
        try:
            summary.add(Schedule(seed, client).run())
        except BrokenError as broken:
            summary.add(broken)
    return summary


def _portion(task: tuple[str, range]) -> Summary:
    store, seeds = task
    with connected(store) as client:
        return simulate(seeds, client)


def _many(store: str, first: int, schedules: int) -> int:
    started = time.monotonic()
    total = Summary()
    portion = PORTION if store == "memory" else 10 * PORTION
    last = first + schedules
    tasks = [(store, range(at, min(at + portion, last))) for at in range(first, last, portion)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for summary in pool.imap_unordered(_portion, tasks):
            total.merge(summary)
            if sys.stderr.isatty():
                print(f"\r{total.schedules} of {schedules}", end="", file=sys.stderr)
    for seed, text in sorted(total.broken.items())[:3]:
        print(f"\nseed {seed}\n{text}")
    print(f"\n{total.table()}\n")
    print(f"{time.monotonic() - started:.0f} s, store {store}")
    if total.broken:
        seeds = sorted(total.broken)
        more = "" if len(seeds) <= SHOWN else f", and {len(seeds) - SHOWN} more"
        print(f"broken by the seeds {', '.join(map(str, seeds[:SHOWN]))}{more}")
    return 1 if total.broken else 0


def _one(store: str, seed: int) -> int:
    """Replay a schedule, with more of its steps."""
    world.TRACED = REPLAYED
    with connected(store) as client:
        schedule = Schedule(seed, client)
        try:
            result = schedule.run()
        except BrokenError as broken:
            print(broken)
            return 1
    print("\n".join(schedule.world.told()))
    print(f"{schedule.plan}\n{result}")
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("memory", "redis"), default="memory")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one")
    given = parser.parse_args()
    if given.seed is not None:
        return _one(given.store, given.seed)
    return _many(given.store, given.first, given.schedules)


if __name__ == "__main__":
    sys.exit(main())
