"""Reading what waits in the order in which it is released, in the store in memory."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable

from ..fairness import weigh
from .memory_cutting import MAX_BYTES, TURN
from .memory_index import ALL
from .memory_state import Act, Queue, Waiting, WatcherState

GROUPS, KEYS = 100, 1000


class _Seen:
    """What was seen so far, and whether there is room for more."""

    def __init__(self, most: int) -> None:
        self.found: list[bytes] = []
        self._most, self._bytes = most, MAX_BYTES

    @property
    def room(self) -> bool:
        return len(self.found) < self._most and self._bytes > 0

    def see(self, one: Waiting) -> None:
        self.found.append(one.data)
        self._bytes -= len(one.data)

    def see_all(self, ones: Iterable[Waiting]) -> None:
        for one in ones:
            if self.room:
                self.see(one)


def peek(act: Act, name: str, most: int) -> list[bytes]:
    watcher = act.state.watchers.get(name)
    if watcher is None:
        return []
    seen = _Seen(most)
    waits = {key for key, state in watcher.keys.items() if state.waits}
    aside = [group for state in watcher.keys.values() for group in state.aside]
    groups = [*watcher.together, *sorted(aside, key=lambda group: group[0].sequence)][:GROUPS]
    ready = [one for one in watcher.together[:GROUPS] if (one[0].entry.key or "") not in waits]
    for group in ready:
        seen.see_all(group)
    for priority in ALL:
        _see_in_turns(seen, watcher, priority, waits)
    for group in groups:
        if not any(group is one for one in ready):
            seen.see_all(group)
    for priority in ALL:
        _see_aside(seen, watcher, priority, waits)
    return seen.found


def _see_in_turns(seen: _Seen, watcher: WatcherState, priority: int, waits: set[str]) -> None:
    """The keys of a priority in turns, as they are served."""
    heaviest = TURN * (watcher.waiting_cost / max(1, watcher.waiting))
    ring = watcher.rings[priority]
    time = ring.time
    keys = [(tag, key) for tag, key in ring.tags()[:KEYS] if key not in waits]
    left = {key: _all_of(watcher.queues.get((priority, key))) for _, key in keys}
    while keys and seen.room and watcher.by_priority[priority]:
        tag, key = keys.pop(0)
        time = max(tag, time)
        weight = _see_turn(seen, left[key], heaviest)
        if left[key]:
            insort(keys, (time + weight, key))


def _see_turn(seen: _Seen, ones: deque[Waiting], heaviest: float) -> int:
    n = weight = 0
    while ones and seen.room and n < TURN:
        counts = weigh(ones[0].entry.cost)
        if n and weight + counts > heaviest:
            break
        seen.see(ones.popleft())
        n, weight = n + 1, weight + counts
    return weight


def _see_aside(seen: _Seen, watcher: WatcherState, priority: int, waits: set[str]) -> None:
    """Keys that wait at their caps, by name."""
    named = sorted((key for at, key in watcher.queues if at == priority), key=str.encode)
    for key in named[:KEYS]:
        if key in waits or key not in watcher.rings[priority]:
            seen.see_all(_all_of(watcher.queues[priority, key]))


def _all_of(queue: Queue | None) -> deque[Waiting]:
    return deque(queue.peek(len(queue.returned) + len(queue.arrived)) if queue else ())
