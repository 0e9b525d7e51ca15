"""The limiter in a turn: what is needed is leased, between fleets that share nothing but leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from celery_batcher import (
    Batcher,
    MemoryLeaseManager,
    SharedResource,
    StoreUnavailableError,
)
from celery_batcher.leases.memory import Board
from celery_batcher.store import memory
from in_memory import InMemory

pytestmark = pytest.mark.long

FIGURES = {"factor": 10, "max_interval": 0.1, "window": 0.99}


class Fleet:
    """An app with a store of its own, that shares a capacity by leases."""

    def __init__(self, clock: Any, board: Board, **figures: Any) -> None:
        self.site = InMemory()
        self.site.clock = clock
        memory._servers[self.site.url] = memory.MemoryServer(clock)
        manager = MemoryLeaseManager(lease_time=4.0, clock=clock, board=board)
        self.resource = SharedResource(
            100, lease_manager=manager, clock=clock, **(FIGURES | figures)
        )
        self.batcher: Batcher = self.site.batcher(flush_mode="tick", rate_limiter=self.resource)
        self.starts: list[tuple[float, int]] = []
        self.heard: list[tuple[str, int]] = []
        self.batcher.add_listener(lambda event, val, *_: self.heard.append((event, val)))

        @self.batcher.watcher(name="write")
        def write(batch: Any) -> None:
            self.starts.append((clock.monotonic(), batch.cost))

        self.write = write

    def tick(self) -> None:
        self.batcher.limit()
        with patch.object(self.batcher._duties.limiter, "step_apart"):  # it was done just now
            self.batcher.tick()
        self.site.work()


class Fleets:
    """Some of them, on one clock."""

    def __init__(self) -> None:
        self.board = Board()
        self.fleets: list[Fleet] = []
        self.site = InMemory()
        self.clock = self.site.clock

    def add(self, **figures: Any) -> Fleet:
        self.fleets.append(Fleet(self.clock, self.board, **figures))
        return self.fleets[-1]

    def run(self, seconds: float) -> list[int]:
        """Let time pass; return what each fleet started in it."""
        since = self.clock.monotonic()
        for _ in range(round(seconds * 20)):
            for fleet in self.fleets:
                fleet.tick()
            self.clock.advance(0.05)
        return [sum(cost for at, cost in one.starts if at >= since) for one in self.fleets]

    def worst_window(self) -> int:
        starts = sorted(start for fleet in self.fleets for start in fleet.starts)
        return max(
            sum(cost for at, cost in starts if first <= at < first + 0.99) for first, _ in starts
        )

    def close(self) -> None:
        for site in (self.site, *(one.site for one in self.fleets)):
            site.close()


@pytest.fixture
def fleets() -> Iterator[Fleets]:
    several = Fleets()
    yield several
    several.close()


def test_a_fleet_leases_what_it_needs_and_gives_it_back(fleets: Fleets) -> None:
    fleet = fleets.add()
    fleet.write.enqueue_many(range(35))
    fleets.run(0.05)

    assert ("target", 35) in fleet.heard
    assert [val for event, val in fleet.heard if event == "allocated"] == [0, 1, 2, 3]
    assert fleet.resource.capacity() == 40
    assert fleet.batcher.status().capacity == 100

    fleets.run(3)
    assert fleet.batcher.needs_capacity() == 0
    fleets.run(6)
    assert fleet.resource.capacity() == 0
    assert [event for event, _ in fleet.heard].count("released") == 4


def test_two_fleets_share_the_capacity_and_never_have_more(fleets: Fleets) -> None:
    one, two = fleets.add(), fleets.add()
    for fleet in (one, two):
        fleet.write.enqueue_many(range(3000))
    fleets.run(4)

    totals = fleets.run(10)

    assert fleets.worst_window() <= 100
    assert sum(totals) >= 0.9 * 1000
    assert min(totals) >= 0.9 * max(totals)


def test_a_newcomer_has_its_share_a_window_later(fleets: Fleets) -> None:
    one = fleets.add()
    one.write.enqueue_many(range(3000))
    fleets.run(4)
    two = fleets.add()
    two.write.enqueue_many(range(3000))
    fleets.run(2)

    totals = fleets.run(4)

    assert min(totals) >= 0.9 * max(totals)
    assert fleets.worst_window() <= 100


def test_what_is_reserved_needs_no_lease(fleets: Fleets) -> None:
    fleet = fleets.add(reserved_capacity=7)
    fleet.write.enqueue_many(range(7))
    fleets.run(0.2)

    assert sum(cost for _, cost in fleet.starts) == 7
    assert not any(event == "allocated" for event, _ in fleet.heard)


def test_figures_that_are_set_are_the_whole_fleets(fleets: Fleets) -> None:
    fleet = fleets.add()
    fleet.tick()
    fleet.resource.set_shared_capacity(55)
    fleet.resource.set_reserved_capacity(3)
    fleet.write.enqueue_many(range(500))
    fleets.run(3)
    assert fleet.resource.capacity() == 58
    assert fleet.batcher.store.counts().limits[0].usable == 58

    elsewhere = SharedResource(100, lease_manager=MemoryLeaseManager(), **FIGURES)  # type: ignore[arg-type]
    another = fleet.site.batcher("b2", rate_limiter=elsewhere)
    given = another.store.limiter("nobody", 1, "x")
    assert (given.capacity, given.reserved) == (0, 0)  # its resource is its own: another name


def test_figures_that_the_store_did_not_take_are_not_taken_here(fleets: Fleets) -> None:
    fleet = fleets.add()
    fleet.tick()
    away = StoreUnavailableError("away")
    with patch.object(type(fleet.batcher.store), "set_capacity", side_effect=away):
        for change in (fleet.resource.set_shared_capacity, fleet.resource.set_reserved_capacity):
            with pytest.raises(StoreUnavailableError):
                change(55)

    assert fleet.resource.max_capacity() == 100
    assert fleet.resource.reserved_capacity == 0


def test_one_process_of_a_fleet_leases_and_another_goes_on_with_its_leases(
    fleets: Fleets,
) -> None:
    fleet = fleets.add()
    fleet.write.enqueue_many(range(3000))
    fleets.run(2)
    assert fleet.resource.capacity() == 100
    before = fleet.batcher.store.limiter("nobody", 1, "x")

    fleet.batcher._duties.limiter._token = "another process"
    totals = fleets.run(4)

    assert fleets.worst_window() <= 100
    assert sum(totals) >= 0.8 * 400
    assert fleet.batcher.store.limiter("nobody", 1, "x").owner == before.owner
