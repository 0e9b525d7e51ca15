"""What a store holds of a resource, in one form for both stores."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from celery_batcher.store.memory import MemoryServer


@dataclass(slots=True)
class Holds:
    """Holds, counters and debts of a resource, by limit; and of unclaimed batches, by dimension.

    Attributes:
        rows: the cost of what ends at a time.
        held: what the counters say that they sum up to.
        open: what the counters say of unclaimed batches.
        unclaimed: what these batches cost.
    """

    rows: list[dict[int, int]] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    debts: list[int] = field(default_factory=list)
    open: Counter[int] = field(default_factory=Counter)
    unclaimed: Counter[int] = field(default_factory=Counter)

    def wrong(self) -> list[str]:
        """Counters that differ from the data."""
        found = []
        for n, (rows, held) in enumerate(zip(self.rows, self.held, strict=True), 1):
            if sum(rows.values()) != held:
                found.append(f"held of limit {n} is {held}, the data say {sum(rows.values())}")
            found += [f"a hold of limit {n} is {cost}" for cost in rows.values() if cost < 0]
        if +self.open != +self.unclaimed or any(cost < 0 for cost in self.open.values()):
            found.append(f"open is {dict(self.open)}, the data say {dict(self.unclaimed)}")
        return found


def holds_of_memory(server: MemoryServer, name: str) -> Holds:
    """What a memory store holds of a resource, for all of its batchers."""
    resource, holds = server.resources[name], Holds()
    for limit in resource.limits:
        holds.rows.append(dict(limit.ends))
        holds.held.append(limit.held)
        holds.debts.append(limit.debt)
    holds.open.update(resource.open)
    for (own, _), state in server.batchers.items():
        for batch in state.batches.values():
            if own == name and batch.limited and batch.nonce is None:
                holds.unclaimed.update(dict(enumerate(batch.costs, 1)))
    return holds


def holds_of_redis(client: Any, shared: str, limits: int, dimensions: int) -> Holds:
    """What a Redis store holds of the resource whose keys begin so."""
    batches = sorted(client.keys(_escaped(shared) + "*:batch:*"))
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(f"{shared}res")
    for n in range(1, limits + 1):
        pipeline.zrange(f"{shared}{_nth('ends', n)}", 0, -1)
        pipeline.hgetall(f"{shared}{_nth('costs', n)}")
    for key in batches:
        pipeline.hmget(key, "state", "held", "costs", "cost")
    res, *rows = pipeline.execute()
    holds = Holds()

    def counter(name: str, n: int) -> int:
        return int(res.get(_nth(name, n).encode(), 0))

    for n in range(1, limits + 1):
        ends, costs = rows[2 * n - 2 : 2 * n]
        held = {int(at): int(cost) for at, cost in costs.items()}
        if {int(at) for at in ends} != held.keys():
            held[-n] = -1  # a row that is in one of the two only is as wrong as a hold below 0
        holds.rows.append(held)
        holds.held.append(counter("held", n))
        holds.debts.append(counter("debt", n))
    holds.open.update({n: counter("open", n) for n in range(1, dimensions + 1)})
    for state, limited, costs, cost in rows[2 * limits :]:
        if state != b"claimed" and limited == b"1":
            holds.unclaimed.update(_numbered(costs or cost))
    return holds


def _numbered(costs: bytes) -> dict[int, int]:
    return {at: int(cost) for at, cost in enumerate(costs.split(), 1)}


def _nth(name: str, n: int) -> str:
    return name if n == 1 else f"{name}#{n}"


def _escaped(pattern: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\" else one for one in pattern)
