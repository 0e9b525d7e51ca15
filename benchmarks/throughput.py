"""How fast operations are taken in and get through, and the CPU time each of them takes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from processes import APART, BATCHED, PLAIN, SHARED, WORKER, Bench, Contender, Fleet, Layout


@dataclass(frozen=True)
class Run:
    """One contender, served by one layout, taking `count` operations in one way."""

    name: str
    contender: Contender
    way: str
    count: int
    layout: Layout = SHARED
    batch_size: int = 500


def measure(bench: Bench) -> dict[str, Any]:
    return {"produced": _produced(bench), "end to end": _end_to_end(bench)}


def _produced(bench: Bench) -> dict[str, float]:
    """Operations per second that a producer enqueues while nothing consumes: medians of rounds."""
    runs = [
        Run("plain", PLAIN, "delay", 4_000),
        Run("enqueue", BATCHED, "enqueue", 4_000),
        Run("one per message", BATCHED, "one_per_message", 50_000),
        Run("packed", BATCHED, "packed", 300_000),
    ]
    if bench.batches:
        runs.append(Run("celery-batches", bench.batches, "delay", 4_000))
    rates: dict[str, list[float]] = {run.name: [] for run in runs}
    for _ in range(bench.rounds):
        for run in runs:  # in turn, so that a slow moment of the machine hits all
            with Fleet(bench.server, run.contender, None) as fleet:
                production = fleet.produce(run.way, count=int(run.count * bench.scale))
                rates[run.name].append(production.rate)
    return {name: median(values) for name, values in rates.items()}


def _end_to_end(bench: Bench) -> dict[str, dict[str, float]]:
    """By run, on a running fleet that has handled some operations before, medians of:

    - rate: operations per second from the first enqueue to the start of the last handler;
    - batch: operations per call of a handler;
    - cpu: CPU seconds per operation, of everything, and by process.
    """
    runs = [Run("plain", PLAIN, "delay", 4_000, WORKER)]
    for size in (500,) if bench.quick else (100, 500):
        if bench.batches:
            runs.append(Run(f"celery-batches, {size}", bench.batches, "delay", 4_000, WORKER, size))
        runs += [
            Run(f"enqueue, {size}", BATCHED, "enqueue", 4_000, batch_size=size),
            Run(f"one per message, {size}", BATCHED, "one_per_message", 60_000, batch_size=size),
            Run(f"packed, {size}", BATCHED, "packed", 800 * size, batch_size=size),
        ]
    runs.append(Run("packed, 500, control apart", BATCHED, "packed", 400_000, APART))
    return {run.name: _medians(bench, run) for run in runs}


def _medians(bench: Bench, run: Run) -> dict[str, float]:
    count = int(run.count * bench.scale)
    with Fleet(bench.server, run.contender, run.layout, batch_size=run.batch_size) as fleet:
        _passage(fleet, run.way, count // 10)
        passages = [_passage(fleet, run.way, count) for _ in range(bench.rounds)]
    return {figure: median(passage[figure] for passage in passages) for figure in passages[0]}


def _passage(fleet: Fleet, way: str, count: int) -> dict[str, float]:
    before = fleet.starts()
    handled = sum(start.operations for start in before)
    cpu = fleet.cpu()
    production = fleet.produce(way, count=count)
    awaited = handled + production.opened + production.sent
    fleet.eventually(lambda: fleet.handled() >= awaited)
    used = {name: (seconds - cpu[name]) / count for name, seconds in fleet.cpu().items()}
    used["producer"] = production.cpu / count
    starts = fleet.starts()
    return {
        "rate": count / (starts[-1].at - production.started),
        "batch": count / (len(starts) - len(before)),
        "cpu": sum(used.values()),
        **{f"cpu of {name}": seconds for name, seconds in used.items()},
    }
