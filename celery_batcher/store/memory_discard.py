"""Removing operations from the index and from what is delayed, in the store in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..operation import Priority
from .base import Discarded
from .memory_cutting import MAX_BYTES
from .memory_index import ALL, reindex
from .memory_keys import forget_empty, let_backfills_go
from .memory_state import Act, Delayed, Queue, Waiting, WatcherState


class _Step:
    """What a step has removed, and what it has room for."""

    def __init__(self, act: Act, most: int) -> None:
        self.act = act
        self.removed = 0
        self._n, self._bytes = most, MAX_BYTES

    @property
    def room(self) -> bool:
        return self._n > 0 and self._bytes > 0

    def may_go(self, ones: Sequence[Waiting]) -> bool:
        """Whether so many together may still go: the first may always."""
        return self.room and (self.removed == 0 or len(ones) <= self._n)

    def forget(self, one: Waiting) -> None:
        if one.entry.registered:
            self.act.state.ids.discard(one.entry.id)
            self.act.state.deduped.pop(one.entry.id, None)
        self.removed += 1
        self._n -= 1
        self._bytes -= len(one.data)

    def pass_over(self) -> None:
        self._n -= 1


def discard(act: Act, id: str, part: str, watcher: str, most: int, left: int) -> Discarded:
    known, answer = act.state.discarded
    if known == id:
        return answer
    step = _Step(act, most)
    if part == "delayed":
        left, over = _discard_delayed(step, watcher, left)
    else:
        over = _discard_waiting(step, watcher)
    act.state.discarded = id, Discarded(step.removed, left, over)
    return act.state.discarded[1]


def _discard_delayed(step: _Step, watcher: str, left: int) -> tuple[int, bool]:
    """From the end on: what is due leaves the front, and nothing is missed."""
    later = step.act.state.later
    last_first = sorted(later, key=_place, reverse=True)[left:]
    for one in last_first:
        if watcher and one.watcher != watcher:
            if not step.room:
                return left, False
            step.pass_over()
            left += 1
        elif not step.may_go(one.ones):
            return left, False
        else:
            later.remove(one)
            for operation in one.ones:
                step.forget(operation)
    return left, step.room


def _place(one: Delayed) -> tuple[int, int, bytes, int]:
    return one.due, len(one.watcher), one.watcher.encode(), one.ones[0].sequence


def _discard_waiting(step: _Step, name: str) -> bool:
    watcher = step.act.watcher(name)
    while (group := _first_group(watcher)) and step.may_go(group):
        _discard_group(step, watcher, group)
    for priority in ALL:
        keys = [
            key for (at, key), queue in watcher.queues.items() if at == priority and _any(queue)
        ]
        for key in sorted(keys, key=str.encode):
            _discard_key(step, watcher, priority, key)
    over = step.room and _first_group(watcher) is None
    if over:
        for ring in watcher.rings:
            ring.clear()
    if step.removed:
        reindex(step.act.state, name)
    return over


def _any(queue: Queue) -> bool:
    return bool(queue.arrived or queue.returned)


def _first_group(watcher: WatcherState) -> list[Waiting] | None:
    if watcher.together:
        return watcher.together[0]
    aside = [group for state in watcher.keys.values() for group in state.aside[:1]]
    return min(aside, key=lambda group: group[0].sequence, default=None)


def _discard_group(step: _Step, watcher: WatcherState, group: list[Waiting]) -> None:
    key = group[0].entry.key or ""
    if watcher.together and watcher.together[0] is group:
        del watcher.together[0]
    else:
        watcher.keys[key].aside.remove(group)
        forget_empty(watcher, key)
    for one in group:
        _uncount(step, watcher, one)


def _discard_key(step: _Step, watcher: WatcherState, priority: int, key: str) -> None:
    queue = watcher.queues[priority, key]
    while step.room and (first := queue.peek(1)):
        queue.remove(first)
        watcher.by_priority[priority] -= 1
        _uncount(step, watcher, first[0])
    if _any(queue):
        return
    del watcher.queues[priority, key]
    watcher.rings[priority].leave(key)
    if priority < Priority.backfill:
        let_backfills_go(watcher, key)


def _uncount(step: _Step, watcher: WatcherState, one: Waiting) -> None:
    watcher.waiting -= 1
    watcher.waiting_cost -= one.entry.cost
    step.forget(one)
