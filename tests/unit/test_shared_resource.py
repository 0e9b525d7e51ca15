"""`SharedResource`: figures that are checked, rounds that come when they are due, events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from celery_batcher import ConfigurationError, PartitionsOutOfRangeError, SharedResource
from celery_batcher.clock import ManualClock
from celery_batcher.errors import LeaseStoreUnavailableError
from celery_batcher.leases import MemoryLeaseManager
from celery_batcher.resources.base import Resource
from leasing import Faulty, Fleet, Leasing, memory_leasing

HOLD = 1.01


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def manager(clock: ManualClock) -> Faulty:
    return Faulty(MemoryLeaseManager(clock=clock))


def resource(clock: ManualClock, manager: Faulty, shared: int = 1000, **options: Any) -> Any:
    return SharedResource(shared, lease_manager=manager, clock=clock, **{"factor": 100, **options})


def step(one: SharedResource, turn: str = "t") -> Mapping[int, float]:
    applied: dict[int, float] = {}

    def apply(ends: Mapping[int, float]) -> None:
        applied.clear()
        applied.update(ends)

    one.step("fleet", apply, turn=turn, hold=HOLD)
    return applied


# Figures


def test_it_is_a_resource(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager, name="cosmos", window=timedelta(seconds=2))

    assert isinstance(one, Resource)
    assert (one.name, one.window, one.factor) == ("cosmos", 2.0, 100)


@pytest.mark.parametrize("figure", [-1, 1.5, math.nan, math.inf, True, "1", None, 2**53])
@pytest.mark.parametrize("name", ["shared_capacity", "reserved_capacity", "factor"])
def test_figures_that_are_no_capacities_are_refused(
    manager: Faulty, name: str, figure: Any
) -> None:
    figures = {"shared_capacity": 10, name: figure}

    with pytest.raises(ConfigurationError, match=name):
        SharedResource(lease_manager=manager, **figures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lease_manager": None}, "without a lease manager"),
        ({"factor": 0}, "factor 0"),
        ({"lease_manager": object()}, "RedisLeaseManager"),
        ({"window": 0}, "window=0"),
        ({"max_interval": -1}, "max_interval=-1"),
        ({"window": 3.5}, "lease_time=8 would do"),
    ],
)
def test_what_does_not_go_together_is_refused(
    manager: Faulty, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SharedResource(10, **{"lease_manager": manager, **options})


@pytest.mark.parametrize(
    ("shared", "factor", "fits"),
    [(501, 1, 2), (1_000_000, 1999, 2000), (2**53 - 1, 1, (2**53 - 1) // 500 + 1)],
)
def test_more_than_500_partitions_are_refused_with_the_smallest_factor_that_fits(
    manager: Faulty, shared: int, factor: int, fits: int
) -> None:
    with pytest.raises(PartitionsOutOfRangeError, match=f"at least {fits}") as caught:
        SharedResource(shared, factor=factor, lease_manager=manager)

    assert caught.value.factor == fits
    SharedResource(shared, factor=fits, lease_manager=manager)
    with pytest.raises(PartitionsOutOfRangeError):
        SharedResource(shared, factor=fits - 1, lease_manager=manager)


def test_the_capacity_is_what_is_reserved_and_leased(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager, 950, reserved_capacity=30)
    assert (one.capacity(), one.max_capacity()) == (30, 980)

    one.give_me(130)
    assert sorted(step(one)) == [0]
    assert one.capacity() == 130

    one.give_me(10_000)
    assert len(step(one)) == 10
    assert one.capacity() == 980  # the last partition is worth 50
    assert one.partitions == 10
    assert [one.worth(at) for at in (0, 8, 9, 10)] == [100, 100, 50, 0]


@pytest.mark.parametrize(("target", "partitions"), [(0, 0), (30, 0), (31, 1), (130, 1), (131, 2)])
def test_a_target_is_partitions_above_what_is_reserved(
    clock: ManualClock, manager: Faulty, target: int, partitions: int
) -> None:
    one = resource(clock, manager, reserved_capacity=30)
    one.give_me(target)

    assert len(step(one)) == partitions


def test_without_a_shared_capacity_there_is_what_is_reserved() -> None:
    one = SharedResource(0, reserved_capacity=5)
    events: list[tuple[str, int]] = []
    one.raise_events_to(lambda event, val, msg, data: events.append((event, val)))
    one.give_me(100)

    assert step(one) == {}
    assert (one.capacity(), one.max_capacity()) == (5, 5)
    assert events == [("target", 100), ("capacity", 5)]
    one.set_reserved_capacity(7)
    assert one.capacity() == 7
    with pytest.raises(ConfigurationError, match="without a lease manager"):
        one.set_shared_capacity(1)


def test_a_shared_capacity_can_be_changed(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager)
    one.give_me(10_000)
    step(one)
    one.set_shared_capacity(500)
    assert one.capacity() == 500
    assert len(step(one)) == 5
    one.set_shared_capacity(2000)
    assert len(step(one)) == 20
    with pytest.raises(PartitionsOutOfRangeError):
        one.set_shared_capacity(50_001)
    assert one.max_capacity() == 2000


def test_a_lease_is_of_use_while_it_lasts_a_hold(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager, 100)
    one.give_me(100)
    ends = step(one)
    manager.lost = True
    clock.advance(ends[0] - clock.monotonic() - HOLD - 0.001)
    assert one.capacity() == 100
    clock.advance(0.002)
    assert one.capacity() == 0


# Rounds


def test_who_wants_nothing_and_has_nothing_does_no_rounds(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager)
    for _ in range(50):
        step(one)
        clock.advance(0.1)

    assert manager.demands == []


def test_the_first_need_is_met_at_once_and_a_greater_one_too(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager)
    one.give_me(100)
    step(one)
    one.give_me(300)
    step(one)

    assert [demand.partitions for demand in manager.demands] == [1, 3]
    assert one.capacity() == 300


def test_who_has_less_than_it_wants_waits_for_its_next_round(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager, 200)
    manager.manager.provision(2)
    manager.manager.lease("other", manager_demand(1))
    one.give_me(200)
    step(one)
    for target in range(201, 300):
        one.give_me(target)
        step(one)

    assert len(manager.demands) == 1


def manager_demand(partitions: int) -> Any:
    from celery_batcher.leases import Demand

    return Demand(partitions)


def test_rounds_are_at_most_max_interval_apart_and_random(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager)
    one.give_me(100)
    times: list[float] = []
    manager.before = lambda: times.append(clock.monotonic())
    for _ in range(2000):
        step(one)
        clock.advance(0.01)

    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) <= 0.52
    assert min(gaps) < 0.1


def test_what_is_not_needed_is_given_back_and_then_there_are_no_more_rounds(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager)
    one.give_me(1000)
    step(one)
    one.give_me(0)
    for _ in range(40):
        step(one)
        clock.advance(0.1)
    rounds = len(manager.demands)
    for _ in range(40):
        step(one)
        clock.advance(0.1)

    assert one.capacity() == 0
    assert len(manager.demands) == rounds
    assert len(manager.manager.lease("other", manager_demand(10)).left) == 10


def test_a_partition_is_unused_a_hold_after_the_leases_without_it_are_in_force(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager, 100)
    one.give_me(100)
    step(one)
    one.give_me(0)
    clock.advance(0.5)
    one.step("fleet", lambda ends: clock.advance(0.3), turn="t", hold=HOLD)

    assert manager.demands[-1].unused == {0: pytest.approx(HOLD)}


def test_leases_that_could_not_be_applied_are_not_said_to_be_unused(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager, 100)
    one.give_me(100)
    step(one)
    one.give_me(0)

    def fails(ends: Mapping[int, float]) -> None:
        raise ConnectionError

    for _ in range(20):
        clock.advance(0.1)
        with suppress(ConnectionError):
            one.step("fleet", fails, turn="t", hold=HOLD)

    assert all(demand.unused == {} for demand in manager.demands)
    assert step(one) == {}
    assert manager.demands[-1].unused == {0: pytest.approx(HOLD)}


def test_a_slow_answer_lengthens_no_lease(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager, 100)
    manager.after = lambda: clock.advance(2.5)
    one.give_me(100)
    ends = step(one)

    assert ends[0] <= 4.0
    assert clock.monotonic() == 2.5


def test_another_turn_begins_without_what_the_last_one_knew(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager)
    one.give_me(1000)
    step(one, "t1")
    one.give_me(0)
    clock.advance(0.6)
    step(one, "t2")

    assert [demand.turn for demand in manager.demands][-1] in {"t1", "t2"}
    assert all(demand.unused == {} for demand in manager.demands)


# Outages


@pytest.mark.parametrize(
    "error", [LeaseStoreUnavailableError("away"), ConfigurationError("wrong key")]
)
def test_an_outage_is_told_once_and_rounds_become_rarer_until_it_is_over(
    clock: ManualClock, manager: Faulty, error: Exception
) -> None:
    one = resource(clock, manager)
    events: list[tuple[str, int, str]] = []
    one.raise_events_to(lambda event, val, msg, data: events.append((event, val, msg)))
    one.give_me(1000)
    tries: list[float] = []

    def fails() -> None:
        tries.append(clock.monotonic())
        raise error

    manager.before = fails
    for _ in range(600):
        assert step(one) == {}
        clock.advance(0.1)
    told = [one for one in events if one[0] == "error"]
    manager.before = lambda: None
    clock.advance(5.0)
    step(one)

    assert told == [("error", 1, str(error))]
    assert 12 <= len(tries) <= 30
    assert max(b - a for a, b in pairwise(tries)) <= 5.1
    assert one.capacity() == 1000


def test_events_have_the_names_and_values_of_go_batcher(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager, 200, reserved_capacity=10)
    events: list[tuple[str, int]] = []
    one.raise_events_to(lambda event, val, msg, data: events.append((event, val)))
    one.give_me(210)
    step(one)
    one.give_me(110)
    clock.advance(0.6)
    step(one)
    manager.lost = True
    clock.advance(4.0)
    step(one)

    assert events == [
        ("target", 210),
        ("provision-start", 2),
        ("provision-done", 2),
        ("allocated", 0),
        ("allocated", 1),
        ("capacity", 210),
        ("target", 110),
        ("released", 1),
        ("capacity", 110),
        ("error", 1),
        ("released", 0),
        ("capacity", 10),
    ]


def test_leases_are_applied_again_when_figures_change_even_in_an_outage(
    clock: ManualClock, manager: Faulty
) -> None:
    one = resource(clock, manager)
    applied: list[set[int]] = []

    def step_once() -> None:
        one.step("fleet", lambda ends: applied.append(set(ends)), turn="t", hold=HOLD)

    one.give_me(1000)
    step_once()
    manager.lost = True
    step_once()
    one.set_reserved_capacity(5)
    step_once()
    one.set_shared_capacity(950)
    step_once()
    step_once()

    assert applied == [set(range(10))] * 3
    assert one.capacity() == 955


def test_without_a_lease_manager_it_is_applied_once_a_turn_that_nothing_is_leased() -> None:
    one, applied = SharedResource(0, reserved_capacity=5), []
    for turn in ("1", "1", "2"):
        one.step("fleet", applied.append, turn=turn, hold=HOLD)
    one.set_reserved_capacity(6)
    one.step("fleet", applied.append, turn="2", hold=HOLD)

    assert applied == [{}, {}, {}]


def test_release_gives_everything_back_at_once(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager)
    one.release("fleet")
    one.give_me(1000)
    step(one)
    one.release("fleet")

    assert one.capacity() == 0
    assert len(manager.manager.lease("other", manager_demand(10)).left) == 10


def test_provisioning_can_be_done_before(clock: ManualClock, manager: Faulty) -> None:
    one = resource(clock, manager)
    manager.lost = True
    with pytest.raises(LeaseStoreUnavailableError):
        one.provision()
    manager.lost = False
    one.provision()
    one.provision()


def test_fleets_share_in_one_process() -> None:
    leasing: Leasing = memory_leasing()
    a, b = (Fleet(leasing, name, 4).want(4) for name in "ab")
    for _ in range(60):
        for one in (a, b):
            one.step()
        leasing.advance(0.05)

    assert (a.resource.capacity(), b.resource.capacity()) == (2, 2)
