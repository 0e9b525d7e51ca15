"""What both stores release, how much of it, and who may claim it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from builders import HIGH, Bench, ids, op
from celery_batcher.store.base import Refused, Released
from celery_batcher.store.options import Limits, ResourceOptions, WatcherOptions

MEBIBYTE = 1024 * 1024


def put_costs(bench: Bench, *costs: int, watcher: str = "w", **options: object) -> None:
    bench.put(*(op(f"{watcher}{at}", cost=cost, **options) for at, cost in enumerate(costs)),  # type: ignore[arg-type]
              watcher=watcher)  # fmt: skip


# How much goes into a batch


def test_a_batch_says_what_is_in_it_and_why_it_ended(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2))
    bench.put(*(op(id, cost=cost) for id, cost in [("a", 2), ("b", 3), ("c", 4)]))
    bench.clock.advance(0.25)

    assert bench.release("one") == Released("one", "w", 2, 5, "size", 250)
    assert bench.release("two") == Released("two", "w", 1, 4, "interval", 250)
    assert bench.release("three") == Refused("empty", -1)
    counts = bench.store.counts()
    assert (counts.open, counts.open_cost, counts.open_batches, counts.waiting) == (3, 9, 2, 0)


def test_an_operation_that_is_not_batchable_is_alone(bench: Bench) -> None:
    bench.begin()
    bench.put(op("a"), op("b"), op("alone", batchable=False), op("c"), op("d"))

    batches = [bench.released() for _ in range(3)]

    assert [ids(bench.claim(batch)) for batch in batches] == [["a", "b"], ["alone"], ["c", "d"]]
    assert [batch.trigger for batch in batches] == ["interval", "single", "interval"]


def test_a_batch_is_not_larger_than_a_mebibyte(bench: Bench) -> None:
    bench.begin()
    payload = b"x" * (MEBIBYTE // 4)
    for at in range(5):
        bench.put(op(f"o{at}", payload=payload))

    first = bench.released()

    assert (first.operations, first.trigger) == (3, "size")
    assert len(bench.claim(first).blocks) <= MEBIBYTE
    assert bench.released().operations == 2


def test_an_operation_of_the_largest_size_goes_alone(bench: Bench) -> None:
    bench.begin()
    bench.put(op("big", payload=b"x" * MEBIBYTE))
    bench.put(op("small"))

    assert bench.drain() == [["big"], ["small"]]


def test_a_batch_takes_no_more_than_the_capacity(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 4, 4, 4)

    batch = bench.released()

    assert (batch.cost, batch.trigger) == (8, "capacity")


# Refusals


def test_a_turn_that_was_lost_releases_nothing(bench: Bench) -> None:
    bench.begin(capacity=10).put_many("ab")
    before = bench.snapshot()

    assert bench.store.release("lost", "b", bench.limits) == Refused("lost", 0)

    assert bench.snapshot() == before


@pytest.mark.parametrize("reason", ["empty", "paused", "closed", "open", "concurrency"])
def test_a_refused_release_leaves_no_trace_but_that_a_flush_ended(
    bench: Bench, reason: str
) -> None:
    bench.begin(
        max_open_batches=1 if reason == "open" else 256,
        max_concurrent_batches=1 if reason == "concurrency" else 0,
    )
    if reason != "empty":
        bench.put(op("a"), op("b", batchable=False))
        bench.released()
    if reason == "paused":
        bench.store.pause(500)
    if reason == "closed":
        bench.store.shut(500)
    before = bench.store.counts()

    assert bench.refused() == reason

    after = bench.store.counts()
    assert after.last_flush is not None
    assert replace(after, last_flush=before.last_flush) == before


def test_a_release_that_capacity_refuses_changes_nothing_but_credit_and_the_head_in_need(
    bench: Bench,
) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 8, 8)
    bench.released()
    counts = bench.store.counts()

    assert bench.refused() == "capacity"

    assert replace(bench.store.counts(), last_flush=None) == counts


def test_at_most_max_open_batches_are_unclaimed(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), max_open_batches=2).put_many("abc")
    first = bench.released()
    bench.released()
    assert bench.refused() == "open"

    bench.claim(first)

    assert isinstance(bench.release(), Released)


def test_a_batcher_has_at_most_max_concurrent_batches_open_or_running(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), max_concurrent_batches=2).put_many("abc")
    first, second = bench.released(), bench.released()
    bench.claim(first)
    assert bench.refused() == "concurrency"
    bench.claim(second)
    assert bench.refused() == "concurrency"

    bench.settle(first)

    assert isinstance(bench.release(), Released)


def test_a_watcher_has_at_most_max_concurrent_batches_while_others_go_on(bench: Bench) -> None:
    bench.begin(
        WatcherOptions("w", max_batch_size=1, max_concurrent_batches=1),
        WatcherOptions("free", max_batch_size=1),
    )
    bench.put_many("abc")
    bench.put_many("xyz", watcher="free")

    released = [bench.released() for _ in range(4)]

    assert sorted(batch.watcher for batch in released) == ["free", "free", "free", "w"]
    assert bench.refused() == "empty"
    (mine,) = (batch for batch in released if batch.watcher == "w")
    bench.claim(mine)
    assert bench.refused() == "empty"
    bench.settle(mine)
    assert bench.released().watcher == "w"


# Pacing


def test_one_flush_releases_what_was_earned_since_the_last(bench: Bench) -> None:
    bench.begin(capacity=1000)
    bench.put_many([f"o{at:04}" for at in range(2000)])

    assert [len(bench.run()), bench.refused()] == [100, "credit"]
    bench.clock.advance(0.1)
    assert [len(bench.run()), bench.refused()] == [100, "credit"]
    bench.clock.advance(0.0625)
    assert len(bench.run()) == 62


def test_a_batch_cut_by_credit_is_half_of_a_full_one_at_least(bench: Bench) -> None:
    bench.begin(capacity=1000)
    bench.put_many([f"o{at:04}" for at in range(1000)])
    bench.drain()
    bench.clock.advance(0.049)
    assert bench.refused() == "credit"
    bench.clock.advance(0.001)
    assert bench.released().operations == 50


def test_credit_is_capped_at_two_flush_intervals(bench: Bench) -> None:
    bench.begin(capacity=1000)
    bench.put_many([f"o{at:04}" for at in range(1000)])
    bench.drain()
    bench.clock.advance(60)

    assert sum(len(batch) for batch in bench.drain()) == 200


def test_asking_often_brings_no_more_credit(bench: Bench) -> None:
    bench.begin(capacity=1000)
    bench.put_many([f"o{at:04}" for at in range(1000)])
    total = sum(len(batch) for batch in bench.drain())

    for _ in range(50):
        bench.clock.advance(0.002)
        total += sum(len(batch) for batch in bench.drain())

    assert total == 200


def test_a_dear_head_saves_up_for_its_cost(bench: Bench) -> None:
    bench.begin(WatcherOptions("w"), WatcherOptions("v"), capacity=1000)
    put_costs(bench, 100, watcher="v")
    bench.run()
    put_costs(bench, 900)
    refusals = []
    while isinstance(answer := bench.release(), Refused):
        refusals.append((answer.reason, answer.wait_ms))
        bench.clock.advance(0.1)

    assert refusals[0] == ("credit", 900)
    assert len(refusals) == 9
    assert answer.cost == 900


def test_the_wait_of_a_refusal_for_credit_is_enough(bench: Bench) -> None:
    bench.begin(capacity=7, flush_ms=100)
    put_costs(bench, 3, 3)
    bench.run()
    answer = bench.release()
    assert isinstance(answer, Refused)

    bench.clock.advance(answer.wait_ms / 1000)

    assert isinstance(bench.release(), Released)


def test_capacity_zero_releases_only_what_costs_nothing(bench: Bench) -> None:
    bench.begin(WatcherOptions("w"), WatcherOptions("dear"), capacity=0)
    put_costs(bench, 0, 0)
    put_costs(bench, 1, watcher="dear")

    assert bench.drain() == [["w0", "w1"]]
    bench.clock.advance(100)
    assert bench.refused() == "empty"
    assert bench.store.counts().waiting == 1


def test_a_capacity_below_one_flush_per_operation_makes_progress(bench: Bench) -> None:
    bench.begin(capacity=9)
    bench.put_many([f"o{at:02}" for at in range(30)])
    released = 0
    for _ in range(30):
        released += sum(len(batch) for batch in bench.drain())
        bench.clock.advance(0.1)

    assert 24 <= released <= 30


# Holds


def test_released_capacity_is_held_without_an_end_until_it_is_claimed(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 10, 10)
    bench.released()

    bench.clock.advance(3600)

    assert bench.refused() == "capacity"
    assert bench.store.counts().held == 10


def test_a_hold_ends_one_window_and_the_grace_after_the_claim(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 10, 10)
    batch = bench.released()
    bench.clock.advance(0.5)
    bench.claim(batch)

    answer = bench.release()
    assert answer == Refused("capacity", 1010)
    bench.clock.advance(1.009)
    assert bench.release() == Refused("capacity", 1)
    bench.clock.advance(0.001)
    assert bench.store.counts().held == 0
    assert isinstance(bench.release(), Released)


def test_an_early_finish_does_not_shorten_a_hold(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 10, 10)
    bench.run()

    assert bench.store.counts().held == 10
    bench.clock.advance(1.0)
    assert bench.refused() == "capacity"


def test_the_window_is_the_resources(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=6000, window_ms=60_000)
    put_costs(bench, 1)
    bench.run()

    bench.clock.advance(60.009)
    assert bench.store.counts().held == 1
    bench.clock.advance(0.031)  # ends of long windows are rounded up by a 2,000th at most
    assert bench.store.counts().held == 0


def test_a_renewed_hold_lasts_from_the_renewal(bench: Bench) -> None:
    bench.begin(capacity=10)
    put_costs(bench, 1)
    batch = bench.released()
    bench.claim(batch)
    bench.clock.advance(0.9)

    assert bench.store.renew(batch.id, "n", bench.limits, "r1") is True

    bench.clock.advance(1.009)
    assert bench.store.counts().held == 1
    bench.clock.advance(0.001)
    assert bench.store.counts().held == 0


def test_a_hold_that_has_ended_cannot_be_renewed(bench: Bench) -> None:
    bench.begin(capacity=10)
    put_costs(bench, 1)
    batch = bench.released()
    bench.claim(batch)
    bench.clock.advance(1.010)
    bench.store.counts()
    before = bench.snapshot()

    assert bench.store.renew(batch.id, "n", bench.limits, "r1") is False

    assert bench.snapshot() == before


@pytest.mark.parametrize("how", ["closed", "paused"])
def test_a_hold_is_not_renewed_while_nothing_may_start(bench: Bench, how: str) -> None:
    bench.begin(capacity=10)
    put_costs(bench, 1)
    batch = bench.released()
    bench.claim(batch)
    if how == "closed":
        bench.store.shut(500)
    else:
        bench.store.pause(500)
    before = bench.snapshot()

    assert bench.store.renew(batch.id, "n", bench.limits, "r1") is False

    assert bench.snapshot() == before
    bench.clock.advance(0.5)
    assert bench.store.renew(batch.id, "n", bench.limits, "r1") is True


def test_only_the_claim_itself_renews_its_hold(bench: Bench) -> None:
    bench.begin(capacity=10)
    put_costs(bench, 1, 1)
    batch = bench.released()
    assert bench.store.renew(batch.id, "n", bench.limits, "r") is False
    bench.claim(batch)
    before = bench.snapshot()

    assert bench.store.renew(batch.id, "other", bench.limits, "r") is False
    assert bench.store.renew("unknown", "n", bench.limits, "r") is False

    assert bench.snapshot() == before


def test_holds_that_end_in_the_same_millisecond_are_renewed_one_by_one(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=10, flush_ms=1000)
    put_costs(bench, 2, 3)
    first, second = bench.released(), bench.released()
    bench.claim(first)
    bench.claim(second)
    bench.clock.advance(0.5)

    bench.store.renew(first.id, "n", bench.limits, "r")

    bench.clock.advance(0.51)
    assert bench.store.counts().held == 2
    assert bench.store.renew(second.id, "n", bench.limits, "r") is False


def test_a_hold_that_a_clock_has_put_too_far_away_is_cut(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 10, 10)
    bench.clock.advance(3600)
    bench.run()
    bench.clock.advance(-3600)

    assert bench.release() == Refused("capacity", 1010)
    bench.clock.advance(1.010)
    assert isinstance(bench.release(), Released)


# The claim enforces


def test_a_batch_is_claimed_once_however_often_celery_delivers_it(bench: Bench) -> None:
    bench.begin().put_many("ab")
    batch = bench.released()

    assert ids(bench.claim(batch, "one")) == ["a", "b"]
    before = bench.snapshot()
    assert bench.claim(batch, "two").state == "taken"
    assert bench.snapshot() == before
    bench.settle(batch, nonce="one")
    assert bench.claim(batch, "two").state == "gone"
    assert bench.claim("unknown").state == "gone"


def test_a_claim_says_how_long_it_lasts(bench: Bench) -> None:
    bench.begin().put_many("a")
    batch = bench.released()

    assert bench.claim(batch, ms=31_000).remaining_ms == 31_000
    bench.clock.advance(1)
    assert bench.claim(batch, ms=31_000).remaining_ms == 30_000


@pytest.mark.parametrize("blocked", ["paused", "closed"])
def test_a_pause_and_a_closed_resource_bind_batches_already_released(
    bench: Bench, blocked: str
) -> None:
    bench.begin(capacity=10).put_many("a")
    batch = bench.released()
    if blocked == "paused":
        bench.store.pause(500)
    else:
        bench.store.shut(500)

    assert bench.claim(batch).state == "wait"

    counts = bench.store.counts()
    assert (counts.open_batches, counts.running_batches, counts.held) == (1, 0, 1)
    bench.clock.advance(0.5)
    assert [offer.id for offer in bench.store.offer(bench.token, 9)] == [batch.id]
    assert bench.claim(batch).state == "claimed"


def test_a_lowered_capacity_binds_batches_already_released(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=10, flush_ms=1000)
    put_costs(bench, 4, 4)
    first, second = bench.released(), bench.released()
    assert bench.store.set_capacity([5]) == (10,)

    assert bench.claim(first).state == "claimed"
    assert bench.claim(second).state == "wait"
    bench.clock.advance(1.009)
    assert bench.claim(second).state == "wait"
    bench.clock.advance(0.001)
    assert bench.claim(second).state == "claimed"


def test_a_batch_dearer_than_the_capacity_of_now_is_recalled_and_nothing_is_lost(
    bench: Bench,
) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 3, 3, 3)
    batch = bench.released()
    bench.store.set_capacity([6])

    assert bench.claim(batch).state == "recalled"

    counts = bench.store.counts()
    assert (counts.waiting, counts.open, counts.held, counts.unsettled_cost) == (3, 0, 0, 9)
    assert bench.claim(batch).state == "gone"
    bench.clock.advance(1)
    assert bench.run() == ["w0", "w1"]


def test_an_operation_dearer_than_the_capacity_waits_until_it_is_raised(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    put_costs(bench, 9)
    bench.store.set_capacity([5])
    assert bench.refused() == "empty"

    bench.store.set_capacity([10])
    bench.clock.advance(1)

    assert bench.released().cost == 9


def test_a_ramp_that_the_code_has_no_more_slows_nothing_down(bench: Bench) -> None:
    bench.begin(capacity=10, resource=ResourceOptions(ramp=(1,)))
    bench.begin(resource=ResourceOptions())

    bench.store.set_capacity([20])

    assert [one.usable for one in bench.store.counts().limits] == [20]


def test_batches_released_without_a_limit_hold_nothing(bench: Bench) -> None:
    bench.begin()
    put_costs(bench, 5)
    batch = bench.released()
    bench.claim(batch)

    assert bench.store.counts().held == 0
    assert bench.store.renew(batch.id, "n", bench.limits, "r") is True


def test_a_watchers_unclaimed_cost_is_two_flush_intervals_of_its_share(bench: Bench) -> None:
    bench.begin(WatcherOptions("late"), WatcherOptions("w"), capacity=1000)
    bench.put_many([f"l{at:04}" for at in range(1000)], watcher="late")
    for _ in range(20):
        bench.release()
        bench.clock.advance(0.1)
    assert bench.store.counts().open_cost == 200

    bench.put_many([f"o{at:04}" for at in range(1000)])
    done = 0
    for _ in range(20):
        while isinstance(batch := bench.release(), Released):
            assert batch.watcher == "w"
            bench.claim(batch)
            bench.settle(batch)
            done += batch.cost
        bench.clock.advance(0.1)

    assert done == 1000


# Several batchers on one resource


def sibling(bench: Bench, name: str) -> Bench:
    """Another batcher on the same resource, with the same limits."""
    assert bench.reopen is not None
    other = bench.reopen(name, "resource")
    other.limits = bench.limits
    other.numbers = count(1000)
    return other.begin(WatcherOptions("w"))


def test_batchers_that_name_one_resource_share_its_capacity(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    other = sibling(bench, "other")
    put_costs(bench, 6)
    put_costs(other, 6)

    bench.released()

    assert other.refused() == "capacity"
    assert other.store.counts().held == 6
    assert other.store.counts().open_cost == 0


def test_batchers_of_different_resources_share_nothing(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    assert bench.reopen is not None
    other = bench.reopen("other", "another").begin(WatcherOptions("w"), capacity=10, flush_ms=1000)
    put_costs(bench, 10)
    put_costs(other, 10)
    bench.store.shut(1000)

    assert bench.refused() == "closed"
    assert other.released().cost == 10


def test_a_closed_resource_is_closed_for_all_its_batchers_and_a_pause_is_the_batchers_own(
    bench: Bench,
) -> None:
    bench.begin(capacity=10)
    other = sibling(bench, "other")
    for one in (bench, other):
        put_costs(one, 1)

    bench.store.pause(1000)
    assert (bench.refused(), isinstance(other.release(), Released)) == ("paused", True)
    bench.store.pause(0)
    bench.store.shut(1000)
    put_costs(other, 1)
    assert (bench.refused(), other.refused()) == ("closed", "closed")


def test_room_is_left_for_a_head_in_need(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    other = sibling(bench, "other")
    put_costs(bench, 4)
    bench.run()
    put_costs(other, 8)
    assert other.refused() == "capacity"

    put_costs(bench, 2)
    assert bench.refused() == "capacity"

    bench.clock.advance(1.010)
    assert other.released().cost == 8
    assert bench.released().cost == 2


def test_the_note_of_a_head_in_need_lapses_when_it_is_not_renewed(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    other = sibling(bench, "other")
    put_costs(bench, 4)
    bench.run()
    put_costs(other, 8)
    assert other.refused() == "capacity"
    put_costs(bench, 3)
    bench.clock.advance(2.999)
    assert bench.refused() == "capacity"
    bench.clock.advance(0.001)
    assert bench.released().cost == 3


@pytest.mark.parametrize("first", ["dear", "cheap"])
def test_a_dear_operation_is_not_starved_by_another_batcher_of_the_resource(
    bench: Bench, first: str
) -> None:
    bench.begin(capacity=1000)
    cheap = sibling(bench, "cheap")
    cheap.put_many([f"o{at:05}" for at in range(10_000)])
    for _ in range(20):
        cheap.drain()
        cheap.clock.advance(0.1)
    put_costs(bench, 900)

    dear_at = None
    for at in range(60):
        if first == "cheap":
            cheap.drain()
        if bench.drain():
            dear_at = at
            break
        if first == "dear":
            cheap.drain()
        bench.clock.advance(0.1)

    assert dear_at is not None, "not released in 6 s"


def test_head_of_a_high_priority_is_tried_first(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    bench.put(op("cheap", cost=1), op("dear", cost=10, priority=HIGH))

    assert bench.run() == ["dear"]


def test_limits_are_those_of_the_call(bench: Bench) -> None:
    assert Limits(window_ms=1000, grace_ms=10).hold_ms == 1010
