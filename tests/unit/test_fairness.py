"""G6: watchers and keys share by cost and weight; nobody starves, and nobody is held up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Bench, memory_bench, op, read
from celery_batcher.clock import ManualClock
from celery_batcher.fairness import FairRing, water_fill, weigh
from celery_batcher.store.base import Released
from celery_batcher.store.options import WatcherOptions

pytestmark = pytest.mark.long

few = settings(max_examples=10)


@pytest.fixture
def bench() -> Bench:
    return fresh()


def fresh() -> Bench:
    return memory_bench(ManualClock())


def put_costs(bench: Bench, watcher: str, costs: Sequence[int], key: str | None = None) -> None:
    entries = [op(f"{watcher}.{key}.{at:05}", cost=cost, key=key) for at, cost in enumerate(costs)]
    for at in range(0, len(entries), 1000):
        bench.put(*entries[at : at + 1000], watcher=watcher)


def serve(bench: Bench, batches: int) -> list[Released]:
    """Release, claim and settle this many batches; fewer when no more wait."""
    served = []
    while len(served) < batches and isinstance(batch := bench.release(), Released):
        bench.claim(batch)
        bench.settle(batch)
        served.append(batch)
    return served


# The ring


def test_the_member_furthest_behind_is_first_and_equals_go_by_name() -> None:
    ring = FairRing()
    for member in "cab":
        ring.join(member)
    order = []
    for _ in range(6):
        member, tag = ring.first() or ("", 0.0)
        order.append(member)
        ring.serve(member, tag, 1)

    assert order == list("abcabc")


def test_an_empty_ring_has_no_first() -> None:
    ring = FairRing()
    assert ring.first() is None
    ring.join("a")
    ring.leave("a")
    ring.leave("never in")
    assert (ring.first(), len(ring), "a" in ring) == (None, 0, False)


def test_who_joins_late_starts_at_the_time_of_the_ring() -> None:
    ring = FairRing()
    ring.join("old")
    for _ in range(10):
        ring.serve(*ring.first(), 5)  # type: ignore[misc]
    ring.join("new")

    served: Counter[str] = Counter()
    for _ in range(10):
        member, tag = ring.first() or ("", 0.0)
        served[member] += 1
        ring.serve(member, tag, 5)

    assert abs(served["old"] - served["new"]) <= 2


def test_leaving_and_joining_again_brings_nothing() -> None:
    ring = FairRing()
    ring.join("a")
    ring.join("b")
    served: Counter[str] = Counter()
    tags = {"a": 0.0, "b": 0.0}
    for _ in range(100):
        ring.leave("b")
        ring.join("b", tags["b"])
        member, tag = ring.first() or ("", 0.0)
        served[member] += 1
        tags[member] = tag + 1
        ring.serve(member, tag, 1)

    assert served == {"a": 50, "b": 50}


@few
@given(
    weights=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    costs=st.lists(st.integers(0, 50), min_size=30, max_size=120),
)
def test_between_members_that_wait_the_served_cost_differs_by_one_service_each(
    weights: list[int], costs: list[int]
) -> None:
    ring = FairRing()
    served = [0.0] * len(weights)
    for at in range(len(weights)):
        ring.join(str(at))
    for cost in costs:
        name, tag = ring.first() or ("", 0.0)
        at = int(name)
        share = weigh(cost) / weights[at]
        served[at] += share
        ring.serve(name, tag, share)
        assert max(served) - min(served) <= 2 * max(weigh(one) for one in costs)


# Watchers


@few
@given(
    costs=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    weights=st.lists(st.integers(1, 4), min_size=4, max_size=4),
)
def test_watchers_share_by_cost_and_weight_whatever_an_operation_costs(
    costs: list[int], weights: list[int]
) -> None:
    bench = fresh()
    names = [f"w{at}" for at in range(len(costs))]
    options = [
        WatcherOptions(name, max_batch_size=5, weight=weight)
        for name, weight in zip(names, weights, strict=False)
    ]
    bench.begin(*options)
    for name, cost in zip(names, costs, strict=True):
        put_costs(bench, name, [cost] * 300)

    served: Counter[str] = Counter()
    for batch in serve(bench, 60):
        served[batch.watcher] += batch.cost

    shares = [served[one.name] / one.weight for one in options]
    assert max(shares) - min(shares) <= 2 * 5 * max(costs)


@pytest.mark.parametrize("cost", [0, 1, 1000])
def test_a_flood_of_one_watcher_starves_nobody(bench: Bench, cost: int) -> None:
    bench.begin(WatcherOptions("flood", max_batch_size=10), WatcherOptions("w", max_batch_size=10))
    put_costs(bench, "flood", [cost] * 5000)
    serve(bench, 20)
    put_costs(bench, "w", [1] * 10)

    assert "w" in {batch.watcher for batch in serve(bench, 2)}


def test_a_dear_operation_does_not_wait_for_cheap_ones_of_another_watcher(bench: Bench) -> None:
    bench.begin(WatcherOptions("cheap"), WatcherOptions("dear"), capacity=1000)
    put_costs(bench, "cheap", [1] * 15_000)
    waited = []
    for _ in range(20):
        serve(bench, 10)
        bench.clock.advance(0.1)
    put_costs(bench, "dear", [900] * 3)
    for tick in range(100):
        waited += [tick for batch in serve(bench, 10) if batch.watcher == "dear"]
        bench.clock.advance(0.1)

    assert len(waited) == 3
    assert waited[0] <= 21


def test_cheap_operations_are_not_starved_by_dear_ones_of_another_watcher(bench: Bench) -> None:
    bench.begin(WatcherOptions("cheap"), WatcherOptions("dear"), capacity=1000)
    put_costs(bench, "dear", [900] * 100)
    for _ in range(20):
        serve(bench, 10)
        bench.clock.advance(0.1)
    put_costs(bench, "cheap", [1] * 15_000)
    served: Counter[str] = Counter()
    for _ in range(250):
        for batch in serve(bench, 10):
            served[batch.watcher] += batch.cost
        bench.clock.advance(0.1)

    assert abs(served["cheap"] - served["dear"]) <= 2000


def test_a_watcher_that_idles_saves_no_claim_up(bench: Bench) -> None:
    bench.begin(WatcherOptions("busy", max_batch_size=10), WatcherOptions("w", max_batch_size=10))
    put_costs(bench, "busy", [1] * 5000)
    serve(bench, 100)
    put_costs(bench, "w", [1] * 1000)

    served = Counter(batch.watcher for batch in serve(bench, 40))

    assert served == {"busy": 20, "w": 20}


# Keys


@few
@given(
    costs=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    size=st.sampled_from([1, 7, 50]),
)
def test_keys_share_by_cost_too(costs: list[int], size: int) -> None:
    bench = fresh().begin(WatcherOptions("w", max_batch_size=size))
    for at, cost in enumerate(costs):
        put_costs(bench, "w", [cost] * 300, key=f"k{at}")
    served: Counter[str] = Counter()
    while sum(served.values()) < 200 * min(costs):
        batch = bench.released()
        for one in read(bench.claim(batch).blocks):
            served[one.key] += one.cost
        bench.settle(batch)

    shares = [served[f"k{at}"] for at in range(len(costs))]
    assert max(shares) - min(shares) <= 2 * 10 * max(costs)


def test_a_flood_of_one_key_starves_no_other(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=10))
    put_costs(bench, "w", [1] * 5000, key="flood")
    serve(bench, 20)
    put_costs(bench, "w", [1], key="late")

    keys = set()
    for _ in range(2):
        batch = bench.released()
        keys |= {one.key for one in read(bench.claim(batch).blocks)}
        bench.settle(batch)

    assert keys == {"flood", "late"}


def test_a_thousand_keys_are_all_served_in_one_round(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=100))
    for at in range(1000):
        put_costs(bench, "w", [1] * 11, key=f"k{at:04}")
    seen: Counter[str] = Counter()
    for _ in range(100):
        batch = bench.released()
        seen.update(one.key for one in read(bench.claim(batch).blocks))
        bench.settle(batch)

    assert len(seen) == 1000
    assert set(seen.values()) == {10}


# Shares of what is scarce


@pytest.mark.parametrize(
    ("demands", "weights", "total", "floors", "shares"),
    [
        ([], [], 10, None, []),
        ([5, 5], [1, 1], 0, None, [0, 0]),
        ([5, 5], [1, 1], 20, None, [5, 5]),
        ([100, 100], [1, 1], 9, None, [5, 4]),
        ([2, 100, 100], [1, 1, 1], 20, None, [2, 9, 9]),
        ([100, 100], [3, 1], 20, None, [15, 5]),
        ([4, 100, 100], [3, 1, 1], 20, None, [4, 8, 8]),
        ([100, 100], [1, 1], 20, [16, 0], [16, 4]),
        ([100, 100, 100], [1, 1, 1], 30, [20, 0, 0], [20, 5, 5]),
        ([3, 100], [1, 1], 20, [16, 0], [3, 17]),
        ([100, 100], [1, 1], 20, [30, 10], [10, 10]),
        ([2**53, 2**53], [1, 2], 2**53, None, [2**53 // 3 + 1, 2**53 * 2 // 3]),
    ],
)
def test_shares_rise_like_water(
    demands: list[int],
    weights: list[int],
    total: int,
    floors: list[int] | None,
    shares: list[int],
) -> None:
    assert water_fill(demands, weights, total, floors) == shares


vessels = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 7), st.integers(0, 30)), min_size=1, max_size=8
)


@settings(max_examples=300)
@given(vessels, st.integers(0, 200), st.booleans())
def test_shares_are_max_min_fair_and_leave_nothing_over(
    members: list[tuple[int, int, int]], total: int, with_floors: bool
) -> None:
    demands, weights, floors = (list(row) for row in zip(*members, strict=True))
    if not with_floors:
        floors = [0] * len(members)
    shares = water_fill(demands, weights, total, floors if with_floors else None)
    lows = [min(pair) for pair in zip(floors, demands, strict=True)]
    if sum(lows) > total:
        demands, lows = lows, [0] * len(members)

    assert sum(shares) == min(total, sum(demands))
    for share, low, demand in zip(shares, lows, demands, strict=True):
        assert low <= share <= demand
    for rich, above, wide in zip(shares, lows, weights, strict=True):
        for poor, most, narrow in zip(shares, demands, weights, strict=True):
            if rich > above and poor < most:  # one could give and the other take
                assert (rich - 1) * narrow < (poor + 1) * wide


@settings(max_examples=100)
@given(vessels, st.integers(0, 200))
def test_who_wants_more_never_gets_less(members: list[tuple[int, int, int]], total: int) -> None:
    demands, weights, floors = (list(row) for row in zip(*members, strict=True))
    before = water_fill(demands, weights, total, floors)
    demands[0] += 5

    assert water_fill(demands, weights, total, floors)[0] >= before[0] - 1
