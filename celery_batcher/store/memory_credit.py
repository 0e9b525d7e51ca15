"""Credit, in the store in memory: what each batcher may release, earned as time passes."""

from __future__ import annotations

from collections.abc import Sequence

from .memory_holds import LimitNow
from .memory_state import Account, Act, Member

CLASSES = ("credit", "backfill")
"""What is urgent, and what uses only what that leaves."""
_NOTHING = 1e-9


def earn(act: Act, kind: str, costs: Sequence[int], limits: list[LimitNow], flush_ms: int) -> None:
    """Earn what has come since the last time, up to what accounts hold."""
    resource = act.resource
    own = resource.members.setdefault(act.batcher, Member())
    since = act.now if resource.earned_ms is None else resource.earned_ms
    elapsed = max(0, act.now - since)
    for limit in limits:
        limit.per_flush = limit.capacity * flush_ms / limit.window_ms
        account = own.account(kind, limit.n)
        if account.full is None:  # it is new
            account.credit = limit.per_flush
        account.full = max(2 * limit.per_flush, limit.cost_of(costs))
        _divide(limit, list(resource.members.values()), limit.capacity * elapsed / limit.window_ms)
        limit.credit = account.credit
    resource.earned_ms = act.now


def spend(act: Act, kind: str, costs: Sequence[int], limits: list[LimitNow]) -> None:
    for limit in limits:
        account = act.resource.members[act.batcher].account(kind, limit.n)
        account.credit = limit.credit - limit.cost_of(costs)


def _divide(limit: LimitNow, members: list[Member], total: float) -> None:
    accounts = {kind: [one.account(kind, limit.n) for one in members] for kind in CLASSES}
    rooms = {kind: [_room(one) for one in accounts[kind]] for kind in CLASSES}
    given = {kind: [0.0] * len(members) for kind in CLASSES}
    weights = [one.weight for one in members]
    left = total
    for kind in CLASSES:
        floors = [one.floors[kind] * total for one in members]
        left = _fill_floors(left, rooms[kind], floors, given[kind])
    for kind in CLASSES:
        left = _water_fill(left, rooms[kind], weights, given[kind])
        for account, more in zip(accounts[kind], given[kind], strict=True):
            account.credit = min(account.full or 0.0, account.credit) + more


def _room(account: Account) -> float:
    full = account.full or 0.0
    return full - min(full, account.credit)


def _fill_floors(
    total: float, rooms: list[float], floors: Sequence[float], given: list[float]
) -> float:
    """Give each its floor, or as much of it as there is; return what is left."""
    wanted = sum(map(min, rooms, floors))
    part = total / wanted if wanted > total else 1.0
    for i, room in enumerate(rooms):
        floor = part * min(room, floors[i])
        given[i], rooms[i] = given[i] + floor, room - floor
    return max(0.0, total - wanted)


def _water_fill(
    total: float, rooms: list[float], weights: Sequence[int], given: list[float]
) -> float:
    """Divide the total over rooms, by weight; return what is left."""
    while total > _NOTHING:
        sum_ = sum(weights[i] for i, room in enumerate(rooms) if room > 0)
        if not sum_:
            return total
        level, filled = total / sum_, False
        for i, room in enumerate(rooms):
            if 0 < room <= level * weights[i]:
                given[i], rooms[i], total, filled = given[i] + room, 0.0, total - room, True
        if not filled:
            for i, room in enumerate(rooms):
                if room > 0:
                    more = level * weights[i]
                    given[i], rooms[i] = given[i] + more, room - more
            return 0.0
    return total
