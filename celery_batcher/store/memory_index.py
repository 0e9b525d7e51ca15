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


def next_of(watcher: WatcherState, priorities: Iterable[int], caps: KeyCaps) -> Waiting | None:
    """The operation that a watcher releases next."""
    if 0 in priorities and (group := first_group(watcher, caps)):
        return group[0]
    head = front(watcher, priorities, caps)
    return head and head[2]


def first_group(watcher: WatcherState, caps: KeyCaps) -> list[Waiting] | None:
    """The operations that stay together and are released next."""
    while watcher.together and caps.room(watcher.together[0][0]) is None:
        caps.set_aside(watcher.together.pop(0))
    return watcher.together[0] if watcher.together else None


def front(
    watcher: WatcherState, priorities: Iterable[int], caps: KeyCaps
) -> tuple[str, float, Waiting] | None:
    """Key, its virtual time and the operation that a watcher's queues release next."""
    for priority in priorities:
        ring = watcher.rings[priority]
        while watcher.by_priority[priority] and (top := ring.first()):
            key, tag = top
            entries = watcher.queues[priority, key].peek(1)
            if not entries:
                ring.leave(key)
            elif caps.room(entries[0], backfills=priorities is BACKFILLS) is None:
                ring.pass_over(key, tag)
            else:
                return key, tag, entries[0]
    return None


def first_ready(watcher: WatcherState) -> Waiting | None:
    """The next operation whose key does not wait, as far as is known: no key is asked."""
    waiting = {key for key, state in watcher.keys.items() if state.waits}
    for group in watcher.together:
        if group[0].entry.key not in waiting:
            return group[0]
    for priority, ring in enumerate(watcher.rings):
        for key in ring.members():
            queue = watcher.queues.get((priority, key))
            if queue and key not in waiting and (entries := queue.peek(1)):
                return entries[0]
    return None


def first_aside(watcher: WatcherState) -> Waiting | None:
    """The first operation of a watcher all of whose keys wait at their caps, by names of keys."""
    groups = [group[0] for key in watcher.keys.values() for group in key.aside]
    if watcher.together or groups:
        return min(
            [group[0] for group in watcher.together[:1]] or groups, key=lambda one: one.sequence
        )
    queues = sorted(watcher.queues.items(), key=lambda item: (item[0][0], item[0][1].encode()))
    return next((one for _, queue in queues for one in queue.peek(1)), None)
