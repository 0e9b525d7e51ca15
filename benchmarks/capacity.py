"""Whether the capacity is kept, and how much of it is used, measured where handlers start."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from analysis import fillable, sliding, steady_rate, worst_window
from processes import BATCHED, ONE_SLOT, TWO_APART, TWO_SHARED, Bench, Fleet, Layout, Server

CAPACITY = 10_000
COSTS = (1, 10, 900)
CPU_MS = 30
LAYOUTS = ((TWO_SHARED, "one queue"), (TWO_APART, "control apart"))
SETTLE = 2.0
"""Seconds after the first handler's start that do not count for the use."""
STALL = 5.0


@dataclass(frozen=True)
class Keeping:
    """How the capacity was kept, in shares of it."""

    worst: float
    """Of the capacity, units in the worst window of a second."""
    use: float
    """Of what whole operations can fill, while enough was waiting."""
    gap: float
    """Seconds, the longest time in which no handler started."""
    batch: float
    """Mean operations per batch."""


def measure(bench: Bench) -> dict[str, Any]:
    stalls, timelines = _across_stalls(bench)
    return {"capacity": _kept(bench), "stalls": stalls, "timelines": timelines}


def _kept(bench: Bench) -> dict[str, dict[str, float]]:
    """By layout, cost and handler."""
    figures = {}
    seconds = 2.0 if bench.quick else 6.0  # whole windows
    for layout, where in LAYOUTS:
        for cpu_ms, handler in ((0, ""), (CPU_MS, f", {CPU_MS} ms CPU")):
            for cost in COSTS[1:2] if bench.quick else COSTS:
                name = f"{where}, cost {cost}{handler}"
                events = _events(bench.server, layout, cost=cost, cpu_ms=cpu_ms, seconds=seconds)
                figures[name] = asdict(_keeping(events, cost, seconds))
    events = _events(bench.server, ONE_SLOT, cost=10, seconds=seconds)
    figures["one worker, one slot, cost 10"] = asdict(_keeping(events, 10, seconds))
    return figures


def _across_stalls(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """All workers of batches stop for five seconds and go on."""
    figures, timelines = {}, {}
    for layout, where in LAYOUTS[:1] if bench.quick else LAYOUTS:
        events = _events(bench.server, layout, cost=10, seconds=3.0, stalled=("worker", "second"))
        figures[where] = asdict(_keeping(events, 10, seconds=2.0))
        timelines[where] = sliding(events)
    return figures, timelines


def _events(
    server: Server,
    layout: Layout,
    *,
    cost: int,
    seconds: float,
    cpu_ms: int = 0,
    stalled: tuple[str, ...] = (),
) -> list[tuple[float, int]]:
    """(start, cost) of the handlers of a fleet that has enough to do for that time."""
    settings = {"capacity": CAPACITY, "cost": cost, "handler_cpu_ms": cpu_ms}
    with Fleet(server, BATCHED, None, **settings) as fleet:
        duration = SETTLE + 1.0 + seconds
        fleet.produce("packed", count=int(CAPACITY * (2 * duration + STALL + 5.0) / cost))
        fleet.start(layout)
        fleet.eventually(lambda: bool(fleet.starts()))
        time.sleep(duration)
        if stalled:
            with fleet.stalled(*stalled):
                time.sleep(STALL)
            time.sleep(duration)
        return fleet.events()


def _keeping(events: list[tuple[float, int]], cost: int, seconds: float) -> Keeping:
    steady = events[0][0] + SETTLE
    times, units = zip(*(event for event in events if event[0] >= steady), strict=True)
    return Keeping(
        worst=worst_window(events) / CAPACITY,
        use=steady_rate(events, steady, seconds) / fillable(CAPACITY, cost),
        gap=max((later - earlier for earlier, later in pairwise(times)), default=math.inf),
        batch=sum(units) / cost / len(units),
    )
