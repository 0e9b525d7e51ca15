"""Fleets on one shared capacity: never more than there is, and shared as they want."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
from redis import Redis

from celery_batcher.embedded import EmbeddedServer
from leasing import Fleet, Leasing, azure_leasing, memory_leasing, redis_leasing
from servers import AzuriteServer


@pytest.fixture(params=["memory", "redis"])
def leasing(request: pytest.FixtureRequest, unique: str) -> Leasing:
    """A store of each kind on a manual clock."""
    if request.param == "memory":
        return memory_leasing()
    return redis_leasing(request.getfixturevalue("redis_server").url, f"{unique}:")


def run(leasing: Leasing, fleets: list[Fleet], seconds: float, seen: Callable[[], None]) -> None:
    """Let fleets claim and do their rounds every 50 ms, in changing order."""
    rng = random.Random(7)
    for _ in range(round(seconds / 0.05)):
        for fleet in rng.sample(fleets, len(fleets)):
            fleet.claim()
            fleet.step()
            fleet.claim()
        seen()
        leasing.advance(0.05)


def jain(values: list[int]) -> float:
    """Jain's index: 1 when all are equal."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


@pytest.mark.parametrize(("count", "partitions"), [(2, 100), (5, 100), (3, 500)])
def test_equal_demands_get_equal_parts_of_all_there_is(
    leasing: Leasing, count: int, partitions: int
) -> None:
    fleets = [Fleet(leasing, f"f{at}", partitions).want(partitions) for at in range(count)]
    run(leasing, fleets, 5.0, lambda: None)
    held: list[int] = []

    def look() -> None:
        usable = [len(fleet.usable()) for fleet in fleets]
        held.append(sum(usable))
        assert jain(usable) >= 0.99

    run(leasing, fleets, 5.0, look)

    assert min(held) >= 0.97 * partitions


def test_a_newcomer_has_its_share_within_a_round_and_a_window(
    leasing: Leasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: most)  # rounds are never early
    old = [Fleet(leasing, f"old{at}", 90).want(90) for at in range(2)]
    run(leasing, old, 5.0, lambda: None)
    new = Fleet(leasing, "new", 90).want(90)
    began, reached = leasing.clock.monotonic(), []

    def look() -> None:
        if len(new.usable()) == 30:
            reached.append(leasing.clock.monotonic() - began)

    run(leasing, [*old, new], 3.0, look)

    assert reached[0] <= 0.5 + old[0].hold + 0.15  # a round, a hold, and ticks of 50 ms


def test_weights_and_small_demands_count(leasing: Leasing) -> None:
    fleets = [
        Fleet(leasing, "heavy", 90, weight=2).want(90),
        Fleet(leasing, "light", 90).want(1000),
        Fleet(leasing, "small", 90).want(6),
    ]
    run(leasing, fleets, 6.0, lambda: None)

    assert [len(fleet.usable()) for fleet in fleets] == [56, 28, 6]


def test_what_one_fleet_needs_no_more_is_the_others_after_a_round_and_a_window(
    leasing: Leasing,
) -> None:
    a, b = (Fleet(leasing, name, 40).want(40) for name in "ab")
    run(leasing, [a, b], 5.0, lambda: None)
    a.want(0)
    run(leasing, [a, b], 0.5 + a.hold + 0.15, lambda: None)

    assert len(b.usable()) == 40


def test_a_need_that_dips_and_rises_takes_nothing_from_what_is_in_use(leasing: Leasing) -> None:
    a, b = Fleet(leasing, "a", 2).want(2), Fleet(leasing, "b", 2).want(0)
    run(leasing, [a, b], 2.0, lambda: None)
    a.want(1)
    run(leasing, [a, b], 0.6, lambda: None)
    assert len(a.usable()) == 1
    a.want(2)
    run(leasing, [a, b], 0.3, lambda: None)
    assert len(a.usable()) == 2
    usable, rounds = [], len(a.manager.demands)
    run(leasing, [a, b], 5.0, lambda: usable.append(len(a.usable())))

    assert set(usable) == {2}
    assert all(demand.unused == {} for demand in a.manager.demands[rounds:])


def test_what_a_dead_fleet_had_is_the_others_when_its_leases_end(leasing: Leasing) -> None:
    a, b = (Fleet(leasing, name, 40).want(40) for name in "ab")
    run(leasing, [a, b], 5.0, lambda: None)
    run(leasing, [b], leasing.lease_time + 0.5 + 0.1, lambda: None)  # and a round

    assert len(b.usable()) == 40


def test_in_an_outage_fleets_keep_what_they_have_until_it_ends(leasing: Leasing) -> None:
    a, b = (Fleet(leasing, name, 40).want(40) for name in "ab")
    run(leasing, [a, b], 5.0, lambda: None)
    a.manager.lost = b.manager.lost = True
    run(leasing, [a, b], leasing.lease_time - a.hold - 0.6, lambda: None)
    kept = len(a.usable()), len(b.usable())
    run(leasing, [a, b], 2.0, lambda: None)
    after = a.resource.capacity(), b.resource.capacity()
    a.manager.lost = b.manager.lost = False
    run(leasing, [a, b], 6.0, lambda: None)

    assert (kept, after) == ((20, 20), (0, 0))
    assert (len(a.usable()), len(b.usable())) == (20, 20)
    assert [val for event, val in a.events if event == "error"] == [1]


def test_when_the_store_has_lost_its_leases_fleets_keep_what_they_have_until_it_ends(
    redis_server: EmbeddedServer, unique: str
) -> None:
    leasing = redis_leasing(redis_server.url, f"{unique}:")
    a, b = (Fleet(leasing, name, 40).want(40) for name in "ab")
    run(leasing, [a], 2.0, lambda: None)
    with Redis.from_url(redis_server.url) as client:
        client.delete(*client.keys(f"{unique}:*"))
    lost = leasing.clock.monotonic()
    seen: list[tuple[float, int, int]] = []

    def look() -> None:
        seen.append((leasing.clock.monotonic() - lost, len(a.usable()), len(b.usable())))
        assert a.held() + b.held() <= 40

    run(leasing, [a, b], 6.0, look)

    assert {row[1:] for row in seen if row[0] < 2.0} == {(40, 0)}
    assert {row[1:] for row in seen if 3.0 < row[0] < 4.0} == {(0, 0)}
    assert seen[-1][1:] == (20, 20)


def test_another_process_of_a_fleet_goes_on_without_a_gap(leasing: Leasing) -> None:
    a, b = (Fleet(leasing, name, 40).want(40) for name in "ab")
    run(leasing, [a, b], 5.0, lambda: None)
    held = a.usable()
    a.begin_turn()
    a.want(40)
    usable: list[set[int]] = []
    run(leasing, [a, b], 2.0, lambda: usable.append(a.usable()))

    assert all(one == held for one in usable)


class Chaos:
    """Fleets of which anything may happen to at any moment, and the one thing that must hold."""

    def __init__(self, leasing: Leasing, seed: int) -> None:
        self.leasing, self.rng = leasing, random.Random(seed)
        self.partitions = self.rng.choice([3, 10, 24])
        self.fleets = [
            Fleet(leasing, f"f{at}", self.partitions, window=self.rng.choice([1.0, 0.3]))
            for at in range(self.rng.randint(2, 4))
        ]
        self.acting: list[str] = []
        self.busiest = 0

    def work(self) -> None:
        """Let the workers of all fleets claim all that they are allowed to."""
        for fleet in self.rng.sample(self.fleets, len(self.fleets)):
            if self.rng.random() < 0.8:
                fleet.claim()
            held = sum(one.held() for one in self.fleets)
            assert held <= self.partitions
            self.busiest = max(self.busiest, held)

    def delay(self) -> None:
        """Let time go by in the middle of something, and others act."""
        for _ in range(self.rng.choice([0, 0, 0, 1, 3])):
            self.leasing.advance(self.rng.uniform(0, self.rng.choice([0.01, 0.2, 1.5])))
            self.work()
            if self.rng.random() < 0.2 and len(self.acting) < 3:
                self.act(self.rng.choice(self.fleets))

    def change(self, fleet: Fleet) -> None:
        """Change what a fleet wants, which process acts for it, or what it can reach."""
        happens = self.rng.random()
        if happens < 0.1:
            fleet.want(self.rng.choice([0, 0, 1, self.partitions // 2, 10 * self.partitions]))
        elif happens < 0.13 or fleet.owner in self.acting:
            fleet.begin_turn()
            fleet.want(self.partitions)
        elif happens < 0.16:
            fleet.manager.lost = not fleet.manager.lost
        fleet.manager.before = fleet.manager.after = self.delay

    def act(self, fleet: Fleet) -> None:
        self.change(fleet)
        if fleet.owner in self.acting:  # it is in the middle of something: that turn is over
            fleet.begin_turn()
        self.acting.append(fleet.owner)
        turn = fleet.turns

        def apply(ends: Mapping[int, float]) -> None:
            self.delay()
            if self.rng.random() < 0.05 or fleet.turns != turn:
                raise ConnectionError("the store is away, or the turn is another's")
            fleet.ends = ends
            if self.rng.random() < 0.05:
                raise ConnectionError("the answer is lost")
            self.delay()

        with suppress(ConnectionError):
            fleet.resource.step(fleet.owner, apply, turn=f"t{turn}", hold=fleet.hold)
        self.acting.pop()

    def run(self, steps: int) -> None:
        for fleet in self.fleets:
            fleet.want(self.partitions)
        for _ in range(steps):
            self.act(self.rng.choice(self.fleets))
            self.work()
            self.leasing.advance(self.rng.choice([0.01, 0.05, 0.1, 0.3]))
            self.work()
        assert self.busiest >= 0.8 * self.partitions


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_fleets_never_hold_more_than_there_is(leasing: Leasing, seed: int) -> None:
    Chaos(leasing, seed).run(400)


def test_whatever_happens_fleets_on_azure_never_hold_more_than_there_is(
    azurite_server: AzuriteServer, unique: str
) -> None:
    Chaos(azure_leasing(azurite_server, unique), 3).run(80)


def test_fleets_on_azure_share_as_well(azurite_server: AzuriteServer, unique: str) -> None:
    leasing = azure_leasing(azurite_server, unique)
    old = Fleet(leasing, "old", 12).want(12)
    run(leasing, [old], 3.0, lambda: None)
    assert len(old.usable()) == 12
    new = Fleet(leasing, "new", 12).want(12)
    run(leasing, [old, new], 4.0, lambda: None)

    assert (len(old.usable()), len(new.usable())) == (6, 6)
