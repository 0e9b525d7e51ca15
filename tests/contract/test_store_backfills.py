"""Back-fills in the store: one runs at a time, and rows and checkpoint change together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import START_MS, Bench, op
from celery_batcher.store.backfills import BackfillState, Chunk
from celery_batcher.store.options import WatcherOptions

LEASE = 1000


def take(bench: Bench, token: str = "t", **options: Any) -> bool:
    return bench.store.take_backfill("b", "w", token, LEASE, f"host:{token}", **options)


def chunk(number: int, *ids: str, checkpoint: str = "", skip: int = 0) -> Chunk:
    entries = b"".join(op(id) for id in ids)
    return Chunk(number, entries, len(ids), len(ids), checkpoint or str(number), skip)


def fill(bench: Bench, one: Chunk, token: str = "t", most: int = 100) -> str:
    return bench.store.fill("b", token, LEASE, "w", one, most)


def state(bench: Bench) -> BackfillState:
    return bench.store.backfills("b")[0]


def started(bench: Bench) -> Bench:
    bench.begin(WatcherOptions("w"))
    assert take(bench)
    return bench


def test_rows_wait_and_the_checkpoint_is_behind_them(bench: Bench) -> None:
    started(bench)
    assert fill(bench, chunk(1, "a", "b", checkpoint="17", skip=1)) == "taken"

    assert state(bench) == BackfillState(
        "b",
        START_MS,
        watcher="w",
        run=1,
        chunk=1,
        rows=2,
        checkpoint="17",
        skip=1,
        began_ms=START_MS,
        owner="host:t",
        until_ms=START_MS + LEASE,
        since_ms=START_MS,
        fed_ms=START_MS,
    )
    counts = bench.store.counts()
    assert (counts.waiting, counts.waiting_cost, counts.admitted) == (2, 2, 0)
    assert bench.drain() == [["a", "b"]]


def test_a_chunk_that_is_sent_twice_is_taken_once(bench: Bench) -> None:
    started(bench)
    assert fill(bench, chunk(1, "a")) == "taken"
    before = bench.snapshot()
    assert fill(bench, chunk(1, "a")) == "taken"

    assert bench.snapshot() == before
    assert bench.drain() == [["a"]]


def test_another_cannot_take_it_until_the_lease_has_ended(bench: Bench) -> None:
    started(bench)
    bench.clock.advance(0.999)
    assert not take(bench, "other")
    bench.clock.advance(0.001)
    assert take(bench, "other")

    assert state(bench).owner == "host:other"
    before = bench.snapshot()
    assert fill(bench, chunk(1, "a")) == "lost"
    assert not take(bench, keep=True)
    assert not bench.store.leave_backfill("b", "t", done=True)
    assert bench.snapshot() == before


def test_a_lease_is_kept_by_its_holder_and_by_every_chunk(bench: Bench) -> None:
    started(bench)
    for number in range(1, 4):
        bench.clock.advance(0.9)
        assert fill(bench, chunk(number, f"{number}")) == "taken"
    bench.clock.advance(0.9)
    assert take(bench, keep=True)
    bench.clock.advance(0.9)
    assert not take(bench, "other")
    assert state(bench).since_ms == START_MS


def test_who_is_late_keeps_it_while_nobody_has_taken_it(bench: Bench) -> None:
    started(bench)
    bench.clock.advance(10)
    assert fill(bench, chunk(1, "a")) == "taken"
    assert state(bench).runs


def test_the_next_goes_on_where_it_was(bench: Bench) -> None:
    started(bench)
    fill(bench, chunk(1, "a", "b"))
    assert bench.store.leave_backfill("b", "t", error="OSError: away")
    assert (state(bench).runs, state(bench).error) == (False, "OSError: away")
    assert not take(bench, keep=True), "it was given back"
    bench.clock.advance(5)
    assert take(bench, "next")

    found = state(bench)
    assert (found.run, found.chunk, found.rows, found.checkpoint) == (1, 1, 2, "1")
    assert (found.since_rows, found.since_ms, found.error) == (2, START_MS + 5000, "")
    assert fill(bench, chunk(2, "c"), "next") == "taken"


def test_a_complete_one_begins_anew_only_when_told_so(bench: Bench) -> None:
    started(bench)
    fill(bench, replace(chunk(1, "a"), total=9))
    bench.clock.advance(1)
    assert bench.store.leave_backfill("b", "t", done=True)
    found = state(bench)
    assert (found.done, found.ended_ms, found.total) == (True, START_MS + 1000, 9)
    assert not take(bench)
    assert take(bench, again=True)

    assert state(bench) == BackfillState(
        "b",
        START_MS + 1000,
        watcher="w",
        run=2,
        began_ms=START_MS + 1000,
        owner="host:t",
        until_ms=START_MS + 1000 + LEASE,
        since_ms=START_MS + 1000,
    )
    assert fill(bench, chunk(1, "a")) == "taken"
    assert bench.store.counts().waiting == 2


@pytest.mark.parametrize(
    ("stop", "answer"),
    [
        (lambda s: s.hold_backfill("b", "w", hold=True), "held"),
        (lambda s: s.pause(-1), "paused"),
        (lambda s: s.pause(500), "paused"),
        (lambda s: s.drain(), "draining"),
    ],
)
def test_nothing_is_taken_while_it_or_the_batcher_stands_still(
    bench: Bench, stop: Any, answer: str
) -> None:
    started(bench)
    assert stop(bench.store)
    before = state(bench), bench.store.counts()
    assert fill(bench, chunk(1, "a")) == answer
    assert (state(bench), bench.store.counts()) == before
    bench.store.hold_backfill("b", "w", hold=False)
    bench.store.pause(0)
    assert fill(bench, chunk(1, "a")) == "taken"


def test_nothing_is_taken_while_the_buffer_is_full(bench: Bench) -> None:
    started(bench)
    bench.put_many("abc")
    assert fill(bench, chunk(1, "d", "e"), most=4) == "full"
    assert state(bench).chunk == 0
    assert fill(bench, chunk(1, "d"), most=4) == "taken"
    assert fill(bench, chunk(2, "e"), most=4) == "full"
    bench.drain()
    assert fill(bench, chunk(2, "e"), most=4) == "taken"


def test_nothing_is_taken_whose_costs_no_counter_can_hold(bench: Bench) -> None:
    started(bench)
    bench.put(op("dear", cost=2**53 - 2))
    assert fill(bench, chunk(1, "a", "b")) == "full"
    assert fill(bench, chunk(1, "a")) == "taken"


def test_duplicates_are_dropped_counted_and_rows_all_the_same(bench: Bench) -> None:
    started(bench)
    bench.put(op("mine", registered=True), op("d", dedupe_ms=1000))
    entries = op("mine", registered=True) + op("d", dedupe_ms=1000) + op("new")
    assert fill(bench, Chunk(1, entries, 3, 3, "3")) == "taken"

    counts = bench.store.counts()
    assert (state(bench).rows, counts.waiting, counts.duplicates) == (3, 3, 2)


def test_a_pause_is_known_before_anything_ran(bench: Bench) -> None:
    bench.begin()
    assert bench.store.hold_backfill("b", "w", hold=True)
    assert not bench.store.hold_backfill("b", "w", hold=True)
    assert state(bench) == BackfillState("b", START_MS, watcher="w", paused=True)
    assert [one.name for one in bench.store.backfills()] == ["b"]
    assert bench.store.hold_backfill("b", "w", hold=False)
    assert not bench.store.hold_backfill("b", "w", hold=False)


def test_a_reset_leaves_no_trace_and_is_refused_while_somebody_runs_it(bench: Bench) -> None:
    bench.begin()
    empty = bench.snapshot()
    take(bench)
    assert not bench.store.reset_backfill("b")
    bench.clock.advance(1)
    assert bench.store.reset_backfill("b")

    assert bench.snapshot() == empty
    assert bench.store.reset_backfill("b")
    assert fill(bench, chunk(1, "a")) == "lost"
    assert state(bench) == BackfillState("b", bench.clock.now_ms())


def test_back_fills_are_independent(bench: Bench) -> None:
    started(bench)
    assert bench.store.take_backfill("c", "w", "t", LEASE, "me")
    assert bench.store.fill("c", "t", LEASE, "w", chunk(1, "x"), 100) == "taken"
    assert state(bench).chunk == 0
    assert [one.name for one in bench.store.backfills()] == ["b", "c"]


def test_no_token_has_no_right(bench: Bench) -> None:
    started(bench)
    bench.store.leave_backfill("b", "t")
    assert fill(bench, chunk(1, "a"), token="") == "lost"


def test_the_audit_finds_the_counters_right(bench: Bench) -> None:
    started(bench)
    for number in range(1, 30):
        fill(bench, chunk(number, *(f"{number}.{at}" for at in range(3))))
        step = bench.store.audit(f"a{number}", 0)
        assert (step.wrong, step.skipped) == (0, ())
