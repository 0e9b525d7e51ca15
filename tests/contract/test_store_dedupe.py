"""Deduplication: of operations with the same dedupe_key the first is taken, others are dropped."""

from __future__ import annotations

from typing import Any

import pytest

from builders import Bench, ids, op
from celery_batcher.store.base import Staged
from celery_batcher.store.options import WatcherOptions

TAKEN, DROPPED = Staged(operations=1), Staged(duplicates=1)


def marks(bench: Bench) -> int:
    """How many ids are remembered because duplicates of them are dropped."""
    kept = bench.snapshot()
    if isinstance(kept, dict):
        return next((len(kept[name]) for name in kept if name.endswith("deduped")), 0)
    return len(dict(dict(kept)["'batchers'"][0][1]).get("'deduped'", ()))


def put(bench: Bench, id: str = "a", ms: int = 1000, **options: Any) -> Staged:
    return bench.put(op(id, dedupe_ms=ms, **options))


def finish(bench: Bench) -> list[str]:
    """Handle the next batch; the ids in it."""
    batch = bench.released()
    found = ids(bench.claim(batch))
    assert bench.settle(batch, forget=found)
    return found


def test_the_first_is_taken_and_others_are_dropped_for_the_time_after_its_arrival(
    bench: Bench,
) -> None:
    assert put(bench.begin()) == TAKEN
    finish(bench)
    assert put(bench) == DROPPED, "it is done, but came less than a second ago"
    bench.clock.advance(0.999)
    assert put(bench) == DROPPED
    bench.clock.advance(0.001)
    assert put(bench) == TAKEN


def test_others_are_dropped_while_it_lives_however_long_that_is(bench: Bench) -> None:
    put(bench.begin())
    bench.clock.advance(5)
    assert put(bench) == DROPPED, "it waits"
    batch = bench.released()
    bench.claim(batch)
    assert put(bench) == DROPPED, "it runs"
    bench.settle(batch, "r", delays={0: 500})
    assert put(bench) == DROPPED, "it is to be tried again later"
    bench.clock.advance(1)
    finish(bench)
    assert put(bench) == TAKEN


def test_a_dropped_one_does_not_make_the_time_longer(bench: Bench) -> None:
    put(bench.begin())
    finish(bench)
    bench.clock.advance(0.9)
    assert put(bench, ms=60_000) == DROPPED
    bench.clock.advance(0.1)
    assert put(bench) == TAKEN


def test_without_a_time_it_counts_while_it_lives(bench: Bench) -> None:
    assert put(bench.begin(), ms=0) == TAKEN
    assert put(bench, ms=0) == DROPPED
    finish(bench)
    assert put(bench, ms=0) == TAKEN
    assert marks(bench) == 0


def test_one_that_died_counts_until_the_time_is_over(bench: Bench) -> None:
    put(bench.begin(WatcherOptions("w", max_attempts=1)))
    bench.run("x")
    assert put(bench) == DROPPED
    bench.clock.advance(1)
    assert put(bench) == TAKEN
    assert bench.store.redrive("w", [1]) == 0, "another lives"


def test_within_one_message_too(bench: Bench) -> None:
    bench.begin()
    same, other = op("a", dedupe_ms=1000), op("b", dedupe_ms=1000)
    assert bench.put(same, other, same) == Staged(operations=2, duplicates=1)
    assert finish(bench) == ["a", "b"]


def test_dropped_ones_leave_the_books_and_are_counted(bench: Bench) -> None:
    put(bench.begin(), cost=3)
    put(bench, cost=3)
    bench.put(op("mine", registered=True))
    bench.put(op("mine", registered=True))

    counts = bench.store.counts()
    assert (counts.admitted, counts.admitted_cost, counts.waiting_cost) == (0, 0, 4)
    assert counts.duplicates == 2
    audit = bench.store.audit("a", 0)
    while not audit.over:
        audit = bench.store.audit(f"a{next(bench.numbers)}", 0)
    assert (audit.wrong, audit.skipped) == (0, ())


def test_a_lost_turn_notes_nothing(bench: Bench) -> None:
    bench.begin()
    bench.token = "lost"
    assert put(bench).lost
    bench.token = "turn-1"
    assert put(bench) == TAKEN


def test_a_message_that_comes_twice_drops_nothing(bench: Bench) -> None:
    bench.begin()
    assert bench.put(op("a", dedupe_ms=1000), id="m") == TAKEN
    assert bench.put(op("a", dedupe_ms=1000), id="m") == Staged()
    assert bench.store.counts().duplicates == 0


@pytest.mark.parametrize("bench", ["redis"], indirect=True)
def test_what_is_remembered_is_forgotten_as_fast_as_it_comes(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1000))
    for round in range(20):
        bench.put(*(op(f"{round}-{at}", dedupe_ms=1000) for at in range(100)))
        finish(bench)
        bench.clock.advance(0.5)
        assert marks(bench) <= 400


def test_the_audits_duty_forgets_what_is_over(bench: Bench) -> None:
    put(bench.begin())
    put(bench, id="b", ms=5000)
    assert marks(bench) == 2
    bench.clock.advance(1)
    bench.store.forget([])
    assert marks(bench) == 1
