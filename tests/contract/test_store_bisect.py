"""A batch that fails is halved, and the halves meet no others."""

from __future__ import annotations

import pytest

from builders import Bench, Read, ids, op, read
from celery_batcher.store.base import Released, Settlement
from celery_batcher.store.options import WatcherOptions


def claimed(bench: Bench) -> tuple[Released, list[Read]]:
    """The next batch, running, and its operations."""
    batch = bench.released()
    return batch, read(bench.claim(batch).blocks)


def fail(bench: Bench, outcomes: str = "h", **details: object) -> Released:
    """The next batch, after its handler has failed."""
    batch, _ = claimed(bench)
    assert bench.settle(batch, outcomes, **details)
    return batch


def attempts(entries: list[Read]) -> dict[str, int]:
    return {one.id: one.attempt for one in entries}


def test_halves_are_batches_of_their_own_before_all_others(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=5))
    bench.put_many("cde", key="k")
    bench.put_many("fg", priority=0)
    fail(bench)
    bench.put_many("x", priority=0)

    first, second = bench.released(), bench.released()

    assert (first.trigger, second.trigger) == ("bisect", "bisect")
    assert (first.operations, second.operations) == (2, 3)
    assert ids(bench.claim(first)) == ["d", "e"]
    assert ids(bench.claim(second)) == ["f", "g", "c"]
    assert bench.store.counts().halved_batches == 1


def test_halving_counts_no_attempt_and_leaves_the_sums_as_they_were(bench: Bench) -> None:
    bench.begin()
    bench.put(op("a", cost=3), op("b", cost=4), op("c", cost=5))
    fail(bench)

    counts = bench.store.counts()
    assert (counts.waiting, counts.waiting_cost, counts.running) == (3, 12, 0)
    row = counts.watchers[0]
    assert (row.waiting, row.waiting_cost, row.next_age_ms) == (3, 12, 0)
    assert attempts(claimed(bench)[1]) == {"a": 1, "b": 1}


def test_a_half_of_one_is_alone_and_so_are_its_further_tries(bench: Bench) -> None:
    bench.begin()
    bench.put_many("ab")
    fail(bench)
    bench.put_many("cd")
    assert [fail(bench, "a").operations, fail(bench, "a").operations] == [1, 1]

    batch, entries = claimed(bench)

    assert (batch.trigger, attempts(entries)) == ("single", {"a": 3})
    assert bench.drain() == [["b"], ["c", "d"]]


def test_an_operation_that_failed_alone_is_dead_after_its_last_attempt(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=2))
    bench.put_many("a")
    fail(bench, "a", reason="why")
    assert bench.store.counts().waiting == 1
    fail(bench, "a", reason="why")

    counts = bench.store.counts()
    assert (counts.waiting, counts.dead) == (0, 1)


@pytest.mark.parametrize(("size", "capacity"), [(3, 100), (500, 30)])
def test_what_does_not_fit_stays_together(bench: Bench, size: int, capacity: int) -> None:
    bench.begin(capacity=100, flush_ms=1000)
    bench.put(*(op(name, cost=10) for name in "abcdefghij"))
    fail(bench)
    bench.put_many("xyz", cost=10)
    bench.clock.advance(2)
    bench.begin(WatcherOptions("w", max_batch_size=size))
    bench.store.set_capacity([capacity])

    found = []
    for _ in range(9):
        if isinstance(batch := bench.release(), Released):
            found.append("".join(ids(bench.claim(batch))))
            bench.settle(batch)
        bench.clock.advance(2)

    assert found == ["abc", "de", "fgh", "ij", "xyz"]
    assert bench.store.counts().waiting == 0


def test_one_that_did_not_fit_with_its_half_is_alone(bench: Bench) -> None:
    bench.begin()
    bench.put_many("abcdefgh")
    fail(bench)
    bench.put_many("xyz")
    bench.store.configure(bench.limits, [WatcherOptions("w", max_batch_size=3)])

    assert bench.drain() == [["a", "b", "c"], ["e", "f", "g"], ["d"], ["h"], ["x", "y", "z"]]


def test_halves_that_were_recalled_or_given_back_stay_together(bench: Bench) -> None:
    bench.begin()
    bench.put_many("abcdef")
    fail(bench)
    bench.put_many("xyz")
    recalled, given_back = bench.released(), bench.released()
    bench.claim(given_back)
    bench.settle(given_back, "g")
    bench.clock.advance(1)
    bench.store.pause(1)
    assert [one.id for one in bench.store.probe(bench.token, 1000, 9)] == [recalled.id]
    bench.clock.advance(1)

    assert bench.drain() == [["a", "b", "c"], ["d", "e", "f"], ["x", "y", "z"]]


def test_what_is_left_of_a_half_after_decisions_is_halved_again(bench: Bench) -> None:
    bench.begin()
    bench.put_many("abcdefgh")
    fail(bench)
    batch, _ = claimed(bench)
    assert bench.store.commit(batch.id, "n", 1, Settlement("-d-x"))
    assert bench.settle(batch, "hh")

    assert bench.drain() == [["e", "f", "g", "h"], ["a"], ["c"]]
    counts = bench.store.counts()
    assert (counts.done, counts.dead, counts.unsettled_cost) == (7, 1, 0)


def test_halves_wait_together_until_their_delay_is_over(bench: Bench) -> None:
    bench.begin()
    bench.put_many("abcd", cost=2)
    fail(bench, delays={0: 300, 1: 500})
    counts = bench.store.counts()
    assert (counts.waiting, counts.delayed, counts.delayed_cost) == (0, 4, 8)
    assert [row.delayed for row in counts.watchers] == [4]
    bench.put_many("x")
    bench.clock.advance(0.499)
    assert bench.drain() == [["x"]]
    bench.clock.advance(0.001)
    bench.put_many("y")

    assert bench.drain() == [["a", "b"], ["c", "d"], ["y"]]
    assert bench.store.counts().delayed == 0


def test_a_batch_whose_worker_was_lost_is_halved_and_counts_when_it_is_one(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=2))
    bench.put_many("ab")
    found = []
    for _ in range(5):
        batch, entries = claimed(bench)
        found.append(attempts(entries))
        bench.clock.advance(60)
        bench.store.expire(bench.token, bench.limits, "lost", 9)  # ends an outage
        bench.clock.advance(1.1)
        bench.store.expire(bench.token, bench.limits, "lost", 9)
        assert bench.settle(batch) is False

    assert found == [{"a": 1, "b": 1}, {"a": 1}, {"a": 2}, {"b": 1}, {"b": 2}]
    assert [dead.reason for dead in bench.store.dead("w", 9)] == ["lost", "lost"]


def test_without_bisect_an_attempt_counts_for_all(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", bisect=False))
    bench.put_many("ab")
    claimed(bench)
    bench.clock.advance(60)
    bench.store.expire(bench.token, bench.limits, "lost", 9)

    assert attempts(claimed(bench)[1]) == {"a": 2, "b": 2}


def test_a_redriven_operation_meets_others_again(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1))
    bench.put_many("a")
    fail(bench, "a")
    assert bench.store.counts().dead == 1
    bench.store.redrive("w", [one.number for one in bench.store.dead("w", 9)])
    bench.put_many("bc")

    assert bench.drain() == [["a", "b", "c"]]


def test_a_settlement_that_is_sent_again_halves_once(bench: Bench) -> None:
    bench.begin()
    bench.put_many("abcd")
    batch = fail(bench)
    assert bench.settle(batch, "h")

    assert bench.store.counts().halved_batches == 1
    assert bench.drain() == [["a", "b"], ["c", "d"]]
