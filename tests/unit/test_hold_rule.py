"""G3 and G4: never more than the capacity in any window of handler starts, and nearly all of it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import START_MS
from celery_batcher.store.options import Limits, WatcherOptions
from fleet import Fleet, Member

pytestmark = pytest.mark.long

SECOND = 1_000_000
MS = 1000

bounded = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def saturated(fleet: Fleet, cost: int, seconds: int, *, size: int = 500) -> Member:
    """A batcher with more work than the capacity lets through."""
    member = fleet.member("one", WatcherOptions("w", max_batch_size=size))
    capacity = fleet.limits.capacity or 0
    member.put([cost] * (seconds * capacity // cost + size))
    return member


# G3, random


@bounded
@given(
    seed=st.integers(0, 2**32),
    capacity=st.integers(1, 1000),
    dear=st.floats(0.001, 1.0),
    flush_ms=st.sampled_from([7, 30, 100, 250]),
    grace_ms=st.sampled_from([2, 10]),
    lag_ms=st.sampled_from([0, 1, 10, 400]),
    reply_us=st.sampled_from([0, 900, 9_900, 10_100, 40_000]),
    batchers=st.integers(1, 3),
    twice=st.sampled_from([0.0, 0.5]),
    changes=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 1000)), max_size=5),
    stall_ms=st.sampled_from([0, 0, 700, 3000]),
)
def test_g3_in_every_window_of_handler_starts_cost_is_at_most_the_capacity(  # noqa: PLR0917
    seed: int,
    capacity: int,
    dear: float,
    flush_ms: int,
    grace_ms: int,
    lag_ms: int,
    reply_us: int,
    batchers: int,
    twice: float,
    changes: list[tuple[int, int]],
    stall_ms: int,
) -> None:
    limits = Limits(capacity=capacity, flush_ms=flush_ms, grace_ms=grace_ms)
    fleet = Fleet(
        seed,
        limits,
        request_us=(0, 300),
        reply_us=(0, min(reply_us, 900 * grace_ms)),
        lag_us=(0, lag_ms * MS),
        prompt=0.5,
        twice=twice,
    )
    random = fleet.random
    until = START_MS * MS + 5 * SECOND
    for number in range(batchers):
        member = fleet.member(f"batcher{number}", WatcherOptions("w", max_batch_size=50))
        most = max(1, int(capacity * dear))
        member.put([random.randint(0, most) for _ in range(random.randint(1, 400))])
        member.tick(flush_ms, until)
    after_ms = 0
    for delay_ms, new in changes:
        after_ms += delay_ms
        fleet.at((START_MS + after_ms) * MS, lambda new=new: fleet.set_capacity(new))
    for _ in range(20):  # manual flushes at any time, and a stall of all workers
        due = START_MS * MS + random.randint(0, 5 * SECOND)
        fleet.at(due, random.choice(fleet.members).flush)
    for second in range(20):
        for member in fleet.members:
            fleet.at(START_MS * MS + second * SECOND // 4, member.upkeep)
    # From here on every reply takes longer than the grace, now and then.
    fleet.at(START_MS * MS + 2 * SECOND, lambda: setattr(fleet, "reply_us", (0, reply_us)))
    fleet.at(START_MS * MS + SECOND, lambda: fleet.advance(stall_ms * MS))

    fleet.advance(5 * SECOND)

    assert fleet.overshoots() == []


@pytest.mark.parametrize("cost", [10, 900])
def test_g3_workers_that_stalled_for_five_seconds_do_not_burst(cost: int) -> None:
    fleet = Fleet(1, Limits(capacity=10_000), lag_us=(0, 5 * MS))
    member = saturated(fleet, cost, 4)
    member.tick(100, START_MS * MS + 9 * SECOND)
    fleet.at(START_MS * MS + SECOND, lambda: setattr(fleet, "lag_us", (5 * SECOND, 5 * SECOND)))
    fleet.at(START_MS * MS + 6 * SECOND, lambda: setattr(fleet, "lag_us", (0, 0)))

    fleet.advance(9 * SECOND)

    assert fleet.overshoots() == []
    assert fleet.used(7 * SECOND, 9 * SECOND) > 10_000


def test_g3_a_handler_that_starts_at_the_last_moment_of_the_grace_is_covered() -> None:
    limits = Limits(capacity=10, flush_ms=1000)
    fleet = Fleet(1, limits, request_us=(50, 50), reply_us=(9_900, 9_900))
    member = fleet.member("one")
    member.put([10, 10])
    fleet.advance(900)  # the claim falls in the last part of a millisecond
    member.flush()
    fleet.at(fleet.clock.us + 5 * MS, lambda: setattr(fleet, "reply_us", (0, 0)))
    fleet.advance(20 * MS)
    assert [one.start - one.claim for one in fleet.starts] == [9_950]
    fleet.request_us = fleet.reply_us = (0, 0)
    member.flush()
    fleet.advance(3 * SECOND)

    assert len(fleet.starts) == 2
    assert fleet.overshoots() == []


def test_g3_a_late_start_renews_its_hold() -> None:
    fleet = Fleet(1, Limits(capacity=10, flush_ms=1000), reply_us=(5_000, 12_000))
    member = fleet.member("one")
    member.put([10] * 20)
    member.tick(50, START_MS * MS + 30 * SECOND)

    fleet.advance(30 * SECOND)

    assert len(fleet.starts) == 20
    assert fleet.overshoots() == []


def test_g3_a_handler_that_starts_after_its_hold_has_ended_gives_its_batch_back() -> None:
    fleet = Fleet(1, Limits(capacity=10, flush_ms=1000), reply_us=(2 * SECOND, 2 * SECOND))
    member = fleet.member("one", WatcherOptions("w", max_attempts=1))
    member.put([10])
    member.flush()
    fleet.advance(3 * SECOND)
    assert fleet.starts == []
    fleet.reply_us = (0, 0)

    member.flush()
    fleet.advance(SECOND)

    assert len(fleet.starts) == 1
    counts = member.store.counts()
    assert (counts.done, counts.dead, counts.unsettled_cost) == (1, 0, 0)


@pytest.mark.parametrize("reply_ms", [11, 300])
def test_a_store_that_answers_slower_than_the_grace_burns_no_attempts(reply_ms: int) -> None:
    fleet = Fleet(1, Limits(capacity=10, flush_ms=1000), reply_us=(reply_ms * MS, reply_ms * MS))
    member = fleet.member("one", WatcherOptions("w", max_attempts=1))
    member.put([1])
    for second in range(100):
        fleet.at((START_MS + 1000 * second) * MS, member.upkeep)
    fleet.at((START_MS + 90_000) * MS, lambda: setattr(fleet, "reply_us", (0, 0)))
    member.flush()

    fleet.advance(100 * SECOND)

    assert member.store.counts().dead == 0


# G4


@pytest.mark.parametrize(("cost", "fit"), [(1, 10_000), (10, 10_000), (900, 9_900)])
def test_g4_nearly_all_of_the_capacity_is_used(cost: int, fit: int) -> None:
    fleet = Fleet(1, Limits(capacity=10_000), lag_us=(0, 10 * MS))
    member = saturated(fleet, cost, 3)
    member.tick(100, START_MS * MS + 3 * SECOND)

    fleet.advance(3 * SECOND)

    assert fleet.used(SECOND, 3 * SECOND) >= 0.98 * 2 * fit
    assert fleet.overshoots() == []


# What go-batcher does instead, measured on it


def test_capacity_nine_and_cost_one_makes_progress() -> None:
    fleet = Fleet(1, Limits(capacity=9))
    saturated(fleet, 1, 20).tick(100, START_MS * MS + 11 * SECOND)

    fleet.advance(11 * SECOND)

    assert 85 <= fleet.used(SECOND, 11 * SECOND) <= 90
    assert fleet.overshoots() == []


def test_an_operation_of_nine_tenths_of_the_capacity_runs_once_a_window() -> None:
    fleet = Fleet(1, Limits(capacity=1000))
    saturated(fleet, 900, 20).tick(100, START_MS * MS + 10 * SECOND)

    fleet.advance(10 * SECOND)

    assert len(fleet.starts) in {9, 10}
    assert fleet.overshoots() == []


def test_manual_flushes_every_thirty_milliseconds_bring_no_capacity() -> None:
    fleet = Fleet(1, Limits(capacity=1000))
    member = saturated(fleet, 10, 6)
    member.tick(100, START_MS * MS + 5 * SECOND)
    member.tick(30, START_MS * MS + 5 * SECOND)

    fleet.advance(5 * SECOND)

    assert fleet.overshoots() == []
    assert fleet.used(SECOND, 5 * SECOND) >= 0.98 * 4000


def test_at_capacity_zero_only_what_costs_nothing_is_released() -> None:
    fleet = Fleet(1, Limits(capacity=0))
    member = fleet.member("one", WatcherOptions("w"), WatcherOptions("free"))
    member.put([1] * 10)
    member.put([0] * 10, watcher="free")
    member.tick(100, START_MS * MS + 5 * SECOND)

    fleet.advance(5 * SECOND)

    assert {one.cost for one in fleet.starts} == {0}
    assert member.store.counts().waiting == 10


def test_a_missed_hour_of_ticks_is_not_made_up_for() -> None:
    fleet = Fleet(1, Limits(capacity=1000))
    member = saturated(fleet, 1, 10)
    member.flush()
    fleet.advance(3600 * SECOND)
    member.tick(100, START_MS * MS + 3605 * SECOND)

    fleet.advance(3 * SECOND)

    assert fleet.overshoots() == []
    assert fleet.used(3600 * SECOND, 3600 * SECOND + 50 * MS) <= 200
