"""How much a batch may take, in the store in memory: holds, credit, and heads in need."""

from __future__ import annotations

import math

from .base import Limits, Refused
from .memory_state import Act, Batch


def gate(act: Act) -> Refused | None:
    """Why nothing is released or started now, if so."""
    paused, closed = act.state.paused_until, act.resource.closed_until
    if paused == -1:
        return Refused("paused", -1)
    if paused > act.now:
        return Refused("paused", paused - act.now)
    if closed > act.now:
        return Refused("closed", closed - act.now)
    return None


def counts_allow(act: Act, limits: Limits) -> Refused | None:
    """Why no batch more may be in the ledger, if so."""
    batches = act.state.batches.values()
    if sum(1 for batch in batches if batch.nonce is None) >= limits.max_open_batches:
        return Refused("open", -1)
    if limits.max_concurrent_batches and len(batches) >= limits.max_concurrent_batches:
        return Refused("concurrency", -1)
    return None


# Holds


def longest_hold(act: Act, limits: Limits) -> int:
    return max(limits.hold_ms, act.resource.hold_ms)


def hold(act: Act, batch: Batch, limits: Limits) -> None:
    """A batch that is claimed holds its cost, however soon it ends."""
    batch.ends = act.now + longest_hold(act, limits)
    act.resource.ends[batch.ends] += batch.cost
    act.resource.held += batch.cost


def lapse(act: Act, hold_ms: int) -> None:
    """Holds that are over go; none lasts longer than ``hold_ms`` from now."""
    resource, now = act.resource, act.now
    for ends in [ends for ends in resource.ends if ends > now + hold_ms]:
        resource.ends[now + hold_ms] += resource.ends.pop(ends)
    for ends in [ends for ends in resource.ends if ends <= now]:
        resource.held -= resource.ends.pop(ends)


def _wait_for(act: Act, need: float) -> int:
    """How long until holds of this cost are over."""
    ends_of = act.resource.ends
    for ends in sorted(ends_of)[:200]:
        need -= ends_of[ends]
        if need <= 0:
            return max(1, ends - act.now)
    return -1


# The budget


def allow(act: Act, head_cost: int, name: str, limits: Limits) -> float | Refused | None:
    """The budget of the watcher's next batch; None when it waits for something else."""
    resource, watcher = act.resource, act.watcher(name)
    capacity = resource.capacity or 0
    if head_cost > capacity:
        return None
    others = _need_of_others(act)
    credit, per_flush = _earn(act, capacity, max(head_cost, others), limits)
    share = math.inf
    if watcher.open > 0:
        share = 2 * per_flush / max(1, len(act.state.ring)) - watcher.open_cost
    if head_cost > share:
        return None
    room = capacity - resource.held - resource.open - others
    credit -= others
    if head_cost > min(room, credit):
        _note(act, head_cost, limits)
    if head_cost > room:
        return Refused("capacity", _wait_for(act, head_cost - room))
    need: float = head_cost
    if watcher.waiting_cost > credit:
        size = watcher.options.max_batch_size
        full = min(per_flush, size * watcher.waiting_cost / watcher.waiting)
        need = max(need, full / 2)
    if need > credit:
        wait = math.ceil((need - credit) * limits.window_ms / capacity)
        return Refused("credit", max(1, wait))
    _satisfied(act, head_cost, capacity, limits)
    return min(credit, room, share)


def _earn(act: Act, capacity: int, head_cost: int, limits: Limits) -> tuple[float, float]:
    """The credit there is now, and what a flush earns."""
    resource = act.resource
    per_flush = capacity * limits.flush_ms / limits.window_ms
    credit = per_flush
    if resource.credit_ms is not None:
        elapsed = act.now - resource.credit_ms
        credit = resource.credit + capacity * elapsed / limits.window_ms
    credit = max(0, min(credit, max(2 * per_flush, head_cost)))
    resource.credit, resource.credit_ms = credit, act.now
    return credit, per_flush


# Heads in need


def _need_of_others(act: Act) -> int:
    """The cost of another batcher's head in need: it is left room and credit."""
    resource = act.resource
    if resource.head in (None, act.batcher) or resource.head_until <= act.now:
        return 0
    return resource.head_cost


def _note(act: Act, head_cost: int, limits: Limits) -> None:
    """This batcher's head is in need, unless another's is or this one was lately."""
    resource = act.resource
    if _need_of_others(act) or resource.rests.get(act.batcher, 0) > act.now:
        return
    resource.head, resource.head_cost = act.batcher, head_cost
    resource.head_until = act.now + max(500, 3 * limits.flush_ms)


def _satisfied(act: Act, head_cost: int, capacity: int, limits: Limits) -> None:
    """This batcher's head is in need no more, and the batcher rests."""
    resource = act.resource
    if resource.head == act.batcher:
        resource.head = None
        if head_cost > 0:
            rest = math.ceil(head_cost * limits.window_ms / capacity)
            resource.rests[act.batcher] = act.now + rest
