"""What the store knows of why operations wait, and where one is."""

from __future__ import annotations

from dataclasses import dataclass

from .counts import WatcherCounts
from .options import Limit


@dataclass(frozen=True, slots=True)
class LimitOutlook:
    """A limit of the resource, and what it has left for the operation in question.

    Attributes:
        started: the cost of what started within the window.
        unclaimed: of released batches that no worker has claimed, of all batchers.
        credit: what a flush may release now.
        wait_ms: until there is room for the operation, as far as ends are known: 0 there is, -1
            unknown, or it costs more than what may be used.
    """

    limit: Limit
    usable: int
    started: int
    unclaimed: int
    debt: int
    credit: float
    wait_ms: int


@dataclass(frozen=True, slots=True)
class BatcherShare:
    """A batcher of the resource.

    Attributes:
        in_need: it was lately refused room or credit.
        unclaimed: what its unclaimed batches hold, by dimension.
        first: what is left to it before the operation in question, by dimension.
    """

    name: str
    weight: int
    in_need: bool
    unclaimed: tuple[int, ...]
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeyOutlook:
    """The caps of a key, and what they leave for the operation in question and the key's next one.

    Attributes:
        capacity: what it may start within a window; None: anything.
        concurrency: batches that it may have in flight; 0: any number.
        started: the cost of what started within the window.
        unclaimed: of its released batches that no worker has claimed.
        batches: in flight; 0 where their number has no cap.
        next_cost: of the operation of this key that is next in turn.
        wait_ms: until there is room for the dearer of the two, as far as ends are known: 0 there
            is, -1 unknown, or it costs more than the capacity.
        asked_ms: until it is asked again whether it may; -1: it does not wait.
        guard_ms: for so long nothing of it starts, because the store was restarted.
    """

    capacity: int | None
    window_ms: int
    concurrency: int
    started: int
    unclaimed: int
    batches: int
    next_cost: int
    wait_ms: int
    asked_ms: int
    guard_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What bears upon the next batch of a watcher, all of one moment.

    Attributes:
        guard_ms: for so long nothing starts, because the store was restarted.
        due_ms: until a delayed operation of the watcher waits again; -1: none, or not soon.
        last_due_ms: until the last delayed operation of the batcher does.
        sharing: watchers, and back-fills of watchers, that may release a batch.
        open_cost: of the watcher's unclaimed batches.
        by_priority: the watcher's waiting operations: halves of failed batches, high, normal,
            backfill.
        head: the entry of its operation next in turn, or nothing.
        keys_due_ms: all its keys that have operations wait at their caps, and none is asked again
            before; -1: not all of them do.
        key: of the operation in question; None when it has no key, or that no caps.
    """

    now_ms: int
    watcher: WatcherCounts
    paused_ms: int = 0
    closed_ms: int = 0
    guard_ms: int = 0
    turn_ms: int = 0
    draining: bool = False
    admitted: int = 0
    open_batches: int = 0
    running_batches: int = 0
    buffered: int = 0
    buffered_cost: int = 0
    due_ms: int = -1
    last_due_ms: int = 0
    sharing: int = 0
    max_concurrent_batches: int = 0
    open_cost: int = 0
    by_priority: tuple[int, ...] = (0, 0, 0, 0)
    head: bytes = b""
    limits: tuple[LimitOutlook, ...] = ()
    batchers: tuple[BatcherShare, ...] = ()
    keys_due_ms: int = -1
    key: KeyOutlook | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Where an operation is: ``waiting``, ``delayed``, ``released``, ``running`` or ``dead``.

    Attributes:
        ahead, ahead_cost: operations before it in the queue of its watcher, priority and key.
        ms: since it was released or died; until it waits again, or its batch's deadline.
        reason: why it is dead.
    """

    state: str
    watcher: str
    entry: bytes
    ahead: int = 0
    ahead_cost: int = 0
    batch: str = ""
    ms: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sought:
    """A step of a search: operations looked at, and where to go on; "" at the end of the part."""

    looked: int
    cursor: str = ""
    found: Found | None = None
