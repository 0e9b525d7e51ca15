"""Sharing a resource with other batchers, in the store in memory.

Start-time fair queueing of the resource's time, as `lua/parts/sharing.lua` explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..operation import Priority
from .memory_holds import LimitNow
from .memory_state import Act, Member, Need, WatcherState


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a class of a batcher stands: rank, virtual time, and what its floor has earned.

    The floor covers a batch from ``enough`` on, which it has earned at ``covered``.
    """

    member: Member
    nth: int
    rank: int
    tag: float
    earned: float
    enough: float
    covered: int


def time_of(costs: Sequence[int], limits: Sequence[LimitNow]) -> float:
    """The milliseconds in which costs are earned, in the limit where that is longest."""
    return max(
        (
            limit.cost_of(costs) * limit.window_ms / limit.state.limit.capacity
            for limit in limits
            if limit.cost_of(costs) > 0 and limit.state.limit.capacity > 0
        ),
        default=0.0,
    )


def standing_of(
    act: Act, nth: int, costs: Sequence[int], limits: Sequence[LimitNow], flush_ms: int
) -> Standing:
    """Where a class of this batcher stands with a head of these costs."""
    resource = act.resource
    member = resource.members.setdefault(act.batcher, Member())
    time, part, own = time_of(costs, limits), member.floors[nth], member.parties[nth]
    since = 0 if own.earned_ms is None else max(0, act.now - own.earned_ms)
    earned = min(own.earned + part * since, max(2 * flush_ms * part, time))
    enough = max(flush_ms * part, time)
    rank = 0 if part > 0 and earned >= enough else nth + 1
    covered = act.now + math.ceil((enough - earned) / part) if part > 0 else 2**53
    return Standing(member, nth, rank, max(own.tag, resource.times[nth]), earned, enough, covered)


def begin_to_earn(act: Act, standing: Standing) -> None:
    """A floor earns from the first time on that its class has need."""
    own = standing.member.parties[standing.nth]
    if own.earned_ms is None:
        own.earned_ms = act.now


def need_before(act: Act, standing: Standing, dimensions: int) -> list[int]:
    """The costs of what other batchers need before this one, by dimension."""
    others = [one for one in act.resource.members.values() if one is not standing.member]
    needs = [need_of(act, one, standing, dimensions) for one in others]
    return [sum(need[d] for need in needs) for d in range(dimensions)]


def need_of(act: Act, member: Member, standing: Standing, dimensions: int) -> list[int]:
    """The costs of what another batcher needs before this one, by dimension."""
    total = [0] * dimensions
    for need in (one.need for one in member.parties):
        if need is None or need.until <= act.now:
            continue
        covered = need.rank > 0 and need.covered <= act.now
        rank, costs = (0, need.floor) if covered else (need.rank, need.costs)
        if rank < standing.rank or (rank == standing.rank > 0 and need.tag < standing.tag):
            batches = _batches_before(standing, need, rank)
            total = [one + batches * more for one, more in zip(total, costs, strict=True)]
    return total


def greatest_need(act: Act, standing: Standing, dimensions: int) -> list[int]:
    """The most that a batch of any other batcher needs, by dimension."""
    greatest = [0] * dimensions
    for member in act.resource.members.values():
        for need in (one.need for one in member.parties):
            if member is standing.member or need is None or need.until <= act.now:
                continue
            costs = need.floor if need.rank > 0 and need.covered <= act.now else need.costs
            greatest = [max(pair) for pair in zip(greatest, costs, strict=True)]
    return greatest


def _batches_before(standing: Standing, need: Need, rank: int) -> int:
    """How many batches of a need come before what has a later rank, or the same and a later time.

    One that a floor covers, all that is urgent before back-fills, and else what is due until that
    time.
    """
    if rank == 0:
        return 1
    if rank < standing.rank or need.step == 0:
        return need.most
    return min(need.most, math.ceil((standing.tag - need.tag) / need.step))


def most_of(standing: Standing, limit: LimitNow) -> float:
    """The most that a batch may cost: of what a floor covers no more than it has earned."""
    if standing.rank > 0:
        return math.inf
    return _worth(limit, standing.earned)


def _worth(limit: LimitNow, time: float) -> float:
    """What may be had of a limit in so much of its time; rounding must not cut off an operation."""
    return time * limit.state.limit.capacity / limit.window_ms + 1e-6


def note_need(
    act: Act,
    standing: Standing,
    costs: Sequence[int],
    watcher: WatcherState,
    limits: Sequence[LimitNow],
    flush_ms: int,
) -> None:
    """It needs a batch: as much as a flush earns or a batch holds of what is at its head.

    Far behind others it is due several of them, up to what a flush earns.
    """
    if len(act.resource.members) == 1:
        return
    mean = max(1, watcher.waiting_cost / max(1, watcher.waiting))
    most = min(limits[0].per_flush, most_of(standing, limits[0]))
    waiting = watcher.by_priority[Priority.backfill]
    if standing.nth == 0:
        waiting = watcher.waiting - waiting
    count = max(1, min(waiting, watcher.options.max_batch_size, most / mean))
    needed = []
    for dimension in range(limits[-1].dimension):
        head = costs[dimension] if dimension < len(costs) else 0
        needed.append(max(head, int(count * (mean if dimension == 0 else head))))
    floor = list(needed)
    for limit in limits:
        at, least = limit.dimension - 1, limit.cost_of(costs)
        floor[at] = min(floor[at], max(least, int(_worth(limit, standing.enough))))
    time = time_of(needed, limits)
    most = max(1, min(math.floor(flush_ms / time), math.ceil(waiting / count))) if time else 1
    until = act.now + max(500, 3 * flush_ms)
    standing.member.parties[standing.nth].need = Need(
        standing.rank,
        standing.tag,
        until,
        standing.covered,
        time / standing.member.weight,
        most,
        tuple(needed),
        tuple(floor),
    )


def forget_need(act: Act, nth: int) -> None:
    act.resource.members.setdefault(act.batcher, Member()).parties[nth].need = None


def _least_tag(act: Act, standing: Standing) -> float:
    """The virtual time of who is furthest behind of the others that need a batch."""
    needs = [
        member.parties[standing.nth].need
        for member in act.resource.members.values()
        if member is not standing.member
    ]
    return min((need.tag for need in needs if need and need.until > act.now), default=math.inf)


def spend(act: Act, standing: Standing, costs: Sequence[int], limits: Sequence[LimitNow]) -> None:
    """A batch was released. What a floor covers counts as all else does: it is no gift on top.

    The resource's time moves up to that of who is furthest behind, so that nobody in need loses a
    claim.
    """
    time, own = time_of(costs, limits), standing.member.parties[standing.nth]
    covered = min(standing.earned, time) if standing.rank == 0 else 0
    own.earned, own.earned_ms = standing.earned - covered, act.now
    own.tag = standing.tag + time / standing.member.weight
    if standing.rank > 0:
        act.resource.times[standing.nth] = min(standing.tag, _least_tag(act, standing))
    own.need = None
    for limit in limits:
        cost = limit.cost_of(costs)
        refunded = min(cost, limit.refund)
        limit.state.credit = limit.earned - (cost - refunded)
        limit.state.refund = limit.refund - refunded
