"""How much a batch may take, in the store in memory: what it is worth, and heads in need."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import Limits, Refused
from .memory_credit import earn
from .memory_holds import LimitNow, exceeds_capacity, free, wait_for
from .memory_state import Act, WatcherState

Budget = list[float]
"""The most that a batch may cost, by dimension."""


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


def allow(
    act: Act, kind: str, costs: Sequence[int], name: str, limits: list[LimitNow], flush_ms: int
) -> Budget | Refused:
    """The budget of the watcher's next batch, by dimension; or why there is none.

    Refused for ``park``, the watcher waits for something other than the capacity of now; for
    ``later``, until the capacity has come back.
    """
    watcher = act.watcher(name)
    if exceeds_capacity(costs, limits):
        return Refused("later", -1)
    earn(act, kind, costs, limits, flush_ms)
    others = _need_of_others(act)
    budget = [math.inf] * limits[-1].dimension
    has_credit = True
    for limit in limits:
        share = _share_of(act, limit, watcher)
        if limit.cost_of(costs) > share:
            return Refused("park", -1)
        limit.room = free(act, limit) - limit.cost_of(others)
        most = min(budget[limit.dimension - 1], limit.credit, limit.room, share)
        budget[limit.dimension - 1] = most
        has_credit = has_credit and limit.cost_of(costs) <= limit.credit
    wait = _wait_for_room(act, costs, limits)
    if wait is not None:
        if has_credit:
            _note(act, costs, flush_ms)
        return Refused("capacity", wait)
    wait = _wait_for_credit(costs, watcher, limits)
    if wait is not None:
        return Refused("credit", wait)
    _satisfied(act, costs, limits)
    return budget


def _share_of(act: Act, limit: LimitNow, watcher: WatcherState) -> float:
    """What a watcher's unclaimed batches leave of its share."""
    if watcher.open == 0 or limit.dimension > 1:
        return math.inf
    sharing = max(1, sum(len(ring) for ring in act.state.watcher_rings))
    return 2 * limit.per_flush / sharing - watcher.open_cost


def _wait_for_room(act: Act, costs: Sequence[int], limits: list[LimitNow]) -> int | None:
    wait = None
    for limit in limits:
        lacking = limit.cost_of(costs) - limit.room
        if lacking > 0:
            until_then = wait_for(act, limit, lacking)
            wait = -1 if until_then < 0 or wait == -1 else max(wait or 0, until_then)
    return wait


def _wait_for_credit(
    costs: Sequence[int], watcher: WatcherState, limits: list[LimitNow]
) -> int | None:
    """How long until there is credit. Cut by credit, a batch is half of a full one at least."""
    wait = None
    for limit in limits:
        need: float = limit.cost_of(costs)
        if limit.dimension == 1 and watcher.waiting_cost > limit.credit:
            size = watcher.options.max_batch_size
            full = min(limit.per_flush, size * watcher.waiting_cost / watcher.waiting)
            need = max(need, full / 2)
        if need > limit.credit:
            until_then = math.ceil((need - limit.credit) * limit.window_ms / limit.capacity)
            wait = max(wait or 1, until_then)
    return wait


# Heads in need


def _need_of_others(act: Act) -> Sequence[int]:
    """The costs of another batcher's head in need: it is left that much room."""
    resource = act.resource
    if resource.head in (None, act.batcher) or resource.head_until <= act.now:
        return ()
    return resource.head_costs


def _note(act: Act, costs: Sequence[int], flush_ms: int) -> None:
    """This batcher's head is in need, unless another's is or this one was lately."""
    resource = act.resource
    if _need_of_others(act) or resource.rests.get(act.batcher, 0) > act.now:
        return
    resource.head, resource.head_costs = act.batcher, tuple(costs)
    resource.head_until = act.now + max(500, 3 * flush_ms)


def _satisfied(act: Act, costs: Sequence[int], limits: list[LimitNow]) -> None:
    """This batcher's head is in need no more, and the batcher rests."""
    resource = act.resource
    if resource.head == act.batcher:
        resource.head = None
        paid = [limit for limit in limits if limit.cost_of(costs)]
        if paid:
            rest = max(one.cost_of(costs) * one.window_ms / one.capacity for one in paid)
            resource.rests[act.batcher] = act.now + math.ceil(rest)
