"""What waits, in the store in memory: queues by key, rings, and what a watcher releases next."""

from __future__ import annotations

from collections.abc import Iterable

from .. import wire
from ..operation import Priority
from .memory_state import BatcherState, Queue, Waiting, WatcherState

URGENT, BACKFILLS = range(Priority.backfill), range(Priority.backfill, len(Priority))
ALL = range(len(Priority))


def queue_of(watcher: WatcherState, entry: wire.Entry) -> Queue:
    return watcher.queues[entry.priority, entry.key or ""]


def arrive(state: BatcherState, watcher: WatcherState, data: bytes, entry: wire.Entry) -> None:
    """An operation waits for the first time, or as if it were."""
    if entry.registered:
        state.ids.add(entry.id)
    state.sequence += 1
    waiting = Waiting(state.sequence, data, entry)
    queue_of(watcher, entry).arrived.append(waiting)
    count_waiting(watcher, waiting)


def count_waiting(watcher: WatcherState, one: Waiting) -> None:
    """An operation waits (again): its key joins the ring, counters go up."""
    watcher.rings[one.entry.priority].join(one.entry.key or "")
    watcher.waiting += 1
    watcher.waiting_cost += one.entry.cost
    watcher.by_priority[one.entry.priority] += 1


def reindex(state: BatcherState, name: str) -> None:
    """A watcher is in the ring while it has operations and may release a batch.

    While it has back-fills, and no halves that go before them, it is in another.
    """
    watcher = state.watcher(name)
    most = watcher.options.max_concurrent_batches
    busy = most and watcher.open + watcher.claimed >= most
    may = not busy and not (watcher.probe and watcher.open)
    backfills = watcher.by_priority[Priority.backfill]
    waits = watcher.waiting > backfills, backfills > 0 and not watcher.together
    for nth, ring in enumerate(state.watcher_rings):
        if may and waits[nth]:
            ring.join(name, watcher.tags[nth])
        else:
            ring.leave(name)


def rejoin(state: BatcherState, name: str) -> None:
    """Every key with operations, and the watcher itself, is in its ring again."""
    watcher = state.watchers[name]
    for (priority, key), queue in watcher.queues.items():
        if queue.arrived or queue.returned:
            watcher.rings[priority].join(key)
    reindex(state, name)


def next_of(watcher: WatcherState, priorities: Iterable[int] = ALL) -> Waiting | None:
    """The operation that a watcher releases next."""
    if watcher.together and 0 in priorities:
        return watcher.together[0][0]
    head = front(watcher, priorities)
    return head and head[2]


def front(
    watcher: WatcherState, priorities: Iterable[int] = ALL
) -> tuple[str, float, Waiting] | None:
    """Key, its virtual time and the operation that a watcher's queues release next."""
    for priority in priorities:
        ring = watcher.rings[priority]
        while watcher.by_priority[priority] and (top := ring.first()):
            entries = watcher.queues[priority, top[0]].peek(1)
            if entries:
                return top[0], top[1], entries[0]
            ring.leave(top[0])
    return None
