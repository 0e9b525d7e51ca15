"""What both stores count for ever, and the batches they remember."""

from __future__ import annotations

import pytest

from builders import START_MS, Bench, op
from celery_batcher.metrics import WatcherMeters, meters_of
from celery_batcher.store.base import Arrival, Settlement
from celery_batcher.store.meters import RECENT, BatchRecord, FlushRecord
from celery_batcher.store.options import WatcherOptions

SINGLE = WatcherOptions("w", max_batch_size=1)


def row(bench: Bench, watcher: str = "w") -> WatcherMeters:
    """What was counted of a watcher."""
    (found,) = [one for one in meters_of(bench.store.meters()).watchers if one.name == watcher]
    return found


def counted(numbers: dict[str, int]) -> dict[str, int]:
    return {name: n for name, n in numbers.items() if n}


# Counters


def test_operations_are_counted_as_they_come_into_the_index_each_once(bench: Bench) -> None:
    bench.begin().put(op("a", registered=True), op("b"))
    bench.put(op("a", registered=True), op("c"))  # a is there already
    message = [Arrival("m", "v", op("d"))]
    bench.store.stage(bench.token, message, "")

    bench.store.stage(bench.token, message, "")
    bench.store.stage("lost", [Arrival("n", "v", op("e"))], "")

    assert row(bench).enqueued == 3
    assert row(bench, "v").enqueued == 1


@pytest.mark.parametrize(
    ("outcomes", "settled"),
    [
        ("d", {"done": 5}),
        ("drxga", {"done": 1, "retried": 2, "dead": 1, "given_back": 1}),
        ("dhhhx", {"done": 1, "halved": 3, "dead": 1}),
        ("g", {"given_back": 5}),
    ],
)
def test_operations_are_counted_by_their_outcome(
    bench: Bench, outcomes: str, settled: dict[str, int]
) -> None:
    bench.begin().put_many("abcde")
    batch = bench.released()
    bench.claim(batch)
    assert row(bench).settled == dict.fromkeys(
        ("done", "retried", "halved", "given_back", "dead"), 0
    )

    bench.settle(batch, outcomes)
    bench.settle(batch, outcomes)

    assert counted(dict(row(bench).settled)) == settled


def test_an_operation_that_has_used_up_its_tries_is_counted_as_dead(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=2)).put_many("a")

    bench.run("r")
    bench.run("r")

    assert counted(dict(row(bench).settled)) == {"retried": 1, "dead": 1}


def test_outcomes_are_counted_as_they_are_committed_each_once(bench: Bench) -> None:
    bench.begin().put_many("abcd")
    batch = bench.released()
    bench.claim(batch)

    for _ in range(2):
        assert bench.store.commit(batch.id, "n", 1, Settlement("dx--"))
    assert counted(dict(row(bench).settled)) == {"done": 1, "dead": 1}
    assert bench.store.commit(batch.id, "n", 2, Settlement("r-"))
    bench.settle(batch)

    assert counted(dict(row(bench).settled)) == {"done": 2, "dead": 1, "retried": 1}


def test_redriven_dead_letters_are_counted_apart(bench: Bench) -> None:
    bench.begin().put_many("ab")
    bench.run("x")

    bench.store.redrive("w", [1, 2])
    bench.store.redrive("w", [1, 2])

    assert (row(bench).redriven, row(bench).enqueued) == (2, 2)


def test_batches_are_counted_by_trigger_with_their_cost(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2), capacity=100, flush_ms=1000)
    bench.put(op("a", cost=3), op("b", cost=4), op("c", cost=5, batchable=False), op("d", cost=80))
    bench.put(op("e", cost=90))
    first = bench.released()
    assert bench.store.release(bench.token, first.id, bench.limits).operations == 2  # a repeat
    for _ in range(2):
        bench.released()
    bench.refused()

    assert counted(dict(row(bench).batches)) == {"size": 1, "single": 1, "capacity": 1}
    assert row(bench).cost_released == 3 + 4 + 5 + 80


def test_halves_are_batches_of_the_trigger_bisect(bench: Bench) -> None:
    bench.begin().put_many("abcd")
    bench.run("h")
    bench.run()

    assert counted(dict(row(bench).batches)) == {"interval": 1, "bisect": 1}


# How claims and batches end


def test_claims_that_expire_are_counted_and_so_is_what_becomes_of_their_operations(
    bench: Bench,
) -> None:
    bench.begin(WatcherOptions("w", bisect=False)).put_many("abc")
    bench.claim(bench.released(), ms=100)
    bench.store.expire(bench.token, bench.limits, "late", 9)
    bench.clock.advance(0.1)

    for _ in range(2):
        bench.store.expire(bench.token, bench.limits, "late", 9)

    found = row(bench)
    assert (found.expired, found.abandoned, found.recalled) == (1, 0, 0)
    assert counted(dict(found.settled)) == {"retried": 3}
    assert (found.batch_duration.count, found.batch_duration.sum) == (1, 0.1)


@pytest.mark.parametrize(("attempt", "outcome"), [(True, "retried"), (False, "given_back")])
def test_claims_that_are_abandoned_are_counted(bench: Bench, attempt: bool, outcome: str) -> None:
    bench.begin(WatcherOptions("w", bisect=False)).put_many("ab")
    batch = bench.released()
    bench.claim(batch, "me/1")

    for _ in range(2):
        bench.store.abandon(batch.id, "me", "lost", attempt=attempt)

    assert (row(bench).expired, row(bench).abandoned) == (0, 1)
    assert counted(dict(row(bench).settled)) == {outcome: 2}
    assert [one.state for one in bench.store.recent(9)] == ["abandoned"]


def test_recalled_batches_are_counted_and_their_operations_are_not(bench: Bench) -> None:
    bench.begin().put_many("ab")
    bench.released()
    bench.clock.advance(1)

    for _ in range(2):
        bench.store.probe(bench.token, 1000, 9)

    assert row(bench).recalled == 1
    assert counted(dict(row(bench).settled)) == {}
    assert row(bench).batch_duration.count == 0


def test_a_batch_too_dear_at_its_claim_is_recalled(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000).put(op("a", cost=8))
    batch = bench.released()
    bench.store.set_capacity([5])

    assert bench.claim(batch).state == "recalled"

    assert row(bench).recalled == 1
    (recent,) = bench.store.recent(1)
    assert (recent.state, recent.operations, recent.cost) == ("recalled", 1, 8)


# Histograms


def test_sizes_and_waits_are_seen_at_the_release_and_durations_at_the_end(bench: Bench) -> None:
    bench.begin().put(op("a", enqueued_ms=START_MS - 1500), op("b"), op("c"))
    batch = bench.released()
    bench.clock.advance(0.2)
    bench.claim(batch)
    bench.clock.advance(0.3)
    bench.settle(batch)

    found = row(bench)
    assert (found.batch_size.count, found.batch_size.sum) == (1, 3)
    assert (found.operation_wait.count, found.operation_wait.sum) == (1, 1.5)
    assert (found.batch_duration.count, found.batch_duration.sum) == (1, 0.3)
    sizes = dict(zip(found.batch_size.bounds, found.batch_size.counts, strict=False))
    waits = dict(zip(found.operation_wait.bounds, found.operation_wait.counts, strict=False))
    durations = dict(zip(found.batch_duration.bounds, found.batch_duration.counts, strict=False))
    assert (sizes[2], sizes[5], sizes[1000]) == (0, 1, 1)
    assert (waits[1.0], waits[2.5]) == (0, 1)
    assert (durations[0.25], durations[0.5]) == (0, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_value_on_a_bound_is_below_it_and_one_beyond_all_is_counted(
    bench: Bench, size: int
) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2000))
    bench.put_many([f"o{n}" for n in range(size)], enqueued_ms=START_MS - 7_200_001)
    bench.released()

    found = row(bench)
    sizes = dict(zip(found.batch_size.bounds, found.batch_size.counts, strict=False))
    assert sizes == {bound: int(size <= bound) for bound in found.batch_size.bounds}
    assert found.operation_wait.counts[-2:] == (0, 1)


def test_a_clock_of_a_producer_that_is_ahead_makes_no_negative_age(bench: Bench) -> None:
    bench.begin().put(op("a", enqueued_ms=START_MS + 60_000))
    bench.released()

    assert row(bench).operation_wait.sum == 0


# Flushes


def test_flushes_are_counted_by_why_they_end_and_the_newest_is_remembered(bench: Bench) -> None:
    bench.begin()
    assert bench.store.counts().last_flush is None
    for reason, wait in (("empty", 1.0), ("paused", 0.5), ("paused", 0.25)):
        if reason == "paused":
            bench.store.pause(-1)
        bench.clock.advance(wait)
        bench.store.release(bench.token, f"{wait}", bench.limits, (3, 250))
        bench.store.release(bench.token, f"{wait}", bench.limits, (3, 250))  # its reply was lost

    counts = bench.store.counts()

    assert counts.last_flush == FlushRecord(counts.now_ms, 3, 250, "paused")
    assert meters_of(bench.store.meters()).flushes == {"empty": 1, "paused": 2}


def test_a_turn_that_is_lost_ends_no_flush(bench: Bench) -> None:
    bench.begin()
    bench.store.release("lost", "b", bench.limits)

    assert bench.store.counts().last_flush is None
    assert meters_of(bench.store.meters()).flushes == {}


# Recent batches


def test_a_batch_is_shown_from_its_release_to_its_end(bench: Bench) -> None:
    bench.begin(capacity=100, flush_ms=1000)
    bench.put(op("a", cost=2, enqueued_ms=START_MS - 700), op("b", cost=3), op("c"), op("d"))
    batch = bench.released()
    expected = BatchRecord(
        id=batch.id,
        watcher="w",
        operations=4,
        cost=7,
        trigger="interval",
        state="released",
        oldest_ms=START_MS - 700,
        released_ms=START_MS,
        started_ms=None,
        ended_ms=None,
        outcomes=(0, 0, 0, 0, 0),
    )
    assert bench.store.recent(9) == [expected]
    bench.clock.advance(1)
    bench.claim(batch)
    bench.store.commit(batch.id, "n", 1, Settlement("d--x"))
    running = BatchRecord(
        **{
            **{name: getattr(expected, name) for name in BatchRecord.__slots__},
            "state": "running",
            "started_ms": START_MS + 1000,
            "outcomes": (1, 0, 0, 0, 1),
        }
    )
    assert bench.store.recent(9) == [running]
    bench.clock.advance(1)

    bench.settle(batch, "rd")

    ended = {"state": "settled", "ended_ms": START_MS + 2000, "outcomes": (2, 1, 0, 0, 1)}
    fields = {name: getattr(running, name) for name in BatchRecord.__slots__}
    assert bench.store.recent(9) == [BatchRecord(**{**fields, **ended})]


def test_of_many_batches_the_newest_are_shown_first(bench: Bench) -> None:
    bench.begin(SINGLE).put_many([f"o{n}" for n in range(2 * RECENT + 20)])
    for n in range(2 * RECENT + 10):
        batch = bench.release(f"b{n:03}")
        bench.claim(batch.id)
        bench.settle(batch.id)
        bench.clock.advance(0.001)

    newest = [f"b{n:03}" for n in reversed(range(2 * RECENT + 10))]
    assert [one.id for one in bench.store.recent(3)] == newest[:3]
    assert [one.id for one in bench.store.recent(9999)] == newest[:RECENT]
