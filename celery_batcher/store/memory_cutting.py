"""Batches are cut and recorded, in the store in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..fairness import weigh
from .base import Refused, Released
from .memory_budget import Budget, allow, counts_allow, gate
from .memory_holds import LimitNow, hold_open, lapse, limits_now, pay_debts
from .memory_index import BACKFILLS, URGENT, first_group, front, next_of, reindex
from .memory_keys import KeyCaps, hold_key, lapse_keys, let_backfills_go, wake_group
from .memory_meters import count_release, end_flush
from .memory_putback import bring_back, keep_together, next_due
from .memory_sharing import Standing, begin_to_earn, forget_need, spend, standing_of
from .memory_state import Act, Batch, Queue, Waiting
from .options import Limits

MAX_BYTES = 1024 * 1024
TURN = 10
PARKED_MS = 250


def release(
    act: Act, token: str, id: str, limits: Limits, so_far: tuple[int, int]
) -> Released | Refused:
    state = act.state
    if id in state.batches:
        return state.batches[id].describe(act.now)
    if state.turn != token:
        return Refused("lost", 0)
    answer = _release(act, id, limits)
    return end_flush(act, id, so_far, answer) if isinstance(answer, Refused) else answer


def _release(act: Act, id: str, limits: Limits) -> Released | Refused:
    bring_back(act)
    lapse_keys(act, limits.grace_ms)
    refusal = gate(act) or counts_allow(act, limits)
    if refusal:
        return refusal
    now = limits_now(act, limits.grace_ms) if limits.limited else []
    lapse(act, now)
    pay_debts(act, now)
    attempts = [_Attempt(id, nth, rank, now, limits) for nth, rank in ((0, 1), (1, 2))]
    if limits.limited:  # back-fills come first as far as their floor covers them
        attempts.insert(0, _Attempt(id, 1, 0, now, limits))
    for attempt in attempts:
        answer = _release_from(act, attempt)
        if isinstance(answer, Released) or (attempt.rank and answer.reason != "empty"):
            break
    if isinstance(answer, Refused) and limits.limited and _freed(act, limits.flush_ms):
        return replace(answer, freed=True)
    return answer


def _freed(act: Act, flush_ms: int) -> bool:
    """Whether charges freed capacity within a flush interval, and somebody waits for it."""
    waits = any(watcher.waiting for watcher in act.state.watchers.values())
    return waits and act.now - act.resource.freed_ms <= flush_ms


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt to release a batch of what is urgent (0) or of back-fills (1), of such a rank."""

    id: str
    nth: int
    rank: int
    limits: list[LimitNow]
    given: Limits

    @property
    def priorities(self) -> range:
        return (URGENT, BACKFILLS)[self.nth]


def _release_from(act: Act, attempt: _Attempt) -> Released | Refused:
    """Of the watchers in a ring, the first that may release a batch does."""
    ring, limits = act.state.watcher_rings[attempt.nth], attempt.limits
    while top := ring.first():
        name, tag = top
        caps = KeyCaps(act, name, attempt.given.grace_ms)
        head = next_of(act.watcher(name), attempt.priorities, caps)
        allowed: Budget | Refused = [math.inf] if head else Refused("empty", -1)
        standing: Standing | None = None
        if head and limits:
            costs, flush_ms = head.entry.costs, attempt.given.flush_ms
            standing = standing_of(act, attempt.nth, costs, limits, flush_ms)
            begin_to_earn(act, standing)
            if standing.rank > attempt.rank:
                return Refused("rank", -1)
            allowed = allow(act, standing, costs, act.watcher(name), limits, flush_ms)
        if not isinstance(allowed, Refused):
            allowed[0] = min(allowed[0], (head and caps.room(head)) or 0)
            return _record(act, attempt, caps, tag, allowed, standing).describe(act.now)
        if allowed.reason in {"credit", "capacity"}:
            return allowed
        ring.leave(name)
        if allowed.reason == "later":
            act.state.parked[name] = act.now + PARKED_MS
    if limits:
        forget_need(act, attempt.nth)
    return Refused("empty", next_due(act))


def _record(
    act: Act,
    attempt: _Attempt,
    caps: KeyCaps,
    tag: float,
    budget: Budget,
    standing: Standing | None,
) -> Batch:
    """Cut a batch and put it into the ledger."""
    state, watcher, limits, name = act.state, caps.watcher, attempt.limits, caps.name
    entries, trigger, oldest = _cut(caps, budget, attempt.priorities)
    costs = _sum_of(entries, len(budget))
    batch = Batch(
        attempt.id,
        name,
        entries,
        costs[0],
        costs,
        trigger,
        oldest,
        act.now,
        act.now,
        limited=bool(limits),
        probe=watcher.probe,
    )
    state.batches[batch.id] = batch
    state.offers[batch.id] = act.now
    count_release(act, batch)
    hold_key(act, batch)
    watcher.open += 1
    watcher.open_cost += batch.cost
    if standing is not None:
        hold_open(act, costs, 1)
        spend(act, standing, costs, limits)
    served = sum(weigh(one.entry.cost) for one in entries)
    watcher.tags[attempt.nth] = tag + served / watcher.options.weight
    ring = state.watcher_rings[attempt.nth]
    ring.time = tag
    ring.leave(name)
    reindex(state, name)
    return batch


def _cost_in(one: Waiting, dimension: int) -> int:
    """What an operation costs in a dimension, counted from 0; 0 when it says nothing of it."""
    costs = one.entry.costs
    return costs[dimension] if dimension < len(costs) else 0


def _sum_of(ones: Sequence[Waiting], dimensions: int) -> tuple[int, ...]:
    return tuple(sum(_cost_in(one, d) for one in ones) for d in range(dimensions))


def _exceeds(costs: Sequence[int], one: Waiting, budget: Budget) -> bool:
    """Whether an operation more would be more than what a batch may cost."""
    return any(costs[d] + _cost_in(one, d) > most for d, most in enumerate(budget))


def _cut(
    caps: KeyCaps, budget: Budget, priorities: Iterable[int]
) -> tuple[list[Waiting], str, int]:
    """The operations of a batch, why it ends, and when its oldest turn was enqueued."""
    act, watcher = caps.act, caps.watcher
    size = 1 if watcher.probe else watcher.options.max_batch_size
    if priorities is URGENT and first_group(watcher, caps):
        return _cut_together(act, caps.name, size, budget)
    mean = watcher.waiting_cost / max(1, watcher.waiting)
    batch: list[Waiting] = []
    stop, oldest = "", act.now
    while len(batch) < size and not stop and (head := front(watcher, priorities, caps)):
        key, tag, first = head
        ring = watcher.rings[first.entry.priority]
        if priorities is URGENT:
            let_backfills_go(watcher, key)
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
        if watcher.options.by_key:
            stop = stop or "interval"
    return batch, "size" if len(batch) >= size else stop or "interval", oldest


def _turn(
    queue: Queue, batch: Sequence[Waiting], size: int, budget: Budget, most: float | None
) -> tuple[list[Waiting], str]:
    """What one key gives to a batch, and why the batch is complete ("" when it is not).

    ``most`` is the weight of its turn, None when no other key waits.
    """
    n, costs = len(batch), list(_sum_of(batch, len(budget)))
    total_bytes = sum(len(one.data) for one in batch)
    taken: list[Waiting] = []
    weight = 0
    length = size - n if most is None else min(size - n, TURN)
    for one in queue.peek(length):
        entry = one.entry
        if _exceeds(costs, one, budget):
            return taken, "capacity"
        if n and total_bytes + len(one.data) > MAX_BYTES:
            return taken, "size"
        if n and entry.single:
            return taken, "interval"
        if most is not None and taken and weight + weigh(entry.cost) > most:
            return taken, ""
        taken.append(one)
        n, total_bytes = n + 1, total_bytes + len(one.data)
        costs = [cost + _cost_in(one, d) for d, cost in enumerate(costs)]
        weight += weigh(entry.cost)
        if entry.single:
            return taken, "single"
    return taken, ""


def _cut_together(act: Act, name: str, size: int, budget: Budget) -> tuple[list[Waiting], str, int]:
    """A group makes a batch of its own; what does not fit waits for the next, together."""
    watcher = act.watcher(name)
    group = watcher.together.pop(0)
    taken: list[Waiting] = []
    key = group[0].entry.key
    let_backfills_go(watcher, key or "")
    for one in group[:size]:
        other = watcher.options.capped and one.entry.key != key
        if other or _exceeds(_sum_of(taken, len(budget)), one, budget):
            break
        taken.append(one)
    watcher.waiting -= len(group)
    watcher.waiting_cost -= sum(one.entry.cost for one in group)
    keep_together(act, name, group[len(taken) :])
    wake_group(watcher, key or "")
    return taken, "bisect", taken[0].entry.enqueued_ms
