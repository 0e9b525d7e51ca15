"""The audit of the store in memory: all of it in one step, as nothing can change meanwhile."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..wire import PRIORITIES
from .counts import AuditStep, Difference

if TYPE_CHECKING:
    from .memory_state import BatcherState, ResourceState, WatcherState

TIMES = 3
"""Passes on end that must see a difference before it is repaired."""


@dataclass(slots=True)
class AuditState:
    """What the audit remembers between passes."""

    number: int = 0
    began_ms: int | None = None
    id: str = ""
    step: AuditStep = field(default_factory=lambda: AuditStep(0))
    repaired: int = 0
    seen: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """By counter: the difference, how many passes on end saw it, the newest of them."""

    def ripe(self, counter: Counter, by: int) -> bool:
        """Whether this difference was seen often enough."""
        known, times, number = self.seen.get(counter.id, (0, 0, 0))
        times = times + 1 if known == by and number == self.number - 1 else 1
        self.seen[counter.id] = by, times, self.number
        return times >= TIMES


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter, where it is, and what the data say."""

    name: str
    watcher: str
    owner: Any
    field: str | int
    recorded: int

    @property
    def id(self) -> tuple[str, str]:
        return self.name, self.watcher

    @property
    def counted(self) -> int:
        if isinstance(self.field, int):
            return int(self.owner[self.field])
        return int(getattr(self.owner, self.field))

    def repair(self) -> None:
        if isinstance(self.field, int):
            self.owner[self.field] = self.recorded
        else:
            setattr(self.owner, self.field, self.recorded)


def audit(audit: AuditState, counters: Iterator[Counter], wait_ms: int) -> AuditStep:
    """Compare counters with the data; repair what was seen often enough."""
    audit.number += 1
    differences: list[Difference] = []
    compared = 0
    for one in counters:
        compared += 1
        counted = one.counted
        if counted == one.recorded:
            audit.seen.pop(one.id, None)
            continue
        repaired = audit.ripe(one, counted - one.recorded)
        if repaired:
            one.repair()
            del audit.seen[one.id]
            audit.repaired += 1
        differences.append(Difference(one.name, one.watcher, counted, one.recorded, repaired))
    return AuditStep(wait_ms, True, compared, len(differences), tuple(differences))


def counters_of(
    state: BatcherState, resource: ResourceState, open_holds: Mapping[int, int]
) -> Iterator[Counter]:
    """All counters of a batcher, and of what its resource holds; open holds by dimension."""
    for n, limit in enumerate(resource.limits, 1):
        yield Counter(_nth("held", n), "", limit, "held", sum(limit.ends.values()))
    for dimension in sorted({*resource.open, *open_holds}):
        name, recorded = _nth("held_open", dimension), open_holds.get(dimension, 0)
        yield Counter(name, "", resource.open, dimension, recorded)
    for name, watcher in state.watchers.items():
        yield from _of_watcher(state, name, watcher)


def _nth(name: str, n: int) -> str:
    return name if n == 1 else f"{name}#{n}"


def _of_watcher(state: BatcherState, name: str, watcher: WatcherState) -> Iterator[Counter]:
    waiting = [
        one
        for queue in watcher.queues.values()
        for one in (*queue.arrived, *queue.returned.values())
    ]
    aside = [group for key in watcher.keys.values() for group in key.aside]
    together = [one for group in (*watcher.together, *aside) for one in group]
    batches = [batch for batch in state.batches.values() if batch.watcher == name]
    unclaimed = [batch for batch in batches if batch.nonce is None]
    cost = sum(one.entry.cost for one in (*waiting, *together))
    messages = sum(1 for one, _ in state.admitted.values() if one.watcher == name)
    yield Counter("waiting", name, watcher, "waiting", len(waiting) + len(together))
    yield Counter("waiting_cost", name, watcher, "waiting_cost", cost)
    by_priority = Counts(one.entry.priority for one in waiting)
    for at, priority in enumerate(PRIORITIES):
        n = by_priority[at]
        yield Counter(f"waiting_{priority}", name, watcher.by_priority, at, n)
    yield Counter("open_batches", name, watcher, "open", len(unclaimed))
    yield Counter("open_cost", name, watcher, "open_cost", sum(one.cost for one in unclaimed))
    yield Counter("running_batches", name, watcher, "claimed", len(batches) - len(unclaimed))
    yield Counter("admitted_messages", name, watcher, "admitted", messages)
