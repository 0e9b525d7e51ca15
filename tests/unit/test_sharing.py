"""Batchers of one resource under lag: what each gets, and that together they never get too much."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builders import BACKFILL, NORMAL, START_MS
from celery_batcher.store.options import Limit, Limits, ResourceOptions, WatcherOptions
from fleet import Fleet, Member

pytestmark = pytest.mark.long

SECOND = 1_000_000
MS = 1000
LAG = (0, 10 * MS)

bounded = settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])


def busy(fleet: Fleet, name: str, cost: int = 10, seconds: int = 12, **shares: float) -> Member:
    """A batcher with more work than the whole capacity lets through, flushed every 100 ms."""
    member = fleet.member(name, WatcherOptions("w", max_batch_size=500), **shares)
    fill(member, cost, seconds)
    start(member, seconds)
    return member


def fill(member: Member, cost: int = 10, seconds: int = 12, priority: int = NORMAL) -> None:
    capacity = member.limits.capacity or 0
    member.put([cost] * (seconds * capacity // max(1, cost) + 10), priority=priority)


def start(member: Member, seconds: int) -> None:
    """Flush it at times of its own, as its turn would."""
    until = member.fleet.clock.us + seconds * SECOND
    late = member.fleet.random.randint(0, 99)
    member.fleet.at(member.fleet.clock.us + late * MS, lambda: member.tick(100, until))


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1 / n when one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(one * one for one in shares))


# Never too much


@bounded
@given(
    seed=st.integers(0, 2**32),
    capacities=st.tuples(*[st.integers(1, 300)] * 3),
    later_ms=st.sampled_from([300, 2000]),
    weights=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    floor=st.sampled_from([0.0, 0.2, 0.5]),
    lag_ms=st.sampled_from([0, 10, 400]),
    changes=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 300)), max_size=3),
)
@example(  # what a floor had earned was a rounding error less than the operation: an empty batch
    seed=1478696,
    capacities=(71, 1, 1),
    later_ms=300,
    weights=[1, 1],
    floor=0.0,
    lag_ms=0,
    changes=[],
)
def test_g3_no_window_of_any_limit_has_more_whoever_shares_it(  # noqa: PLR0917
    seed: int,
    capacities: tuple[int, int, int],
    later_ms: int,
    weights: list[int],
    floor: float,
    lag_ms: int,
    changes: list[tuple[int, int]],
) -> None:
    first, second, third = capacities
    limits = Limits(
        capacity=first,
        others=(Limit(1, 2 * first, later_ms), Limit(2, second, 500), Limit(2, third, later_ms)),
        resource=ResourceOptions(dimensions=("a", "b")),
    )
    fleet = Fleet(seed, limits, (0, 300), (0, 9 * MS), (0, lag_ms * MS), 0.5, 0.2)
    random = fleet.random
    for at, weight in enumerate(weights):
        watcher = WatcherOptions("w", max_batch_size=20)
        member = fleet.member(f"b{at}", watcher, weight=weight, floor=floor / len(weights))
        for priority in (NORMAL, BACKFILL):
            costs = [random.randint(0, 1 + first // 3) for _ in range(100)]
            member.put(costs, priority=priority, further=(random.randint(0, 1 + second // 3),))
        start(member, 6)
    after_ms = 0
    for delay_ms, new in changes:
        after_ms += delay_ms
        figures = (new, 2 * new, random.randint(0, 300), third)
        fleet.at((START_MS + after_ms) * MS, lambda to=figures: fleet.set_capacity(*to))
    for _ in range(20):
        due = START_MS * MS + random.randint(0, 6 * SECOND)
        fleet.at(due, random.choice(fleet.members).flush)

    fleet.advance(7 * SECOND)

    assert fleet.starts or changes or min(capacities) < 20
    assert fleet.overshoots() == []


# Fair shares


@pytest.mark.parametrize(("batchers", "cost"), [(2, 1), (3, 10), (5, 10), (2, 90)])
def test_g6_equal_batchers_have_equal_shares(batchers: int, cost: int) -> None:
    fleet = Fleet(batchers, Limits(capacity=1000), lag_us=LAG)
    for at in range(batchers):
        busy(fleet, f"b{at}", cost)

    fleet.advance(12 * SECOND)

    shares = [fleet.used(2 * SECOND, 12 * SECOND, one.name) for one in fleet.members]
    assert jain(shares) >= 0.99
    assert sum(shares) >= 0.98 * 10 * (1000 // cost * cost)
    assert fleet.overshoots() == []


@pytest.mark.parametrize("costs", [(10, 10), (10, 50), (50, 10)])
def test_g6_batchers_share_by_weight_whatever_their_operations_cost(costs: tuple[int, int]) -> None:
    fleet = Fleet(7, Limits(capacity=1000), lag_us=LAG)
    busy(fleet, "heavy", costs[0], 22, weight=3)
    busy(fleet, "light", costs[1], 22)

    fleet.advance(22 * SECOND)

    heavy, light = (fleet.used(2 * SECOND, 22 * SECOND, one) for one in ("heavy", "light"))
    assert heavy / light == pytest.approx(3, rel=0.05)
    assert fleet.overshoots() == []


@pytest.mark.parametrize("before", [1, 3])
def test_a_newcomer_has_nine_tenths_of_its_share_within_two_windows(before: int) -> None:
    fleet = Fleet(3, Limits(capacity=1000), lag_us=LAG)
    for at in range(before):
        busy(fleet, f"b{at}")
    fleet.advance(4 * SECOND)
    busy(fleet, "new")

    fleet.advance(4 * SECOND)

    assert fleet.used(6 * SECOND, 7 * SECOND, "new") >= 0.9 * 1000 / (before + 1)
    assert fleet.overshoots() == []


def test_who_comes_back_has_saved_nothing_up() -> None:
    fleet = Fleet(3, Limits(capacity=1000), lag_us=LAG)
    busy(fleet, "away")
    fleet.members[0].put([1])
    fleet.advance(20 * SECOND)  # it has none left
    busy(fleet, "there", seconds=20)
    fleet.advance(8 * SECOND)
    fill(fleet.members[0])
    start(fleet.members[0], 10)

    fleet.advance(8 * SECOND)

    assert fleet.used(30 * SECOND, 36 * SECOND, "there") >= 0.95 * 3000


def test_a_floor_is_kept_under_a_flood() -> None:
    fleet = Fleet(3, Limits(capacity=1000), lag_us=LAG)
    for at in range(4):
        busy(fleet, f"flood{at}", weight=5)
    busy(fleet, "floor", floor=0.3)

    fleet.advance(12 * SECOND)

    assert fleet.used(2 * SECOND, 12 * SECOND, "floor") >= 0.97 * 3000
    assert fleet.used(2 * SECOND, 12 * SECOND) >= 0.98 * 10_000
    assert fleet.overshoots() == []


@pytest.mark.parametrize("there", [300, 1000])
def test_back_fills_have_what_others_leave_and_at_least_their_floor(there: int) -> None:
    fleet = Fleet(3, Limits(capacity=1000), lag_us=LAG)
    filler = fleet.member("fill", backfill_floor=0.1)
    fill(filler, priority=BACKFILL)
    start(filler, 12)
    others = fleet.member("others")
    for tenth in range(120):
        due = fleet.clock.us + tenth * 100 * MS
        fleet.at(due, lambda: others.put([10] * (there // 100)))
    start(others, 12)

    fleet.advance(12 * SECOND)

    theirs, filled = (fleet.used(2 * SECOND, 12 * SECOND, one) for one in ("others", "fill"))
    left = 10 * max(100, 1000 - there)
    assert filled == pytest.approx(left, rel=0.06)
    assert theirs >= 0.97 * min(10 * there, 10_000 - left)
    assert fleet.overshoots() == []


# Nearly all of it


@pytest.mark.parametrize(
    ("capacity", "cost", "fit"),
    [(2000, 1, 2000), (10_000, 10, 10_000), (9, 1, 9), (1000, 900, 900)],
)
@pytest.mark.parametrize("batchers", [1, 2])
def test_g4_nearly_all_is_used_however_many_share_it(
    capacity: int, cost: int, fit: int, batchers: int
) -> None:
    fleet = Fleet(5, Limits(capacity=capacity), lag_us=LAG if capacity > 9 else (0, 0))
    for at in range(batchers):
        busy(fleet, f"b{at}", cost)

    fleet.advance(12 * SECOND)

    assert fleet.used(2 * SECOND, 12 * SECOND) >= 0.98 * 10 * fit - fit
    assert fleet.overshoots() == []


def test_manual_flushes_every_thirty_milliseconds_bring_nobody_more() -> None:
    fleet = Fleet(5, Limits(capacity=1000), lag_us=LAG)
    eager, patient = busy(fleet, "eager", 10), busy(fleet, "patient", 10)
    eager.tick(30, START_MS * MS + 12 * SECOND)

    fleet.advance(12 * SECOND)

    shares = [fleet.used(2 * SECOND, 12 * SECOND, one.name) for one in (eager, patient)]
    assert jain(shares) >= 0.99
    assert sum(shares) >= 0.98 * 10_000
    assert fleet.overshoots() == []
