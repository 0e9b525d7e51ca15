"""Looking at what waits, and removing it: data, registered ids, waits of keys and all counters."""

from __future__ import annotations

import pytest

from builders import BACKFILL, HIGH, Bench, op, read_entries
from celery_batcher.store.base import Admission, Arrival, Leased, Partition, Released
from celery_batcher.store.options import ResourceOptions, WatcherOptions


def peek(bench: Bench, most: int = 99, watcher: str = "w") -> list[str]:
    return [read_entries(one)[0].id for one in bench.store.peek(watcher, most)]


def discard_all(bench: Bench, part: str = "waiting", watcher: str = "w", most: int = 500) -> int:
    """Remove all of a part in steps; how many operations."""
    removed = left = 0
    for number in range(1000):
        gone = bench.store.discard(f"{part}{watcher}{number}", part, watcher, most, left)
        removed, left = removed + gone.operations, gone.left
        if gone.over:
            return removed
    raise AssertionError("it does not end")


def audited(bench: Bench) -> None:
    """The audit sees no difference in a whole pass."""
    for number in range(100):
        step = bench.store.audit(f"audit{number}", 0)
        assert not step.differences
        if step.over:
            return
    raise AssertionError("the audit does not end")


def test_operations_are_seen_in_the_order_in_which_they_are_released(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1000))
    bench.put_many(["late1", "late2"], priority=BACKFILL)
    bench.put_many([f"a{n}" for n in range(25)], key="a")
    bench.put_many([f"b{n}" for n in range(15)], key="b")
    bench.put_many(["first"], priority=HIGH)

    seen = peek(bench)

    assert seen[0] == "first"
    assert seen[1:21] == [f"a{n}" for n in range(10)] + [f"b{n}" for n in range(10)]
    released = [id for batch in bench.drain() for id in batch]
    assert seen == released


def test_what_came_back_and_halves_are_seen_first(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=4))
    bench.put_many("abcdef")
    bench.run("h")
    bench.put_many("gh")

    assert peek(bench) == list("abcdefgh")
    assert peek(bench, 3) == list("abc")


def test_a_batch_that_ends_within_a_block_leaves_the_rest_to_be_seen(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=3))
    bench.put_many("abcdefgh")
    bench.run()

    assert peek(bench) == list("defgh")


def test_keys_at_their_caps_are_seen_last(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1, key_concurrency=1))
    bench.put_many(["k1", "k2", "k3"], key="k")
    bench.put_many(["m1", "m2"], key="m")
    bench.released()
    bench.released()
    assert bench.refused() == "empty"
    bench.put_many(["n1"], key="n")

    assert peek(bench) == ["n1", "k2", "k3", "m2"]


def test_looking_changes_nothing_and_is_bounded(bench: Bench) -> None:
    bench.begin()
    for n in range(5):
        bench.put(op(f"o{n}", payload=b"0" * 400_000))
    before = bench.snapshot()

    assert peek(bench) == ["o0", "o1", "o2"]
    assert peek(bench, 1) == ["o0"]
    assert peek(bench, watcher="unknown") == []
    assert bench.snapshot() == before


@pytest.mark.parametrize("most", [1, 3, 500])
def test_everything_that_waits_goes_and_the_counters_with_it(bench: Bench, most: int) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=4), WatcherOptions("v"))
    bench.put_many([f"a{n}" for n in range(7)], key="a", cost=3)
    bench.put_many([f"b{n}" for n in range(7)], priority=BACKFILL, cost=2)
    bench.put(op("x", registered=True), op("y", registered=True, priority=HIGH))
    bench.run("h")
    bench.run("g")
    bench.put_many("pq", watcher="v")

    assert discard_all(bench, most=most) == 16

    counts = bench.store.counts()
    assert (counts.waiting, counts.waiting_cost, counts.unsettled_cost) == (2, 2, 2)
    assert peek(bench) == []
    audited(bench)
    assert bench.drain() == [["p", "q"]]
    assert bench.put(op("x", registered=True), op("y", registered=True)).operations == 2
    assert bench.drain() == [["x", "y"]]


@pytest.mark.parametrize("most", [1, 2, 500])
def test_what_is_delayed_goes_of_one_watcher_or_of_all(bench: Bench, most: int) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2), WatcherOptions("v", max_batch_size=2))
    for watcher in "wvwvw":
        bench.put(op("1", cost=5), op("2", cost=5), watcher=watcher)
    while isinstance(batch := bench.release(), Released):
        bench.claim(batch)
        bench.settle(batch, "hr"[batch.watcher == "v"] * 2, delays={0: 5000, 1: 5000})
        bench.clock.advance(0.001)
    assert bench.store.counts().delayed == 10

    assert discard_all(bench, "delayed", "w", most) == 6
    counts = bench.store.counts()
    assert (counts.delayed, counts.delayed_cost) == (4, 20)
    audited(bench)
    assert discard_all(bench, "delayed", "", most) == 4
    assert bench.store.counts().unfinished == 0
    audited(bench)


def test_a_step_that_is_sent_again_answers_as_before_and_removes_nothing(bench: Bench) -> None:
    bench.begin()
    bench.put_many("abcdef")
    first = bench.store.discard("step", "waiting", "w", 2)
    before = bench.snapshot()

    assert bench.store.discard("step", "waiting", "w", 2) == first
    assert bench.snapshot() == before
    assert (first.operations, first.over) == (2, False)
    assert peek(bench) == list("cdef")


def test_what_runs_stays_and_finishes(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2))
    bench.put_many("abcdef")
    opened, running = bench.released(), bench.released()
    bench.claim(running)

    assert discard_all(bench) == 2

    assert bench.settle(running)
    bench.claim(opened)
    assert bench.settle(opened)
    assert (bench.store.counts().done, bench.store.counts().unfinished) == (4, 0)
    audited(bench)


def test_backfills_that_come_later_do_not_wait_for_urgent_ones_that_are_gone(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1, key_concurrency=1))
    bench.put_many(["k1", "k2"], key="k")
    bench.put_many(["k3"], key="k", priority=BACKFILL)
    running = bench.released()
    assert bench.refused() == "empty"
    bench.claim(running)
    bench.settle(running)  # the key comes back, what is urgent first

    assert discard_all(bench) == 2

    bench.put_many(["k4"], key="k", priority=BACKFILL)
    assert bench.drain() == [["k4"]]


def test_groups_that_wait_at_the_cap_of_their_key_go_too(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=4, key_concurrency=1, max_attempts=9))
    bench.put_many("abcd", key="k")
    bench.run("h")
    running = bench.released()
    assert bench.refused() == "empty"

    assert discard_all(bench) == 2

    bench.claim(running)
    bench.settle(running)
    bench.put_many("e", key="k")
    assert bench.drain() == [["e"]]
    audited(bench)


def test_what_is_in_lanes_is_not_touched(bench: Bench) -> None:
    bench.begin()
    bench.store.admit([Admission("m", "w", 1, 4)], 99)

    assert discard_all(bench) == 0
    assert bench.store.stage(bench.token, [Arrival("m", "w", op("x", cost=4))], "").operations == 1
    assert bench.drain() == [["x"]]


def test_partitions_are_told_with_what_they_are_worth_and_how_long(bench: Bench) -> None:
    bench.begin(resource=ResourceOptions(factor=100, reserved=50), capacity=1000)
    term = bench.store.limiter("limiter", 1000, "fleet").term
    now = bench.clock.now_ms()
    bench.store.lease(term, Leased({0: now + 4000, 10: now + 2500, 2: now}, 10, 30))

    assert bench.store.leases() == [Partition(0, 100, 4000), Partition(10, 70, 2500)]


def test_a_provisioned_resource_has_no_leases(bench: Bench) -> None:
    bench.begin(capacity=1000)

    assert bench.store.leases() == []
