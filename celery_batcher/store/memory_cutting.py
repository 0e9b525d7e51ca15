"""Batches are cut and recorded, in the store in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from ..fairness import weigh
from .base import Limits, Refused, Released
from .memory_budget import allow, counts_allow, gate, lapse, longest_hold
from .memory_index import front, next_of, reindex
from .memory_putback import bring_back, keep_together, next_due
from .memory_state import Act, Batch, Queue, Waiting

MAX_BYTES = 1024 * 1024
TURN = 10


def release(act: Act, token: str, id: str, limits: Limits) -> Released | Refused:
    state = act.state
    if id in state.batches:
        return state.batches[id].describe(act.now)
    if state.turn != token:
        return Refused("lost", 0)
    bring_back(act)
    refusal = gate(act) or counts_allow(act, limits)
    if refusal:
        return refusal
    limited = limits.capacity is not None
    if limited:
        lapse(act, longest_hold(act, limits))
    while top := state.ring.first():
        name, tag = top
        head = next_of(act.watcher(name))
        allowed: float | Refused | None = math.inf
        if head is None:
            allowed = None
        elif limited:
            allowed = allow(act, head.entry.cost, name, limits)
        if isinstance(allowed, Refused):
            return allowed
        if allowed is None:
            state.ring.leave(name)
            continue
        return _record(act, id, name, tag, allowed, limited=limited).describe(act.now)
    return Refused("empty", next_due(act))


def _record(act: Act, id: str, name: str, tag: float, budget: float, *, limited: bool) -> Batch:
    """Cut a batch and put it into the ledger."""
    state, watcher = act.state, act.watcher(name)
    entries, trigger, oldest = _cut(act, name, budget)
    cost = sum(one.entry.cost for one in entries)
    batch = Batch(
        id, name, entries, cost, trigger, oldest, act.now, limited=limited, probe=watcher.probe
    )
    state.batches[id] = batch
    state.offers[id] = act.now
    watcher.open += 1
    watcher.open_cost += cost
    if limited:
        act.resource.open += cost
        act.resource.credit -= cost
    watcher.tag = tag + sum(weigh(one.entry.cost) for one in entries) / watcher.options.weight
    state.ring.time = tag
    state.ring.leave(name)
    reindex(state, name)
    return batch


def _cut(act: Act, name: str, budget: float) -> tuple[list[Waiting], str, int]:
    """The operations of a batch, why it ends, and when its oldest turn was enqueued."""
    watcher = act.watcher(name)
    size = 1 if watcher.probe else watcher.options.max_batch_size
    if watcher.together:
        return _cut_together(act, name, size, budget)
    mean = watcher.waiting_cost / max(1, watcher.waiting)
    batch: list[Waiting] = []
    stop, oldest = "", act.now
    while len(batch) < size and not stop and (head := front(watcher)):
        key, tag, first = head
        ring = watcher.rings[first.entry.priority]
        most = TURN * mean if len(ring) > 1 else None
        queue = watcher.queues[first.entry.priority, key]
        taken, stop = _turn(queue, batch, size, budget, most)
        queue.remove(taken)
        batch += taken
        oldest = min(oldest, first.entry.enqueued_ms) if taken else oldest
        watcher.waiting -= len(taken)
        watcher.waiting_cost -= sum(one.entry.cost for one in taken)
        watcher.by_priority[first.entry.priority] -= len(taken)
        ring.serve(key, tag, sum(weigh(one.entry.cost) for one in taken))
        if not queue.arrived and not queue.returned:
            del watcher.queues[first.entry.priority, key]
        if not watcher.by_priority[first.entry.priority]:
            ring.clear()
        if watcher.options.batch_by_key:
            stop = stop or "interval"
    return batch, "size" if len(batch) >= size else stop or "interval", oldest


def _turn(
    queue: Queue, batch: Sequence[Waiting], size: int, budget: float, most: float | None
) -> tuple[list[Waiting], str]:
    """What one key gives to a batch, and why the batch is complete ("" when it is not).

    ``most`` is the weight of its turn, None when no other key waits.
    """
    n, cost = len(batch), sum(one.entry.cost for one in batch)
    total_bytes = sum(len(one.data) for one in batch)
    taken: list[Waiting] = []
    weight = 0
    length = size - n if most is None else min(size - n, TURN)
    for one in queue.peek(length):
        entry = one.entry
        if cost + entry.cost > budget:
            return taken, "capacity"
        if n and total_bytes + len(one.data) > MAX_BYTES:
            return taken, "size"
        if n and entry.single:
            return taken, "interval"
        if most is not None and taken and weight + weigh(entry.cost) > most:
            return taken, ""
        taken.append(one)
        n, cost, total_bytes = n + 1, cost + entry.cost, total_bytes + len(one.data)
        weight += weigh(entry.cost)
        if entry.single:
            return taken, "single"
    return taken, ""


def _cut_together(act: Act, name: str, size: int, budget: float) -> tuple[list[Waiting], str, int]:
    """A group makes a batch of its own; what does not fit waits for the next, together."""
    watcher = act.watcher(name)
    group = watcher.together.pop(0)
    costs = accumulate(one.entry.cost for one in group)
    taken = group[: min(size, sum(1 for cost in costs if cost <= budget))]
    watcher.waiting -= len(group)
    watcher.waiting_cost -= sum(one.entry.cost for one in group)
    keep_together(act, name, group[len(taken) :])
    return taken, "bisect", taken[0].entry.enqueued_ms
