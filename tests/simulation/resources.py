"""The resource of a fleet, and what its operators do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from celery_batcher import ProvisionedResource
from celery_batcher.costs import PLAIN, Cost
from celery_batcher.resources.base import Resource
from celery_batcher.store.base import Leased
from celery_batcher.store.options import Limit, ResourceOptions

LONG = 10**9


@dataclass(frozen=True)
class Provision:
    """A resource as the code has it.

    ``factor`` is what a leased partition is worth; None: nothing is leased.
    """

    capacity: Any
    window: Any
    adaptive: bool = False
    ramp: Any = None
    factor: int | None = None
    reserved: int = 0

    @classmethod
    def drawn(cls, random: Random) -> Provision | None:
        most = random.choice((3, 8, 20))
        window = random.choice((0.5, 1.0))
        later = random.choice((2 * window, 4 * window, 60.0))
        kind = random.choice(("none", "plain", "windows", "dimensions", "leased"))
        if kind == "none":
            return None
        if kind == "leased":
            return cls(most, window, factor=1 + most // 3, reserved=random.choice((0, 1)))
        capacity: Any = most
        length: Any = window
        if kind == "windows":
            capacity, length = (most, 2 * most), (window, later)
        elif kind == "dimensions":
            capacity = {"a": most, "b": random.choice((most // 2, 3 * most))}
            length = {"a": window, "b": random.choice((window, later))}
        ramp = random.choice((None, None, (max(1, most // 5), 0.2)))
        return cls(capacity, length, random.random() < 0.4, ramp)

    def resource(self) -> Resource:
        """A resource for the batcher of a process."""
        if self.factor is not None:
            return LeasedResource(self)
        return ProvisionedResource(
            self.capacity, name="r", window=self.window, adaptive=self.adaptive, ramp=self.ramp
        )

    def costs(self, random: Random) -> tuple[Cost, ...]:
        """What operations cost."""
        most = self.resource().max_capacity()
        if isinstance(most, Mapping):
            dear = {name: random.choice((1, 2, one)) for name, one in most.items()}
            return {"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 2}, dear
        return (0, 1, 1, random.choice((1, 2, most)))

    def figures(self, random: Random) -> list[int]:
        """What an operator sets the capacities to: less, more, nothing, or what they were."""
        change = random.choice((lambda one: 1 + one // 2, lambda one: 2 * one, lambda _: 0, int))
        alone = random.choice((None, 0))
        return [
            change(one.capacity) if alone in {None, n} else one.capacity
            for n, one in enumerate(self.resource().limits())
        ]

    def leases(self, random: Random, now_ms: int) -> Leased:
        """Some partitions, for a while; the last one is worth less."""
        partitions = range(-(-self.capacity // (self.factor or 1)))
        most = random.choice((300, 1500, 6000))
        leased = {
            at: now_ms + random.randint(0, most) for at in partitions if random.random() < 0.7
        }
        return Leased(leased, partitions[-1], len(partitions) * (self.factor or 1) - self.capacity)

    def all_leases(self, now_ms: int) -> Leased:
        """All partitions, for longer than anything takes."""
        return Leased(dict.fromkeys(range(4 * self.capacity), now_ms + LONG))


class LeasedResource:
    """What a store must know of a `SharedResource`; the schedule leases by itself."""

    name = "r"
    dimensions = PLAIN

    def __init__(self, provision: Provision) -> None:
        self._provision = provision

    def capacity(self) -> object:
        """The capacity per window, as the code has it."""
        return self._provision.capacity

    def max_capacity(self) -> Cost:
        """The most that an operation may cost."""
        most: int = self._provision.capacity + self._provision.reserved
        return most

    def limits(self) -> tuple[Limit, ...]:
        """Its one limit."""
        return (Limit(1, int(self.max_capacity()), round(self._provision.window * 1000)),)  # type: ignore[call-overload]

    def options(self) -> ResourceOptions:
        """What else the store must know."""
        return ResourceOptions(factor=self._provision.factor, reserved=self._provision.reserved)

    def bind(self, _: Any) -> None:
        """It needs nothing of its batcher."""
