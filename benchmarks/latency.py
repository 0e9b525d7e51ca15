"""How long an operation waits from enqueue to the start of its handler, at half load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis import percentile
from processes import BATCHED, PLAIN, SHARED, WORKER, Bench, Contender, Fleet, Layout


@dataclass(frozen=True)
class Load:
    """A steady stream of `rate` operations per second, sent in chunks."""

    name: str
    contender: Contender
    layout: Layout
    way: str
    rate: int
    chunk: int = 1
    batch_size: int = 100
    capacity: int = 0


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds p50 and p99 by load.

    Plain Celery handles less than 1,000 operations/s here, so its half load is 400/s. For
    celery_batcher half load is half of the capacity.
    """
    loads = [
        Load("plain, 400/s", PLAIN, WORKER, "delay", 400),
        Load("enqueue, 400/s", BATCHED, SHARED, "enqueue", 400, capacity=800),
        Load("packed, 5,000/s", BATCHED, SHARED, "packed", 5_000, 50, 500, 10_000),
    ]
    if bench.batches:
        loads.insert(1, Load("celery-batches, 400/s", bench.batches, WORKER, "delay", 400))
    return {"latency": {load.name: _percentiles(bench, load) for load in loads}}


def _percentiles(bench: Bench, load: Load) -> dict[str, float]:
    seconds = 8.0 * bench.scale
    settings = {"batch_size": load.batch_size, "capacity": load.capacity}
    with Fleet(bench.server, load.contender, load.layout, **settings) as fleet:
        warm = fleet.produce(load.way, count=load.rate // 4)
        fleet.eventually(lambda: fleet.handled() >= warm.sent + warm.opened)
        production = fleet.produce(load.way, rate=load.rate, seconds=seconds, chunk=load.chunk)
        fleet.eventually(lambda: len(fleet.latencies()) >= production.sent)
        latencies = fleet.latencies()
    return {"p50": percentile(latencies, 0.50), "p99": percentile(latencies, 0.99)}
