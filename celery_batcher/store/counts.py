"""What the store says of itself: its numbers, what was set aside or died, and its audit."""

from __future__ import annotations

from dataclasses import dataclass, field

from .meters import FlushRecord
from .options import Limit


@dataclass(frozen=True, slots=True)
class WatcherCounts:
    """A watcher's row of `Counts`."""

    name: str
    waiting: int = 0
    waiting_cost: int = 0
    delayed: int = 0
    open_batches: int = 0
    running_batches: int = 0
    dead: int = 0
    on_probe: bool = False
    next_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LimitCounts:
    """A limit of the resource as it is now.

    Attributes:
        limit: its dimension, provisioned capacity and window.
        usable: what of the capacity may be used now.
        held: the cost of what started within the window, and of batches that no worker has claimed.
        debt: what was charged above its estimate and is not yet paid.
    """

    limit: Limit
    usable: int
    held: int
    debt: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of a batcher, all of one moment. Costs are of operations, not of holds."""

    now_ms: int = 0
    admitted: int = 0
    admitted_cost: int = 0
    admitted_messages: int = 0
    waiting: int = 0
    waiting_cost: int = 0
    delayed: int = 0
    delayed_cost: int = 0
    open: int = 0
    open_cost: int = 0
    open_batches: int = 0
    running: int = 0
    running_cost: int = 0
    running_batches: int = 0
    done: int = 0
    dead: int = 0
    dead_cost: int = 0
    dropped: int = 0
    duplicates: int = 0
    expired_batches: int = 0
    halved_batches: int = 0
    late_batches: int = 0
    repaired: int = 0
    set_aside: int = 0
    paused_ms: int = 0
    draining: bool = False
    turn_ms: int = 0
    last_flush: FlushRecord | None = None
    limits: tuple[LimitCounts, ...] = ()
    watchers: tuple[WatcherCounts, ...] = field(default_factory=tuple)

    @property
    def capacity(self) -> int | None:
        """The capacity of the first limit; None without a resource."""
        return self.limits[0].limit.capacity if self.limits else None

    @property
    def held(self) -> int:
        """What the first limit holds."""
        return self.limits[0].held if self.limits else 0

    @property
    def buffered(self) -> int:
        """Operations not yet released."""
        return self.admitted + self.waiting + self.delayed

    @property
    def unfinished(self) -> int:
        """Operations neither done nor dead."""
        return self.buffered + self.open + self.running

    @property
    def unsettled_cost(self) -> int:
        """Cost of operations neither done nor dead."""
        before = self.admitted_cost + self.waiting_cost + self.delayed_cost
        return before + self.open_cost + self.running_cost


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message that could not be read: when, which watcher's lane, why, and its bytes."""

    at_ms: int
    watcher: str
    reason: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: its number in the batcher, when the operation died, why, and its entry."""

    number: int
    at_ms: int
    reason: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself: its time, how it evicts, whether it writes an append-only file.

    None is what it does not tell.
    """

    now_ms: int
    eviction: str | None = None
    append_only: bool | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that was not what the data say. ``watcher`` is "" for those of the batcher.

    ``counted`` is what it said, ``recorded`` what the data amount to; ``repaired``: it was set to
    that.
    """

    name: str
    watcher: str
    counted: int
    recorded: int
    repaired: bool


@dataclass(frozen=True, slots=True)
class AuditStep:
    """What a step of the audit found.

    Attributes:
        wait_ms: milliseconds until there is more to do; 0: go on.
        over: the pass has ended with this step.
        compared: counters that were compared in this pass.
        wrong: how many of them were not what the data say.
        differences: those of this step.
        skipped: what could not be audited in this step, and why.
    """

    wait_ms: int
    over: bool = False
    compared: int = 0
    wrong: int = 0
    differences: tuple[Difference, ...] = ()
    skipped: tuple[str, ...] = ()
