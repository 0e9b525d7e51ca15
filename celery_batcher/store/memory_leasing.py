"""Leases of a shared resource, in the store in memory."""

from __future__ import annotations

from .base import Leased, Limiter
from .memory_index import reindex
from .memory_state import Act

LATELY = 10_000


def limiter(act: Act, token: str, ms: int, owner: str, need: int) -> Limiter:
    resource = act.resource
    resource.owner = resource.owner or owner
    resource.needs[act.batcher] = need, act.now
    needs = sum(need for need, at in resource.needs.values() if act.now - at <= LATELY)
    mine = resource.limiter in {token, None} or resource.limiter_until <= act.now
    if mine:
        resource.limiter, resource.limiter_until = token, act.now + ms
    capacity = resource.limits[0].limit.capacity if resource.limits else 0
    return Limiter(mine, resource.owner, needs, capacity, resource.reserved)


def lease(act: Act, token: str, leases: Leased) -> bool:
    resource = act.resource
    if resource.limiter != token:
        return False
    resource.leases = {index: act.now + ms for index, ms in leases.partitions.items()}
    resource.last, resource.lacking = leases.last, leases.lacking
    for name in act.state.watchers:
        reindex(act.state, name)
    return True


def yield_limiter(act: Act, token: str) -> bool:
    resource = act.resource
    if resource.limiter != token:
        return False
    resource.limiter, resource.limiter_until = None, 0
    return True
