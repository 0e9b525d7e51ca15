"""What a resource gives: several limits, changes at run time, recovery, leases, shares."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from random import Random

import pytest

from builders import BACKFILL, Bench, op
from celery_batcher.store.base import Charge, Leased, Limiter, Refused, Released, Standing
from celery_batcher.store.options import Limit, Limits, ResourceOptions, WatcherOptions

TOKENS = {
    "capacity": 10,
    "others": (Limit(2, 100, 1000),),
    "resource": ResourceOptions(dimensions=("requests", "tokens")),
    "flush_ms": 1000,
}


def put(bench: Bench, *costs: tuple[int, ...], **options: object) -> None:
    """Operations of these costs, by dimension."""
    number = next(bench.numbers)
    for at, (cost, *further) in enumerate(costs):
        entry = op(f"o{number}.{at}", cost=cost, further=further, **options)  # type: ignore[arg-type]
        bench.put(entry, watcher="w")


def usable(bench: Bench) -> list[int]:
    return [one.usable for one in bench.store.counts().limits]


def held(bench: Bench) -> list[int]:
    return [one.held for one in bench.store.counts().limits]


def start(bench: Bench, ms: int = 60_000) -> Released:
    """Release a batch and claim it."""
    batch = bench.released()
    assert bench.claim(batch, ms=ms).state == "claimed"
    return batch


# Dimensions and windows


def test_a_batch_takes_no_more_than_any_dimension_has(bench: Bench) -> None:
    bench.begin(**TOKENS)
    put(bench, (1, 30), (1, 30), (1, 30), (1, 30))

    assert (bench.released().operations, bench.refused()) == (3, "capacity")
    assert held(bench) == [3, 90]


def test_the_first_dimension_binds_as_the_second_does(bench: Bench) -> None:
    bench.begin(**TOKENS)
    put(bench, *[(4, 1)] * 4)

    assert (bench.released().operations, bench.refused()) == (2, "capacity")
    assert held(bench) == [8, 2]


def test_an_operation_that_says_nothing_of_a_dimension_costs_nothing_in_it(bench: Bench) -> None:
    bench.begin(**TOKENS)
    put(bench, (1,), (1, 100), (1,), (1, 1))

    assert bench.released().operations == 3
    assert held(bench) == [3, 100]


def test_a_claim_holds_every_dimension_to_the_end_of_its_own_window(bench: Bench) -> None:
    bench.begin(**TOKENS | {"others": (Limit(2, 100, 5000),), "flush_ms": 5000})
    put(bench, (1, 60))
    start(bench)

    bench.clock.advance(1.010)
    assert held(bench) == [0, 60]
    bench.clock.advance(4.002)  # ends of a window of 5 s are rounded up to 2 ms
    assert held(bench) == [0, 0]


def test_a_claim_is_refused_when_one_dimension_has_no_room(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), **TOKENS)
    put(bench, (1, 40), (1, 40))
    first, second = bench.released(), bench.released()
    bench.store.set_capacity([10, 50])

    assert bench.claim(first).state == "claimed"
    assert bench.claim(second).state == "wait"
    bench.store.set_capacity([10, 80])
    assert bench.claim(second).state == "claimed"


def test_a_batch_dearer_than_one_dimension_of_now_is_recalled(bench: Bench) -> None:
    bench.begin(**TOKENS)
    put(bench, (1, 40), (1, 40))
    batch = bench.released()
    bench.store.set_capacity([10, 79])

    assert bench.claim(batch).state == "recalled"
    assert held(bench) == [0, 0]


def test_a_renewal_moves_the_holds_of_all_dimensions(bench: Bench) -> None:
    bench.begin(**TOKENS)
    put(bench, (1, 40))
    batch = start(bench)
    bench.clock.advance(0.5)

    assert bench.store.renew(batch.id, "n", bench.limits, "r")
    bench.clock.advance(1.009)
    assert held(bench) == [1, 40]
    bench.clock.advance(0.001)
    assert held(bench) == [0, 0]


def test_a_recalled_batch_holds_nothing_in_any_dimension(bench: Bench) -> None:
    bench.begin(**TOKENS)
    put(bench, (1, 40))
    bench.released()
    assert held(bench) == [1, 40]
    bench.clock.advance(2)

    assert bench.store.probe(bench.token, 1000, 9)
    assert held(bench) == [0, 0]


def test_every_window_of_a_dimension_is_kept(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2), capacity=2, others=(Limit(1, 5, 10_000),),
                flush_ms=10_000)  # fmt: skip
    put(bench, *[(1,)] * 9)
    started = []
    for _ in range(200):
        if isinstance(batch := bench.release(), Released):
            bench.claim(batch)
            started += [bench.clock.now_ms()] * batch.cost
        bench.clock.advance(0.1)

    assert len(started) == 9
    for at, first in enumerate(started):
        assert sum(1 for one in started[at:] if one < first + 1000) <= 2
        assert sum(1 for one in started[at:] if one < first + 10_000) <= 5


def test_what_waits_for_room_in_two_limits_waits_for_the_later(bench: Bench) -> None:
    bench.begin(**TOKENS | {"others": (Limit(2, 100, 5000),), "flush_ms": 5000})
    put(bench, (10, 100))
    start(bench)
    put(bench, (1, 1))

    answer = bench.release()

    assert (answer.reason, answer.wait_ms) == ("capacity", 5010)  # type: ignore[union-attr]


def test_the_first_operation_of_a_long_window_does_not_wait_for_credit(bench: Bench) -> None:
    bench.begin(capacity=1000, window_ms=60_000)
    put(bench, (400,), (400,))

    assert start(bench).cost == 400
    assert bench.refused() == "credit"


# Changes at run time


def test_the_figures_of_the_store_count(bench: Bench) -> None:
    bench.begin(capacity=10)
    bench.limits = replace(bench.limits, capacity=99, window_ms=5000)

    standing = bench.store.configure(bench.limits, [])

    assert standing == Standing(("",), (Limit(1, 10, 1000),))
    assert usable(bench) == [10]


def test_a_lowered_capacity_of_one_limit_leaves_the_others(bench: Bench) -> None:
    bench.begin(**TOKENS)

    assert bench.store.set_capacity([10, 7]) == (10, 100)
    assert bench.store.counts().limits[0].limit == Limit(1, 10, 1000)
    assert bench.store.counts().limits[1].limit == Limit(2, 7, 1000)


def test_a_renewal_after_the_capacity_was_lowered_is_refused(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put(bench, (8,))
    batch = start(bench)
    bench.store.set_capacity([7])

    assert bench.store.renew(batch.id, "n", bench.limits, "r") is False
    assert held(bench) == [8]


def test_an_operation_dearer_than_the_capacity_of_now_keeps_no_other_from_running(
    bench: Bench,
) -> None:
    bench.begin(WatcherOptions("w"), WatcherOptions("v"), capacity=10, flush_ms=1000)
    put(bench, (9,))
    bench.store.set_capacity([5])
    bench.put(op("cheap"), watcher="v")

    assert bench.released().watcher == "v"
    answer = bench.release()
    assert isinstance(answer, Refused)
    assert answer.reason == "empty"
    assert 0 < answer.wait_ms <= 250


def test_what_was_too_dear_is_asked_again_when_another_process_raised_the_capacity(
    bench: Bench,
) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    assert bench.reopen is not None
    other = bench.reopen("other", "resource")
    put(bench, (9,))
    bench.store.set_capacity([5])
    assert bench.refused() == "empty"

    other.store.set_capacity([10])
    bench.clock.advance(0.25)

    assert bench.released().cost == 9


# Ramps and recovery


def test_a_raised_capacity_comes_in_steps(bench: Bench) -> None:
    bench.begin(capacity=100, resource=ResourceOptions(ramp=(30,), every_ms=500))
    bench.store.set_capacity([180])

    seen = []
    for _ in range(5):
        seen.append(usable(bench)[0])
        bench.clock.advance(0.499)
        seen.append(usable(bench)[0])
        bench.clock.advance(0.001)

    assert seen == [100, 100, 130, 130, 160, 160, 180, 180, 180, 180]


def test_a_ramp_that_is_lowered_and_raised_again_goes_on_from_where_it_was(bench: Bench) -> None:
    bench.begin(capacity=100, resource=ResourceOptions(ramp=(30,), every_ms=500))
    bench.store.set_capacity([200])
    bench.clock.advance(0.5)
    bench.store.set_capacity([120])
    assert usable(bench) == [120]
    bench.store.set_capacity([200])
    assert usable(bench) == [120]
    bench.clock.advance(0.5)
    assert usable(bench) == [150]


def test_an_adaptive_resource_goes_on_with_half_and_comes_back_in_twentieths(bench: Bench) -> None:
    bench.begin(capacity=100, resource=ResourceOptions(adaptive=True))
    bench.store.shut(2000)

    assert usable(bench) == [50]
    bench.clock.advance(2.999)
    assert usable(bench) == [50]  # it does not recover while it is closed
    bench.clock.advance(0.001)
    assert usable(bench) == [55]
    bench.clock.advance(20)
    assert usable(bench) == [100]


def test_a_second_throttling_while_it_is_closed_halves_nothing(bench: Bench) -> None:
    bench.begin(capacity=100, resource=ResourceOptions(adaptive=True))
    bench.store.shut(1000)
    bench.store.shut(3000)
    assert usable(bench) == [50]
    bench.clock.advance(3.5)
    assert usable(bench) == [50]

    bench.store.throttle(60_000, 0.0)

    assert usable(bench) == [25]


def test_half_of_a_capacity_of_one_is_one(bench: Bench) -> None:
    bench.begin(capacity=1, resource=ResourceOptions(adaptive=True))
    bench.store.shut(1)
    assert usable(bench) == [1]
    bench.store.set_capacity([0])
    bench.clock.advance(1)
    bench.store.shut(1)
    assert usable(bench) == [0]


def test_a_throttling_that_is_not_adaptive_changes_no_capacity(bench: Bench) -> None:
    bench.begin(capacity=100)
    bench.store.shut(1000)
    assert usable(bench) == [100]


def test_the_capacity_may_change_while_it_recovers(bench: Bench) -> None:
    bench.begin(capacity=100, resource=ResourceOptions(adaptive=True))
    bench.store.shut(1000)
    bench.store.set_capacity([200])
    assert usable(bench) == [50]
    bench.clock.advance(2)
    assert usable(bench) == [55]
    bench.store.set_capacity([40])
    assert usable(bench) == [40]


# Leases


LEASED = ResourceOptions(factor=10, reserved=5)


def lease(bench: Bench, partitions: dict[int, int], last: int = -1, lacking: int = 0) -> None:
    """Partitions are leased, each for so many milliseconds."""
    term = bench.store.limiter("limiter", 9999, "fleet").term
    until = {at: bench.clock.now_ms() + ms for at, ms in partitions.items()}
    assert bench.store.lease(term, Leased(until, last, lacking))


def test_what_is_leased_for_a_hold_may_be_used_and_what_is_reserved_always(bench: Bench) -> None:
    bench.begin(capacity=105, resource=LEASED)
    assert usable(bench) == [5]

    lease(bench, {3: 2000, 7: 1010, 9: 1009})

    assert usable(bench) == [25]
    bench.clock.advance(0.001)
    assert usable(bench) == [15]
    bench.clock.advance(1)
    assert usable(bench) == [5]


def test_no_hold_outlasts_the_lease_it_began_on(bench: Bench) -> None:
    bench.begin(capacity=105, flush_ms=1000, resource=LEASED)
    lease(bench, {0: 1500})
    put(bench, (15,))
    batch = start(bench)
    bench.clock.advance(0.49)
    assert bench.store.renew(batch.id, "n", bench.limits, "r1") is True
    bench.clock.advance(0.001)

    assert bench.store.renew(batch.id, "n", bench.limits, "r2") is False


def test_leases_are_written_as_they_are_now(bench: Bench) -> None:
    bench.begin(capacity=105, resource=LEASED)
    lease(bench, {3: 9000, 7: 9000})
    lease(bench, {7: 9000})
    assert usable(bench) == [15]
    lease(bench, {})
    assert usable(bench) == [5]


def test_the_last_partition_may_be_worth_less(bench: Bench) -> None:
    bench.begin(capacity=102, resource=LEASED)
    lease(bench, {3: 9000, 9: 2000}, last=9, lacking=3)

    assert usable(bench) == [22]
    bench.clock.advance(1)
    assert usable(bench) == [15]


def test_one_limiter_at_a_time_leases_for_a_resource(bench: Bench) -> None:
    bench.begin(capacity=105, resource=LEASED)
    now = bench.clock.now_ms()
    first = bench.store.limiter("one", 1000, "fleet")
    assert first == Limiter(1, "fleet", 0, 105, 5, 1010, now)
    assert bench.store.limiter("two", 1000, "others") == replace(first, term=0)
    assert bench.store.limiter("one", 1000, "others") == first

    bench.clock.advance(1)
    assert bench.store.limiter("two", 1000, "others").term == 2
    assert bench.store.lease(1, Leased({1: now + 9000})) is False
    assert usable(bench) == [5]
    assert bench.store.lease(2, Leased({1: now + 9000})) is True
    assert usable(bench) == [15]

    assert bench.store.yield_limiter("one") is False
    assert bench.store.yield_limiter("two") is True
    assert bench.store.limiter("two", 1000, "others").term == 2
    assert bench.store.yield_limiter("two") is True
    assert bench.store.limiter("one", 1000, "others").term == 3


def test_a_limiter_is_told_what_all_batchers_of_the_resource_need(bench: Bench) -> None:
    bench.begin(capacity=105, resource=LEASED)
    other = sharing(bench)
    put(bench, (3,), (4,))
    put(other, (5,))
    bench.store.limiter("one", 1000, "fleet")

    assert other.store.limiter("one", 1000, "fleet").needs == 12
    bench.clock.advance(10.001)
    assert other.store.limiter("one", 1000, "fleet").needs == 5


def test_what_is_reserved_may_change(bench: Bench) -> None:
    bench.begin(capacity=105, resource=LEASED)
    bench.store.set_capacity([120], 20)
    assert usable(bench) == [20]


# Shares

GRID = {"capacity": 1000, "window_ms": 990}
"""With its grace, holds end at whole flush intervals of a test."""


def sharing(bench: Bench, name: str = "other", **resource: object) -> Bench:
    """Another batcher on the resource, with options of its own."""
    assert bench.reopen is not None
    other = bench.reopen(name, "resource")
    own = ResourceOptions(**resource)  # type: ignore[arg-type]
    other.limits = replace(bench.limits, resource=own)
    other.numbers = count(1000)
    return other.begin(WatcherOptions("w"))


def released_in(
    seconds: float, *benches: Bench, every: float = 0.1, order: Random | None = None
) -> list[int]:
    """What each releases (and starts) in so many seconds, flushing at each interval."""
    totals = [0] * len(benches)
    turns = list(range(len(benches)))
    for _ in range(round(seconds / every)):
        if order:
            order.shuffle(turns)
        for at in turns:
            bench = benches[at]
            while isinstance(batch := bench.release(), Released):
                bench.claim(batch)
                bench.settle(batch)
                totals[at] += batch.cost
        benches[0].clock.advance(every)
    return totals


@pytest.mark.parametrize(("weight", "parts"), [(1, (0.5, 0.5)), (3, (0.25, 0.75))])
def test_batchers_share_by_weight(bench: Bench, weight: int, parts: tuple[float, float]) -> None:
    bench.begin(**GRID)
    other = sharing(bench, weight=weight)
    for one in (bench, other):
        one.put_many([f"{at:05}" for at in range(12_000)])
    released_in(2, bench, other)

    totals = released_in(8, bench, other)

    assert sum(totals) >= 0.97 * 8000
    for total, part in zip(totals, parts, strict=True):
        assert total == pytest.approx(part * sum(totals), rel=0.05)


@pytest.mark.parametrize("weight", [1, 3])
def test_shares_are_exact_whoever_comes_first_when_holds_end(bench: Bench, weight: int) -> None:
    size = WatcherOptions("w", max_batch_size=20)
    bench.begin(size, capacity=1000)
    other = sharing(bench, weight=weight).begin(size)
    for one in (bench, other):
        one.put_many([f"{at:05}" for at in range(7000)])
    order = Random(1)
    released_in(2, bench, other, every=0.017, order=order)

    mine, theirs = released_in(5, bench, other, every=0.017, order=order)

    assert mine + theirs >= 0.97 * 5000
    assert theirs / mine == pytest.approx(weight, rel=0.03)


def test_back_fills_keep_to_their_floor_whoever_comes_first_when_holds_end(bench: Bench) -> None:
    size = WatcherOptions("w", max_batch_size=20)
    bench.begin(size, capacity=1000)
    other = sharing(bench, backfill_floor=0.1).begin(size)
    bench.put_many([f"{at:05}" for at in range(7000)])
    other.put_many([f"{at:05}" for at in range(7000)], priority=BACKFILL)
    order = Random(1)
    released_in(2, bench, other, every=0.017, order=order)

    mine, theirs = released_in(5, bench, other, every=0.017, order=order)

    assert mine + theirs >= 0.97 * 5000
    assert theirs == pytest.approx(500, abs=25)


def test_what_one_does_not_need_the_other_has(bench: Bench) -> None:
    bench.begin(**GRID)
    other = sharing(bench)
    bench.put_many([f"{at:05}" for at in range(9000)])
    released_in(2, bench, other)

    mine, theirs = 0, 0
    for _ in range(40):
        other.put_many([f"o{next(other.numbers)}" for _ in range(20)])
        one, two = released_in(0.1, bench, other)
        mine, theirs = mine + one, theirs + two

    assert theirs == pytest.approx(800, abs=40)
    assert mine >= 0.97 * 3200


def test_who_was_away_has_saved_up_no_claim(bench: Bench) -> None:
    bench.begin(**GRID)
    other = sharing(bench)
    for one in (bench, other):
        one.put_many([f"a{at:05}" for at in range(1000)])
    released_in(2, bench, other)
    bench.put_many([f"b{at:05}" for at in range(9000)])
    released_in(4, bench, other)

    other.put_many([f"c{at:05}" for at in range(9000)])
    mine, theirs = released_in(3, bench, other)

    assert mine == pytest.approx(theirs, rel=0.2)


def test_a_floor_is_kept_whatever_the_weights(bench: Bench) -> None:
    bench.begin(**GRID)
    other = sharing(bench, floor=0.4)
    bench.store.configure(replace(bench.limits, resource=ResourceOptions(weight=99)), [])
    for one in (bench, other):
        one.put_many([f"{at:05}" for at in range(12_000)])
    released_in(2, bench, other)

    mine, theirs = released_in(5, bench, other)

    assert theirs >= 0.97 * 2000
    assert mine >= 0.97 * 3000 - 100


def test_back_fills_have_what_others_leave_and_their_floor(bench: Bench) -> None:
    bench.begin(**GRID)
    other = sharing(bench, backfill_floor=0.1)
    other.put_many([f"{at:05}" for at in range(9000)], priority=BACKFILL)
    released_in(2, bench, other)
    assert released_in(2, bench, other)[1] >= 0.97 * 2000

    bench.put_many([f"{at:05}" for at in range(9000)])
    released_in(2, bench, other)
    mine, theirs = released_in(4, bench, other)

    assert theirs == pytest.approx(400, abs=60)
    assert mine >= 0.97 * 3600


def test_back_fills_that_never_had_a_batch_earn_their_floor(bench: Bench) -> None:
    bench.begin(WatcherOptions("urgent"), WatcherOptions("w"), **GRID)
    other = sharing(bench, backfill_floor=0.1)
    bench.put_many([f"{at:05}" for at in range(6000)], watcher="urgent")
    for one in (bench, other):
        one.put_many([f"{at:05}" for at in range(6000)], priority=BACKFILL)

    released_in(4, bench, other)

    urgent, mine = bench.store.counts().watchers
    [theirs] = other.store.counts().watchers
    assert 6000 - urgent.waiting >= 0.97 * 3400
    assert 6000 - mine.waiting == pytest.approx(200, abs=60)
    assert 6000 - theirs.waiting == pytest.approx(400, abs=60)


def test_a_watchers_back_fills_wait_for_what_others_of_the_batcher_have(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=5), WatcherOptions("v", max_batch_size=5))
    bench.put_many("abcdefghij", watcher="w", priority=BACKFILL)
    bench.put_many("klmnopqrst", watcher="v")

    assert [bench.released().watcher for _ in range(4)] == ["v", "v", "w", "w"]


def test_two_that_are_dear_in_different_dimensions_both_get_what_they_save_for(
    bench: Bench,
) -> None:
    dimensions = ResourceOptions(dimensions=("a", "b"))
    bench.begin(capacity=100, others=(Limit(2, 100, 1000),), flush_ms=100, resource=dimensions)
    other = sharing(bench)
    third = sharing(bench, name="third")
    third.put(*(op(f"{at:03}", cost=1, further=(1,)) for at in range(900)))
    released_in(1, bench, other, third)
    bench.put(op("dear.a", cost=90, further=(1,)))
    other.put(op("dear.b", cost=1, further=(90,)))

    dear_a, dear_b, cheap = released_in(5, bench, other, third)

    assert (dear_a, dear_b) == (90, 1)
    assert cheap > 200


# Debts


def test_what_is_charged_above_the_estimate_is_paid_before_anything_is_released(
    bench: Bench,
) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put(bench, (6,))
    batch = start(bench)
    assert bench.store.charge(batch.id, "n", 1, Charge((9,)))
    put(bench, (1,))

    assert bench.refused() == "capacity"
    limit = bench.store.counts().limits[0]
    assert (limit.held, limit.debt) == (10, 5)  # 4 were free
    bench.clock.advance(1.010)
    assert bench.released().cost == 1
    assert bench.store.counts().limits[0].debt == 0


def test_what_is_charged_below_the_estimate_is_free_at_once(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put(bench, (10,))
    batch = start(bench)
    put(bench, (7,))
    assert bench.refused() == "capacity"

    assert bench.store.charge(batch.id, "n", 1, Charge((-7,)))
    bench.clock.advance(0.7)  # to earn the credit

    assert bench.released().cost == 7


@pytest.mark.parametrize("more", [-7, 7])
def test_a_charge_that_is_sent_again_counts_once(bench: Bench, more: int) -> None:
    bench.begin(capacity=20, flush_ms=1000)
    put(bench, (10,))
    batch = start(bench)
    for _ in range(2):
        assert bench.store.charge(batch.id, "n", 1, Charge((more,)))

    limit = bench.store.counts().limits[0]
    assert (limit.held, limit.debt) == ((3, 0) if more < 0 else (10, 7))


def test_an_unlimited_batcher_is_charged_without_effect(bench: Bench) -> None:
    bench.begin()
    put(bench, (10,))
    batch = start(bench)

    assert bench.store.charge(batch.id, "n", 1, Charge((5,), (("k", (15,)),)))
    assert bench.store.estimates("w") == {"k": (15.0,)}


def test_limits_describe_themselves() -> None:
    assert Limits().all == ()
    assert Limits(capacity=5, others=(Limit(2, 7, 9),)).all == (Limit(1, 5, 1000), Limit(2, 7, 9))
