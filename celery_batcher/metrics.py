"""What `Batcher.meters` and `Batcher.recent_batches` return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import accumulate

from .store.meters import (
    AGES_MS,
    DURATIONS_MS,
    OUTCOMES,
    SIZES,
    TRIGGERS,
    BatchRecord,
    Buckets,
    Place,
    Readings,
)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values up to each bound were seen; the last bound is infinite.

    Attributes:
        bounds: upper bounds of the buckets, the infinite one left out.
        counts: values up to each bound and, last, all values.
        sum: of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return self.counts[-1]


@dataclass(frozen=True, slots=True)
class WatcherMeters:
    """What was counted of a watcher since ever, by the whole fleet.

    Attributes:
        enqueued: operations that came into the index, each once.
        settled: outcomes of operations: ``done``, ``retried``, ``halved`` (tried again in halves),
            ``given_back`` (no attempt counted), ``dead``.
        redriven: dead letters that became operations again.
        cost_released: of all released batches, in the first dimension.
        batches: released batches by trigger.
        expired: claims whose deadline passed without outcomes.
        abandoned: claims that ended with their worker, or with its child.
        recalled: batches that were taken back before a worker had claimed them.
        batch_size: operations per batch, at its release.
        operation_wait: seconds, one value per batch: since the oldest of its operations was
            enqueued, at its release.
        batch_duration: seconds from a batch's claim to the end of its claim, however it ended.
    """

    name: str
    enqueued: int
    settled: Mapping[str, int]
    redriven: int
    cost_released: int
    batches: Mapping[str, int]
    expired: int
    abandoned: int
    recalled: int
    batch_size: Histogram
    operation_wait: Histogram
    batch_duration: Histogram


@dataclass(frozen=True, slots=True)
class Meters:
    """What was counted of a batcher since ever, by the whole fleet.

    Attributes:
        flushes: by result: why they released no more (``empty``, ``capacity``, ``credit``,
            ``open``, ``concurrency``, ``paused``, ``closed``, ``guard``).
        watchers: rows, in order of names.
    """

    flushes: Mapping[str, int]
    watchers: tuple[WatcherMeters, ...]


@dataclass(frozen=True, slots=True)
class RecentBatch:
    """A batch of late.

    Attributes:
        id: that of its Celery task.
        cost: in the first dimension.
        trigger: ``size``, ``capacity``, ``interval``, ``single`` or ``bisect``.
        state: ``released``, ``running``, ``settled``, ``expired`` (its deadline passed),
            ``abandoned`` (its worker ended or was lost) or ``recalled`` (nobody had claimed it).
        started_at: when a worker claimed it; None: none has.
        ended_at: None: it has not.
        oldest_age: seconds since the oldest of its operations was enqueued, at its release.
        done, retried, halved, given_back, dead: how many of its operations have such an outcome.
    """

    id: str
    watcher: str
    operations: int
    cost: int
    trigger: str
    state: str
    released_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    oldest_age: float
    done: int
    retried: int
    halved: int
    given_back: int
    dead: int


def meters_of(readings: Readings) -> Meters:
    """Counters, by name and in the units of users."""
    rows = (_watcher(name, numbers) for name, numbers in readings.watchers.items())
    return Meters(dict(sorted(readings.flushes.items())), tuple(rows))


def _watcher(name: str, numbers: Sequence[int]) -> WatcherMeters:
    return WatcherMeters(
        name=name,
        enqueued=numbers[Place.ENQUEUED],
        settled=_by_name(OUTCOMES, numbers),
        redriven=numbers[Place.REDRIVEN],
        cost_released=numbers[Place.COST],
        batches=_by_name(TRIGGERS, numbers),
        expired=numbers[Place.EXPIRED],
        abandoned=numbers[Place.ABANDONED],
        recalled=numbers[Place.RECALLED],
        batch_size=_histogram(SIZES, numbers, float),
        operation_wait=_histogram(AGES_MS, numbers, _seconds),
        batch_duration=_histogram(DURATIONS_MS, numbers, _seconds),
    )


def _by_name(places: Iterable[Place], numbers: Sequence[int]) -> dict[str, int]:
    return {place.name.lower(): numbers[place] for place in places}


def _seconds(ms: int) -> float:
    return ms / 1000


def _histogram(buckets: Buckets, numbers: Sequence[int], unit: Callable[[int], float]) -> Histogram:
    return Histogram(
        bounds=tuple(map(unit, buckets.bounds)),
        counts=tuple(accumulate(numbers[buckets.first : buckets.sum])),
        sum=unit(numbers[buckets.sum]),
    )


def recent_batch(record: BatchRecord) -> RecentBatch:
    """A batch, in the units of users."""
    outcomes = {place.name.lower(): n for place, n in zip(OUTCOMES, record.outcomes, strict=True)}
    return RecentBatch(
        id=record.id,
        watcher=record.watcher,
        operations=record.operations,
        cost=record.cost,
        trigger=record.trigger,
        state=record.state,
        released_at=_moment(record.released_ms),
        started_at=None if record.started_ms is None else _moment(record.started_ms),
        ended_at=None if record.ended_ms is None else _moment(record.ended_ms),
        oldest_age=max(0, record.released_ms - record.oldest_ms) / 1000,
        **outcomes,
    )


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, timezone.utc)
