"""The metrics: their names, labels, meanings, and where their values come from.

Docs/metrics.md has the same table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..metrics import Histogram, Meters, WatcherMeters
from ..status import LimitStatus, Status, WatcherStatus

PREFIX = "celery_batcher_"
RESULTS = ("empty", "capacity", "credit", "open", "concurrency", "paused", "closed", "guard")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one batcher."""

    status: Status
    meters: Meters


Value = float | Histogram
Sample = tuple[tuple[str, ...], Value]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its labels beside ``batcher``; samples have their values, and the metric's."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    samples: Callable[[Reading], Iterable[Sample]]


def _gauge(name: str, meaning: str, value: Callable[[Status], float | None]) -> Family:
    def samples(reading: Reading) -> Iterator[Sample]:
        found = value(reading.status)
        if found is not None:
            yield (), found

    return Family(name, "gauge", (), meaning, samples)


def _counter(name: str, meaning: str, value: Callable[[Status], float]) -> Family:
    return Family(name, "counter", (), meaning, lambda reading: [((), value(reading.status))])


def _per_watcher(name: str, meaning: str, value: Callable[[WatcherStatus], float]) -> Family:
    return Family(
        name,
        "gauge",
        ("watcher",),
        meaning,
        lambda reading: [((row.name,), value(row)) for row in reading.status.watchers],
    )


def _per_limit(name: str, meaning: str, value: Callable[[LimitStatus], float]) -> Family:
    def samples(reading: Reading) -> Iterator[Sample]:
        limits = reading.status.limits
        for one in limits:  # a label that is empty is as none to Prometheus
            window = f"{one.window:g}" if len(limits) > 1 else ""
            yield (one.dimension, window), value(one)

    return Family(name, "gauge", ("dimension", "window"), meaning, samples)


def _counted(name: str, meaning: str, value: Callable[[WatcherMeters], float]) -> Family:
    return Family(
        name,
        "counter",
        ("watcher",),
        meaning,
        lambda reading: [((row.name,), value(row)) for row in reading.meters.watchers],
    )


def _counted_by(
    label: str, name: str, meaning: str, values: Callable[[WatcherMeters], Mapping[str, int]]
) -> Family:
    def samples(reading: Reading) -> Iterator[Sample]:
        for row in reading.meters.watchers:
            for by, n in values(row).items():
                yield (row.name, by), n

    return Family(name, "counter", ("watcher", label), meaning, samples)


def _histogram(name: str, meaning: str, value: Callable[[WatcherMeters], Histogram]) -> Family:
    return Family(
        name,
        "histogram",
        ("watcher",),
        meaning,
        lambda reading: [((row.name,), value(row)) for row in reading.meters.watchers],
    )


def _last_flush(status: Status) -> float | None:
    return None if status.last_flush is None else status.last_flush.at_ms / 1000


def _flushes(reading: Reading) -> Iterator[Sample]:
    for result, n in {**dict.fromkeys(RESULTS, 0), **reading.meters.flushes}.items():
        yield (result,), n


FAMILIES = (
    _per_watcher(
        "operations_waiting", "Operations in the index, waiting.", lambda row: row.waiting
    ),
    _per_watcher(
        "cost_waiting",
        "Their cost, in the first dimension.",
        lambda row: row.waiting_cost,
    ),
    _per_watcher(
        "operations_delayed", "Operations to be tried again, later.", lambda row: row.delayed
    ),
    _gauge(
        "operations_in_lanes",
        "Operations in the books and not yet in the index: in a lane, or about to be published.",
        lambda status: status.admitted,
    ),
    _per_watcher(
        "oldest_operation_age_seconds",
        "Seconds since the watcher's next operation was enqueued; 0 when none waits.",
        lambda row: row.next_age or 0.0,
    ),
    _per_watcher(
        "batches_in_flight",
        "Batches that are released and not settled.",
        lambda row: row.open_batches + row.running_batches,
    ),
    _per_watcher("batches_running", "Batches that a worker has.", lambda row: row.running_batches),
    _per_limit(
        "capacity",
        "The capacity of the resource per window; labels only where it has several.",
        lambda one: one.capacity,
    ),
    _per_limit(
        "capacity_usable",
        "What of it may be used now: less in a ramp, after a 429, or as little is leased.",
        lambda one: one.usable,
    ),
    _per_limit(
        "capacity_held",
        "Cost of what started within the window, and of batches that no worker has claimed.",
        lambda one: one.held,
    ),
    _per_limit(
        "capacity_debt",
        "Cost that was charged above what was said, and is not paid yet.",
        lambda one: one.debt,
    ),
    _gauge(
        "paused",
        "1 while the batcher is paused, else 0.",
        lambda status: float(status.phase == "paused"),
    ),
    _gauge(
        "draining",
        "1 while the batcher takes no operations and is not paused, else 0.",
        lambda status: float(status.phase == "draining"),
    ),
    _per_watcher("dead_operations", "Dead letters.", lambda row: row.dead),
    _gauge(
        "set_aside_messages", "Messages that could not be read.", lambda status: status.set_aside
    ),
    _gauge(
        "last_flush_timestamp_seconds",
        "When the fleet's newest flush ended, in seconds since 1970.",
        _last_flush,
    ),
    _counted(
        "operations_enqueued_total",
        "Operations that came into the index, each once.",
        lambda row: row.enqueued,
    ),
    _counted_by(
        "outcome",
        "operations_settled_total",
        "Outcomes of operations: done, retried, halved (tried again in halves), given_back, dead.",
        lambda row: row.settled,
    ),
    _counted(
        "operations_redriven_total",
        "Dead letters that became operations again.",
        lambda row: row.redriven,
    ),
    _counted(
        "cost_released_total",
        "Cost of released batches, in the first dimension.",
        lambda row: row.cost_released,
    ),
    _counted_by(
        "trigger",
        "batches_total",
        "Released batches, by what ended them: size, capacity, interval, single, bisect.",
        lambda row: row.batches,
    ),
    _counted(
        "batches_recalled_total",
        "Batches that were taken back before a worker had claimed them.",
        lambda row: row.recalled,
    ),
    Family(
        "flushes_total",
        "counter",
        ("result",),
        "Flushes, by why they released no more: empty, capacity, credit, open, concurrency, "
        "paused, closed, guard.",
        _flushes,
    ),
    _counted(
        "claims_expired_total",
        "Claims whose deadline passed without outcomes.",
        lambda row: row.expired,
    ),
    _counted(
        "claims_abandoned_total",
        "Claims that ended with their worker, or with its child.",
        lambda row: row.abandoned,
    ),
    _counter(
        "batches_late_total",
        "Batches whose outcomes came when their claim had ended, and were refused.",
        lambda status: status.late_batches,
    ),
    _counter(
        "counters_repaired_total",
        "Counters that the audit found wrong three times and set right.",
        lambda status: status.repaired,
    ),
    _histogram(
        "batch_size_operations", "Operations per released batch.", lambda row: row.batch_size
    ),
    _histogram(
        "operation_wait_seconds",
        "One value per batch: the age of its oldest operation at its release.",
        lambda row: row.operation_wait,
    ),
    _histogram(
        "batch_duration_seconds",
        "Seconds from a batch's claim to the end of the claim, however it ended.",
        lambda row: row.batch_duration,
    ),
)
