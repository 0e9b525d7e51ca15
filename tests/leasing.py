"""What tests of leases are built from: a store of each kind, and fleets that use leases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery_batcher.clock import Clock, ManualClock, SystemClock
from celery_batcher.errors import LeaseStoreUnavailableError
from celery_batcher.events import Listener
from celery_batcher.leases import (
    AzureBlobLeaseManager,
    Demand,
    LeaseManager,
    Leases,
    MemoryLeaseManager,
    RedisLeaseManager,
)
from celery_batcher.leases.sharing import Board
from celery_batcher.resources import SharedResource
from servers import AzuriteServer

GRACE = 0.01


@dataclass
class Leasing:
    """One store of leases; `manager` is what another process would make for itself."""

    clock: Clock
    manager: Callable[[], LeaseManager]
    lease_time: float

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.wait(threading.Event(), seconds)


def memory_leasing() -> Leasing:
    clock, board = ManualClock(), Board()
    return Leasing(clock, lambda: MemoryLeaseManager(clock=clock, board=board), 4.0)


def redis_leasing(url: str, prefix: str) -> Leasing:
    clock = ManualClock()

    def manager() -> LeaseManager:
        return RedisLeaseManager(url, name="shared", prefix=prefix, clock=clock)

    # A server that does not know what it leased leases nothing for a while.
    first = manager()
    first.provision(1)
    assert first.lease("first", Demand(0)).guarded
    clock.advance(first.lease_time)
    return Leasing(clock, manager, first.lease_time)


def azure_leasing(server: AzuriteServer, container: str) -> Leasing:
    def manager() -> LeaseManager:
        return AzureBlobLeaseManager(server.url, container=container, master_key=server.KEY)

    return Leasing(SystemClock(), manager, 15.0)


class Faulty:
    """A manager whose requests a test delays, loses, and looks into."""

    def __init__(self, manager: LeaseManager) -> None:
        self.manager = manager
        self.lease_time, self.fair = manager.lease_time, manager.fair
        self.before: Callable[[], Any] = lambda: None
        self.after: Callable[[], Any] = lambda: None
        self.lost = False
        self.demands: list[Demand] = []

    def provision(self, partitions: int) -> None:
        if self.lost:
            raise LeaseStoreUnavailableError("lost")
        self.manager.provision(partitions)

    def lease(self, owner: str, demand: Demand) -> Leases:
        self.demands.append(demand)
        self.before()
        if self.lost:
            raise LeaseStoreUnavailableError("lost")
        leases = self.manager.lease(owner, demand)
        self.after()
        return leases

    def release(self, owner: str) -> None:
        self.manager.release(owner)

    def raise_events_to(self, listener: Listener) -> None:
        self.manager.raise_events_to(listener)


@dataclass
class Fleet:
    """A fleet with a store of its own: leases are applied there, and claims are checked there.

    A partition is worth 1, and so is a claim.
    """

    leasing: Leasing
    owner: str
    partitions: int
    weight: int = 1
    window: float = 1.0
    ends: Mapping[int, float] = field(default_factory=dict)
    holds: list[float] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        self.begin_turn()

    @property
    def hold(self) -> float:
        return self.window + GRACE

    def begin_turn(self) -> None:
        """Let another process act for the fleet."""
        self.turns += 1
        self.manager = Faulty(self.leasing.manager())
        self.resource = SharedResource(
            self.partitions,
            lease_manager=self.manager,
            window=self.window,
            clock=self.leasing.clock,
        )
        self.resource.raise_events_to(
            lambda event, val, msg, data: self.events.append((event, val))
        )

    def want(self, partitions: int) -> Fleet:
        self.resource.give_me(partitions)
        return self

    def step(self) -> Fleet:
        self.resource.step(
            self.owner, self.apply, turn=f"t{self.turns}", hold=self.hold, weight=self.weight
        )
        return self

    def apply(self, ends: Mapping[int, float]) -> None:
        self.ends = ends

    def usable(self) -> set[int]:
        """Partitions that a claim may count on now."""
        now = self.leasing.clock.monotonic()
        return {at for at, end in self.ends.items() if end >= now + self.hold}

    def claim(self) -> int:
        """Start as much as is allowed now; what is started is held until it ends."""
        now = self.leasing.clock.monotonic()
        self.holds = [end for end in self.holds if end > now]
        free = len(self.usable()) - len(self.holds)
        self.holds += [now + self.hold] * max(0, free)
        return max(0, free)

    def held(self) -> int:
        """What is held now."""
        now = self.leasing.clock.monotonic()
        return sum(end > now for end in self.holds)
