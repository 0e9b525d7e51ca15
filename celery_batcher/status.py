"""What `Batcher.status` returns."""

from __future__ import annotations

from dataclasses import dataclass

from .store.counts import Counts, SetAside, WatcherCounts
from .store.meters import FlushRecord


@dataclass(frozen=True, slots=True)
class LastFlush:
    """The newest flush of the fleet: its end (ms since 1970), what it released, why no more."""

    at_ms: int
    batches: int
    operations: int
    reason: str


@dataclass(frozen=True, slots=True)
class WatcherStatus:
    """A watcher's row. ``next_age`` is the age of its next operation, in seconds."""

    name: str
    waiting: int
    waiting_cost: int
    delayed: int
    open_batches: int
    running_batches: int
    dead: int
    on_probe: bool
    next_age: float | None


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """A limit of the resource, as it is now.

    Attributes:
        dimension: of costs; "" where they are plain numbers.
        window: seconds.
        capacity: per window, as the store has it.
        usable: what of it may be used now: less while it rises in steps, or as little is leased.
        held: the cost of what started within the window, and of batches that no worker has claimed.
        debt: what was charged above its estimate and is not paid yet.
    """

    dimension: str
    window: float
    capacity: int
    usable: int
    held: int
    debt: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a batcher, all of one moment. Operations are counted, costs are summed.

    Attributes:
        phase: ``paused``, ``draining`` (no operations are taken), ``flushing`` (a turn is held) or
            ``idle`` (nobody flushes).
        paused_for: seconds that a pause still lasts; None: until resumed; 0: not paused.
        admitted: in the books and not yet in the index: about to be published, or in a lane.
        waiting: in the index.
        delayed: to be tried again, later.
        released: in a batch that no worker has claimed.
        running: in a batch that a worker has.
        oldest_age: seconds since the oldest of the watchers' next operations was enqueued.
        dead_dropped: dead letters that had to go because a watcher had too many.
        duplicates: operations dropped on arrival, as another with their id or dedupe_key was there.
        expired_batches: batches whose worker did not settle before its deadline.
        late_batches: batches whose outcomes came when their claim had ended: they were refused.
        halved_batches: batches that failed and were tried again in halves.
        repaired: counters that the audit found wrong three times and set right.
        capacity, held: of the first limit of the resource; None without one.
        limits: all limits of the resource; none without one.
        set_aside: messages that could not be read; `set_aside_messages` has the oldest ten.
        last_flush: the newest of the fleet, whichever process did it; None before the first.
    """

    name: str
    phase: str
    paused_for: float | None
    admitted: int
    admitted_cost: int
    waiting: int
    waiting_cost: int
    delayed: int
    delayed_cost: int
    released: int
    released_cost: int
    running: int
    running_cost: int
    done: int
    dead: int
    dead_cost: int
    dead_dropped: int
    duplicates: int
    expired_batches: int
    halved_batches: int
    late_batches: int
    repaired: int
    oldest_age: float | None
    capacity: int | None
    held: int | None
    limits: tuple[LimitStatus, ...]
    watchers: tuple[WatcherStatus, ...]
    set_aside: int
    set_aside_messages: tuple[SetAside, ...]
    last_flush: LastFlush | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A partition of a shared capacity that this fleet has leased.

    Attributes:
        partition: its number, from 0.
        capacity: what it is worth.
        left: seconds until the lease ends, unless it is renewed.
    """

    partition: int
    capacity: int
    left: float


def watcher_status(row: WatcherCounts) -> WatcherStatus:
    """A watcher's row, in the units of users."""
    return WatcherStatus(
        name=row.name,
        waiting=row.waiting,
        waiting_cost=row.waiting_cost,
        delayed=row.delayed,
        open_batches=row.open_batches,
        running_batches=row.running_batches,
        dead=row.dead,
        on_probe=row.on_probe,
        next_age=None if row.next_age_ms is None else row.next_age_ms / 1000,
    )


def status_of(
    name: str,
    counts: Counts,
    set_aside: tuple[SetAside, ...],
    *,
    dimensions: tuple[str, ...] | None,
) -> Status:
    """The status that counts amount to. ``dimensions`` are None without a resource."""
    watchers = tuple(watcher_status(row) for row in counts.watchers)
    ages = [row.next_age for row in watchers if row.next_age is not None]
    phase = "flushing" if counts.turn_ms else "idle"
    if counts.paused_ms or counts.draining:
        phase = "paused" if counts.paused_ms else "draining"
    return Status(
        name=name,
        phase=phase,
        paused_for=None if counts.paused_ms == -1 else counts.paused_ms / 1000,
        admitted=counts.admitted,
        admitted_cost=counts.admitted_cost,
        waiting=counts.waiting,
        waiting_cost=counts.waiting_cost,
        delayed=counts.delayed,
        delayed_cost=counts.delayed_cost,
        released=counts.open,
        released_cost=counts.open_cost,
        running=counts.running,
        running_cost=counts.running_cost,
        done=counts.done,
        dead=counts.dead,
        dead_cost=counts.dead_cost,
        dead_dropped=counts.dropped,
        duplicates=counts.duplicates,
        expired_batches=counts.expired_batches,
        halved_batches=counts.halved_batches,
        late_batches=counts.late_batches,
        repaired=counts.repaired,
        oldest_age=max(ages, default=None),
        capacity=counts.capacity if dimensions else None,
        held=counts.held if dimensions else None,
        limits=() if dimensions is None else _limits(counts, dimensions),
        watchers=watchers,
        set_aside=counts.set_aside,
        set_aside_messages=set_aside,
        last_flush=_last_flush(counts.last_flush),
    )


def _last_flush(last: FlushRecord | None) -> LastFlush | None:
    if last is None:
        return None
    return LastFlush(last.at_ms, last.batches, last.operations, last.reason)


def _limits(counts: Counts, dimensions: tuple[str, ...]) -> tuple[LimitStatus, ...]:
    names = dict(enumerate(dimensions, 1))
    return tuple(
        LimitStatus(
            dimension=names.get(one.limit.dimension, f"#{one.limit.dimension}"),
            window=one.limit.window_ms / 1000,
            capacity=one.limit.capacity,
            usable=one.usable,
            held=one.held,
            debt=one.debt,
        )
        for one in counts.limits
    )
