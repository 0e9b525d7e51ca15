"""What waits, in the store in memory: queues by key, rings, and what a watcher releases next."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import wire
from ..operation import Priority
from .memory_state import BatcherState, Queue, Waiting, WatcherState

if TYPE_CHECKING:
    from .memory_keys import KeyCaps

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
    queue = queue_of(watcher, entry)
    queue.arrived.append(waiting)
    if len(queue.arrived) == 1:  # else its key is in the ring, or waits at its caps
        watcher.rings[entry.priority].join(entry.key or "")
    count_waiting(watcher, waiting)


def come_back(watcher: WatcherState, one: Waiting) -> None:
    """An operation waits again, before what arrived."""
    queue_of(watcher, one.entry).returned[one.sequence] = one
    watcher.rings[one.entry.priority].join(one.entry.key or "")
    count_waiting(watcher, one)


def join_groups(watcher: WatcherState, ones: list[Waiting]) -> None:
    """Operations that stay together are to be released before all others."""
    insort(watcher.together, ones, key=lambda group: group[0].sequence)


def count_waiting(watcher: WatcherState, one: Waiting) -> None:
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
    """Every key with operations that its caps allow, and the watcher itself, is in its ring."""
    watcher = state.watchers[name]
    for (priority, key), queue in watcher.queues.items():
        waits = key in watcher.keys and watcher.keys[key].waits
        if not waits and (queue.arrived or queue.returned):
            watcher.rings[priority].join(key)
    reindex(state, name)


def next_of(
    watcher: WatcherState, priorities: Iterable[int] = ALL, caps: KeyCaps | None = None
) -> Waiting | None:
    """The operation that a watcher releases next, by the caps of its keys or whatever they are."""
    if 0 in priorities and (group := first_group(watcher, caps)):
        return group[0]
    head = front(watcher, priorities, caps)
    return head and head[2]


def first_group(watcher: WatcherState, caps: KeyCaps | None) -> list[Waiting] | None:
    """The operations that stay together and are released next."""
    while caps and watcher.together and caps.room(watcher.together[0][0]) is None:
        caps.set_aside(watcher.together.pop(0))
    if watcher.together:
        return watcher.together[0]
    aside = [] if caps else [group for key in watcher.keys.values() for group in key.aside]
    return min(aside, key=lambda group: group[0].sequence, default=None)


def front(
    watcher: WatcherState, priorities: Iterable[int] = ALL, caps: KeyCaps | None = None
) -> tuple[str, float, Waiting] | None:
    """Key, its virtual time and the operation that a watcher's queues release next."""
    for priority in priorities:
        ring = watcher.rings[priority]
        while watcher.by_priority[priority] and (
            top := ring.first() or _any(watcher, priority, caps)
        ):
            key, tag = top
            entries = watcher.queues[priority, key].peek(1)
            if not entries:
                ring.leave(key)
            elif caps and caps.room(entries[0]) is None:
                ring.pass_over(key, tag)
            else:
                return key, tag, entries[0]
    return None


def _any(watcher: WatcherState, priority: int, caps: KeyCaps | None) -> tuple[str, float] | None:
    """The first key by name, where all of them wait at their caps and that does not matter."""
    queues = watcher.queues.items()
    keys = [key for (at, key), one in queues if at == priority and (one.arrived or one.returned)]
    return None if caps or not keys else (min(keys, key=str.encode), 0.0)
