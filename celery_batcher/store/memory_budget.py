"""How much a batch may take, in the store in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .base import Refused
from .memory_holds import LimitNow, exceeds_capacity, free, wait_for
from .memory_sharing import Standing, greatest_need, most_of, need_before, note_need
from .memory_state import Act, WatcherState
from .options import Limits

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
    act: Act,
    standing: Standing,
    costs: Sequence[int],
    watcher: WatcherState,
    limits: list[LimitNow],
    flush_ms: int,
) -> Budget | Refused:
    """The budget of the watcher's next batch, by dimension; or why there is none.

    Refused for ``park``, the watcher waits for something other than the capacity of now; for
    ``later``, until the capacity has come back.
    """
    if exceeds_capacity(costs, limits):
        return Refused("later", -1)
    others = need_before(act, standing, limits[-1].dimension)
    greatest = greatest_need(act, standing, limits[-1].dimension)
    _earn(act, costs, others, greatest, limits, flush_ms)
    budget = [math.inf] * limits[-1].dimension
    for limit in limits:
        share = _share_of(act, limit, watcher)
        if limit.cost_of(costs) > share:
            return Refused("park", -1)
        limit.room = free(act, limit) - limit.cost_of(others)
        most = min(limit.credit, limit.room, share, most_of(standing, limit))
        budget[limit.dimension - 1] = min(budget[limit.dimension - 1], most)
    reason, wait = "capacity", _wait_for_room(act, costs, limits)
    if wait is None:
        reason, wait = "credit", _wait_for_credit(standing, costs, watcher, limits)
    if wait is not None:
        note_need(act, standing, costs, watcher, limits, flush_ms)
        return Refused(reason, wait)
    return budget


def _earn(
    act: Act,
    costs: Sequence[int],
    others: Sequence[int],
    greatest: Sequence[int],
    limits: list[LimitNow],
    flush_ms: int,
) -> None:
    """Earn credit up to two flush intervals, or what the head costs and others need before it.

    At first it is that of one flush interval, or of one operation. What charges gave back is on top
    of that. It is no less than what a batch of any other needs: else two that are dear in different
    dimensions would each cut off what the other one saves.
    """
    since = act.resource.credit_ms
    for limit in limits:
        limit.per_flush = limit.capacity * flush_ms / limit.window_ms
        credit: float = max(limit.per_flush, limit.cost_of(costs))
        if since is not None:
            more = limit.capacity * (act.now - since) / limit.window_ms
            credit = limit.state.credit + more
        needed = max(limit.cost_of(costs) + limit.cost_of(others), limit.cost_of(greatest))
        most = max(2 * limit.per_flush, needed)
        limit.state.credit = limit.earned = max(0, min(credit, most))
        limit.refund = limit.state.refund
        limit.credit = limit.earned + limit.refund - limit.cost_of(others)
    act.resource.credit_ms = act.now


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
    standing: Standing, costs: Sequence[int], watcher: WatcherState, limits: list[LimitNow]
) -> int | None:
    """How long until there is credit. Cut by credit, a batch is half of a full one at least."""
    wait = None
    for limit in limits:
        need: float = limit.cost_of(costs)
        if limit.dimension == 1 and standing.rank > 0 and watcher.waiting_cost > limit.credit:
            size = watcher.options.max_batch_size
            full = min(limit.per_flush, size * watcher.waiting_cost / watcher.waiting)
            need = max(need, full / 2)
        if need > limit.credit:
            until_then = math.ceil((need - limit.credit) * limit.window_ms / limit.capacity)
            wait = max(wait or 1, until_then)
    return wait
