"""Leases of a shared resource, in the store in memory."""

from __future__ import annotations

from .base import Leased, Limiter, Partition
from .memory_holds import limits_now
from .memory_index import reindex
from .memory_state import Act

LATELY = 10_000


def limiter(act: Act, token: str, ms: int, owner: str, need: int) -> Limiter:
    resource, term = act.resource, 0
    resource.owner = resource.owner or owner
    resource.needs[act.batcher] = need, act.now
    needs = sum(need for need, at in resource.needs.values() if act.now - at <= LATELY)
    if resource.limiter in {token, None} or resource.limiter_until <= act.now:
        resource.term += resource.limiter != token
        resource.limiter, resource.limiter_until = token, act.now + ms
        term = resource.term
    limits = limits_now(act)
    capacity = limits[0].state.limit.capacity if limits else 0
    hold_ms = limits[0].hold_ms if limits else 1000
    return Limiter(term, resource.owner, needs, capacity, resource.reserved, hold_ms, act.now)


def lease(act: Act, term: int, leases: Leased) -> bool:
    resource = act.resource
    if resource.term != term:
        return False
    resource.leases = dict(leases.partitions)
    resource.last, resource.lacking = leases.last, leases.lacking
    for name in act.state.watchers:
        reindex(act.state, name)
    return True


def yield_limiter(act: Act, token: str) -> bool:
    resource = act.resource
    if resource.limiter != token:
        return False
    resource.limiter_until = 0
    return True


def leases(act: Act) -> list[Partition]:
    resource = act.resource
    if resource.factor is None:
        return []
    return [
        Partition(
            number, resource.factor - resource.lacking * (number == resource.last), ends - act.now
        )
        for number, ends in sorted(resource.leases.items())
        if ends > act.now
    ]
