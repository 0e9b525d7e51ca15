"""What is told of the caps of keys."""

from __future__ import annotations

from typing import Any

from builders import BACKFILL, HIGH, Bench, op, read_entries
from celery_batcher.store.options import WatcherOptions
from celery_batcher.store.outlook import KeyOutlook, Outlook

CAPPED = WatcherOptions("w", key_capacity=10, key_window_ms=1000, max_batch_size=1)


def explain(bench: Bench, **given: Any) -> Outlook:
    return bench.store.explain("w", bench.limits, **given)


def key_of(bench: Bench, cost: int, key: str = "k") -> KeyOutlook:
    told = explain(bench, costs=(cost,), key=key).key
    assert told
    return told


def head_of(outlook: Outlook) -> str:
    return read_entries(outlook.head)[0].id


def test_a_key_tells_what_started_what_is_unclaimed_and_when_there_is_room(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put(*(op(id, cost=cost, key="k") for id, cost in (("a", 4), ("b", 3), ("c", 6))))
    bench.run()
    bench.clock.advance(0.2)
    batch = bench.released()
    assert bench.refused() == "empty"

    assert key_of(bench, 6) == KeyOutlook(10, 1000, 0, 4, 3, 0, 6, 810, 810)
    assert key_of(bench, 8).wait_ms == -1  # the unclaimed batch has no end
    bench.claim(batch)
    assert key_of(bench, 8).wait_ms == 1010
    assert key_of(bench, 11).wait_ms == -1


def test_what_has_ended_is_not_held_and_other_keys_hold_nothing(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put(op("a", cost=9, key="k"), op("b", cost=8, key="k"))
    bench.run()
    bench.clock.advance(1.01)

    assert key_of(bench, 8) == KeyOutlook(10, 1000, 0, 0, 0, 0, 8, 0, -1)
    assert key_of(bench, 8, "other") == KeyOutlook(10, 1000, 0, 0, 0, 0, 8, 0, -1)
    assert explain(bench, costs=(8,)).key is None


def test_batches_in_flight_are_told_of_their_cap(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", key_concurrency=2, max_batch_size=1))
    bench.put_many("abc", key="k")
    bench.claim(bench.released())
    bench.released()
    assert bench.refused() == "empty"

    assert key_of(bench, 1) == KeyOutlook(None, 1000, 2, 0, 0, 2, 1, 0, 30_000)


def test_the_next_of_a_key_is_what_goes_before_all_others_of_it(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put(op("late", cost=2, key="k", priority=BACKFILL), op("a", cost=3, key="k"))
    assert key_of(bench, 2).next_cost == 3
    bench.put(op("b", cost=7, key="k", priority=HIGH))
    assert key_of(bench, 2).next_cost == 7


def test_halves_that_wait_are_the_next_of_their_key(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", key_capacity=10, key_window_ms=1000))
    bench.put_many("abcd", cost=2, key="k")
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "h")
    bench.released()
    assert bench.refused() == "empty"
    bench.put(op("other", cost=1, key="k", priority=HIGH))

    outlook = explain(bench)

    assert outlook.key
    assert outlook.key.next_cost == 2
    assert outlook.keys_due_ms >= 0


def test_a_watcher_is_explained_by_a_key_that_may_if_there_is_one(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put(op("a", cost=10, key="a", priority=HIGH), op("b", cost=10, key="a", priority=HIGH))
    bench.run()
    bench.clock.advance(0.4)
    assert bench.refused() == "empty"
    assert (head_of(explain(bench)), explain(bench).keys_due_ms) == ("b", 610)

    bench.put(op("c", key="c"))

    assert (head_of(explain(bench)), explain(bench).keys_due_ms) == ("c", -1)


def test_nothing_is_written_when_a_watcher_of_waiting_keys_is_explained(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    bench.run()
    assert bench.refused() == "empty"
    before = bench.snapshot()

    explain(bench)
    explain(bench, costs=(1,), key="other")

    assert bench.snapshot() == before
