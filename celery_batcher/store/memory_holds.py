"""Limits and what they hold, in the store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .memory_state import Act, Batch, LimitState


@dataclass(slots=True)
class LimitNow:
    """A limit at the moment of an act: what of its capacity may be used, and how long holds last.

    What a flush earns, what is earned, and the credit and room that others leave are known in a
    release.
    """

    n: int
    state: LimitState
    capacity: int
    hold_ms: int
    per_flush: float = 0.0
    refund: float = 0.0
    earned: float = 0.0
    credit: float = 0.0
    room: float = 0.0

    @property
    def dimension(self) -> int:
        return self.state.limit.dimension

    @property
    def window_ms(self) -> int:
        return self.state.limit.window_ms

    def end_from(self, now: int) -> int:
        """The end of a hold that begins now; of long windows it is rounded up."""
        bucket = max(1, self.window_ms // 2000)
        return -(-(now + self.hold_ms) // bucket) * bucket

    def cost_of(self, costs: Sequence[int]) -> int:
        """What costs are in its dimension; 0 when they say nothing of it."""
        return costs[self.dimension - 1] if self.dimension <= len(costs) else 0


def limits_now(act: Act, grace_ms: int = 0) -> list[LimitNow]:
    """The limits of the resource. The longest grace of its batchers counts for all."""
    resource = act.resource
    grace = max(grace_ms, resource.grace_ms)
    found = []
    for n, state in enumerate(resource.limits):
        hold_ms = state.limit.window_ms + grace
        found.append(LimitNow(n, state, _usable(act, state, hold_ms), hold_ms))
    return found


def _usable(act: Act, state: LimitState, hold_ms: int) -> int:
    """What of a capacity may be used now."""
    resource, capacity = act.resource, state.limit.capacity
    if state.start is not None and capacity > state.start:
        steps = max(0, (act.now - resource.from_ms) // resource.every_ms)
        capacity = min(capacity, state.start + state.step * steps)
    if resource.factor is not None:
        usable = {at for at, ends in resource.leases.items() if ends >= act.now + hold_ms}
        leased = resource.factor * len(usable) - resource.lacking * (resource.last in usable)
        capacity = min(capacity, resource.reserved + leased)
    return capacity


def lapse(act: Act, limits: Sequence[LimitNow]) -> None:
    """Holds that are over go; none lasts longer than one that begins now."""
    for limit in limits:
        rows, latest = limit.state.ends, limit.end_from(act.now)
        for ends in [ends for ends in rows if ends > latest]:
            rows[latest] += rows.pop(ends)
        for ends in [ends for ends in rows if ends <= act.now]:
            limit.state.held -= rows.pop(ends)


def hold(act: Act, batch: Batch, limits: Sequence[LimitNow]) -> None:
    """A batch that is claimed holds its costs, however soon it ends."""
    batch.ends = [limit.end_from(act.now) for limit in limits]
    for limit, ends in zip(limits, batch.ends, strict=True):
        hold_until(limit, ends, limit.cost_of(batch.costs))


def hold_until(limit: LimitNow, ends: int, cost: int) -> None:
    limit.state.ends[ends] += cost
    limit.state.held += cost


def let_go_of(limit: LimitNow, ends: int, cost: int) -> int:
    """Let go of as much of what ends then, as far as it is there; return how much that is."""
    cost = min(cost, limit.state.ends.get(ends, 0))
    if cost:
        limit.state.ends[ends] -= cost
        limit.state.held -= cost
    return cost


def let_go(act: Act, batch: Batch, limits: Sequence[LimitNow]) -> bool:
    """Let go of a hold that has not ended; whether it was there."""
    held = list(zip(limits, batch.ends, strict=True))
    for limit, ends in held:
        if ends <= act.now or limit.state.ends.get(ends, 0) < limit.cost_of(batch.costs):
            return False
    for limit, ends in held:
        let_go_of(limit, ends, limit.cost_of(batch.costs))
    return True


def hold_open(act: Act, costs: Sequence[int], sign: int) -> None:
    """An unclaimed batch holds its costs (1), or no longer does (-1)."""
    for dimension, cost in enumerate(costs, 1):
        act.resource.open[dimension] += sign * cost


def exceeds_capacity(costs: Sequence[int], limits: Sequence[LimitNow]) -> bool:
    """Whether it costs more than what the resource has now."""
    return any(limit.cost_of(costs) > limit.capacity for limit in limits)


def fits_what_started(costs: Sequence[int], limits: Sequence[LimitNow]) -> bool:
    """Whether there is room for these costs beside all that started within the windows."""
    return all(limit.state.held + limit.cost_of(costs) <= limit.capacity for limit in limits)


def free(act: Act, limit: LimitNow) -> int:
    """What of a limit is not held."""
    return limit.capacity - limit.state.held - act.resource.open[limit.dimension]


def pay_debts(act: Act, limits: Sequence[LimitNow]) -> None:
    """What is owed becomes a hold without a batch, as far as it is free."""
    for limit in limits:
        paid = min(limit.state.debt, free(act, limit))
        if paid > 0:
            hold_until(limit, limit.end_from(act.now), paid)
            limit.state.debt -= paid


def wait_for(act: Act, limit: LimitNow, need: float) -> int:
    """How long until holds of this cost are over."""
    rows = limit.state.ends
    for ends in sorted(rows)[:200]:
        need -= rows[ends]
        if need <= 0:
            return max(1, ends - act.now)
    return -1


def slow_down(act: Act, opens: int) -> None:
    """An adaptive resource was throttled: half of it from then on, and then ever more."""
    resource = act.resource
    if not resource.options.adaptive:
        return
    for limit in limits_now(act):
        limit.state.start = max(min(1, limit.capacity), limit.capacity // 2)
        twentieth = max(1, -(-limit.state.limit.capacity // 20))
        limit.state.step = _ramp_of(act, limit) or twentieth
    resource.from_ms = opens


def _ramp_of(act: Act, limit: LimitNow) -> int:
    """By how much the limit rises at a time; 0 when it has no ramp."""
    ramp = act.resource.options.ramp
    return ramp[limit.n] if limit.n < len(ramp) else 0


def close_until(act: Act, later: int) -> None:
    """Close the resource. Recovery begins when it opens."""
    resource = act.resource
    closed, resource.closed_until = resource.closed_until, later
    if closed <= act.now:
        slow_down(act, later)
    else:
        resource.from_ms = later


def set_capacity(act: Act, capacities: Sequence[int], reserved: int | None) -> None:
    """Change what the resource may give. More of it may come step by step."""
    resource = act.resource
    for limit, capacity in zip(limits_now(act), capacities, strict=False):
        state, before = limit.state, limit.state.limit.capacity
        step = state.step if state.start is not None and limit.capacity < before else 0
        if capacity > limit.capacity:
            step = _ramp_of(act, limit) or step
        rises = step > 0 and resource.factor is None
        state.start, state.step = (min(limit.capacity, capacity), step) if rises else (None, 0)
        state.limit = state.limit.with_capacity(capacity)
    resource.from_ms = max(act.now, resource.closed_until)
    if reserved is not None:
        resource.reserved = reserved
