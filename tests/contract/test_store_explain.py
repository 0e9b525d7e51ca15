"""What bears upon the next batch, and where an operation is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import BACKFILL, HIGH, Bench, op, read_entries
from celery_batcher.store.base import Charge
from celery_batcher.store.options import Limit, ResourceOptions, WatcherOptions
from celery_batcher.store.outlook import Found, Outlook

PARTS = ("batches", "heads", "waiting", "delayed", "dead")


def explain(bench: Bench, **given: Any) -> Outlook:
    """The outlook of the bench's watcher."""
    return bench.store.explain(bench.watcher, bench.limits, **given)


def find(bench: Bench, id: str, *parts: str) -> Found | None:
    """Where an operation is, of these parts or all of them."""
    for part in parts or PARTS:
        cursor = ""
        while True:
            step = bench.store.seek(id, part, bench.watcher, cursor)
            if step.found:
                return step.found
            cursor = step.cursor
            if not cursor:
                break
    return None


def place(found: Found | None) -> tuple[str, int, int]:
    assert found
    return found.state, found.ahead, found.ahead_cost


def test_the_head_is_the_operation_next_in_turn(bench: Bench) -> None:
    bench.begin(capacity=10)
    bench.put(op("late", cost=3), op("first", priority=HIGH), op("last", priority=BACKFILL))

    outlook = explain(bench)

    assert [one.id for one in read_entries(outlook.head)] == ["first"]
    assert outlook.by_priority == (0, 1, 1, 1)
    assert outlook.watcher.waiting == outlook.buffered == 3
    assert outlook.buffered_cost == 5
    assert outlook.turn_ms == 60_000


def test_a_watcher_that_the_store_has_never_seen_has_nothing(bench: Bench) -> None:
    bench.begin(capacity=10)
    before = bench.snapshot()

    outlook = bench.store.explain("other", bench.limits)

    assert (outlook.head, outlook.watcher.waiting, outlook.due_ms) == (b"", 0, -1)
    assert bench.snapshot() == before


def test_a_limit_says_who_holds_it_and_until_when(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=10, flush_ms=1000)
    bench.put(op("a", cost=4), op("b", cost=3), op("c", cost=6))
    bench.claim(bench.released())
    bench.clock.advance(0.2)
    bench.released()
    assert bench.refused() == "capacity"

    (limit,) = explain(bench).limits

    assert (limit.usable, limit.started, limit.unclaimed, limit.debt) == (10, 4, 3, 0)
    assert limit.wait_ms == 1010 - 200
    assert explain(bench).batchers[0].unclaimed == (3,)
    assert explain(bench, costs=(11,)).limits[0].wait_ms == -1


def test_what_would_need_an_unclaimed_batch_to_end_has_no_time(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    bench.put(op("a", cost=8))
    bench.released()

    assert explain(bench, costs=(5,)).limits[0].wait_ms == -1
    assert explain(bench, costs=(2,)).limits[0].wait_ms == 0


def test_gates_and_debts_are_told(bench: Bench) -> None:
    bench.begin(capacity=10, flush_ms=1000)
    bench.put(op("a", cost=8))
    batch = bench.released()
    bench.claim(batch)
    bench.store.charge(batch.id, "n", 1, Charge((7,)))
    bench.store.pause(-1)
    bench.store.shut(700)
    bench.store.drain()

    outlook = explain(bench)

    assert (outlook.paused_ms, outlook.closed_ms, outlook.draining) == (-1, 700, True)
    assert outlook.running_batches == 1
    assert outlook.limits[0].debt == 7


def test_credit_is_what_a_release_would_find(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=1000, flush_ms=100)
    bench.put(op("a", cost=100), op("b", cost=150))
    bench.released()
    assert explain(bench).limits[0].credit == 0

    bench.clock.advance(0.05)

    assert explain(bench).limits[0].credit == pytest.approx(50)


def test_batchers_of_the_resource_say_what_they_need_first(bench: Bench) -> None:
    assert bench.reopen
    other = bench.reopen("other", "resource")
    shares = {"capacity": 10, "flush_ms": 1000, "resource": ResourceOptions(weight=3)}
    bench.begin(WatcherOptions("w", max_batch_size=1), **shares)
    other.begin(WatcherOptions("w", max_batch_size=1), capacity=10, flush_ms=1000)
    bench.put(*[op(f"a{n}", cost=4) for n in range(4)])
    other.put(op("dear", cost=9))
    bench.claim(bench.released())
    assert other.refused() == "capacity"

    mine, theirs = explain(bench).batchers

    assert (mine.name, mine.weight, mine.in_need) == ("batcher", 3, False)
    assert (theirs.name, theirs.weight, theirs.in_need) == ("other", 1, True)
    assert theirs.first == (9,)


def test_limits_of_several_dimensions_are_told_each(bench: Bench) -> None:
    bench.begin(
        capacity=10,
        others=(Limit(2, 100, 1000),),
        resource=ResourceOptions(dimensions=("requests", "tokens")),
        flush_ms=1000,
    )
    bench.put(op("a", cost=1, further=[90]))
    bench.put(op("b", cost=1, further=[20]))
    bench.claim(bench.released())

    requests, tokens = explain(bench).limits

    assert (requests.started, requests.wait_ms) == (1, 0)
    assert (tokens.started, tokens.wait_ms) == (90, 1010)


def test_a_delayed_operation_says_when_it_waits_again(bench: Bench) -> None:
    bench.begin()
    bench.put(op("a"))
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "r", delays={0: 700})
    bench.clock.advance(0.2)

    found = find(bench, "a")

    assert found
    assert (found.state, found.watcher, found.ms) == ("delayed", "w", 500)
    assert explain(bench).due_ms == explain(bench).last_due_ms == 500


def test_an_operation_is_found_wherever_it_is(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=None)
    bench.put(op("dead"))
    bench.run("x")
    bench.put(op("running"))
    running = bench.released()
    bench.claim(running, ms=5000)
    bench.put(op("released"))
    released = bench.released()
    bench.put(op("w1", cost=5), op("w2"))
    bench.clock.advance(0.3)

    assert place(find(bench, "w1")) == ("waiting", 0, 0)
    assert place(find(bench, "w2")) == ("waiting", 1, 5)
    found = [find(bench, id) for id in ("released", "running", "dead")]
    assert [(one.state, one.batch, one.ms) for one in found if one] == [
        ("released", released.id, 300),
        ("running", running.id, 4700),
        ("dead", "", 300),
    ]
    assert [one.id for one in read_entries(found[0].entry)] == ["released"]  # type: ignore[union-attr]
    assert find(bench, "w") is None  # a part of other ids


def test_what_came_back_counts_before_what_arrived(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2, bisect=False))
    bench.put(*[op(f"o{n}", cost=2) for n in range(5)])
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "r")

    assert place(find(bench, "o1")) == ("waiting", 1, 2)
    assert place(find(bench, "o4")) == ("waiting", 4, 8)


def test_halves_of_a_failed_batch_are_found(bench: Bench) -> None:
    bench.begin()
    bench.put(*[op(f"o{n}", cost=2) for n in range(6)])
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "h")

    assert place(find(bench, "o5")) == ("waiting", 5, 10)
    assert explain(bench).by_priority[0] == 6
    assert [one.id for one in read_entries(explain(bench).head)] == ["o0"]


def test_a_block_that_is_taken_in_part_begins_behind_what_was_taken(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=4))
    bench.put(*[op(f"o{n}") for n in range(10)])
    bench.run()

    assert place(find(bench, "o6")) == ("waiting", 2, 2)
    assert find(bench, "o3") is None


def test_a_long_queue_is_walked_in_steps(bench: Bench) -> None:
    bench.begin()
    for key in ("a", "b"):
        bench.put_many([f"{key}{n}" for n in range(3000)], key=key)
    bench.store.seek_bounds = (2, 10_000)  # type: ignore[attr-defined]

    assert place(find(bench, "b2999", "waiting")) == ("waiting", 2999, 2999)
    assert place(find(bench, "b0", "heads")) == ("waiting", 0, 0)
    assert find(bench, "none") is None


def test_a_key_that_is_no_text_is_walked_as_any(bench: Bench) -> None:
    bench.begin()
    for key in (b"\xff", b"\xff\xfe"):
        entry = op(f"at {len(key)}", key="?" * len(key)).replace(b"?" * len(key), key)
        bench.put(entry)
    bench.store.seek_bounds = (1, 10_000)  # type: ignore[attr-defined]

    assert place(find(bench, "at 2")) == ("waiting", 0, 0)


def test_a_search_goes_on_where_it_was_though_the_front_moves(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=300))
    bench.put_many([f"o{n}" for n in range(2000)])
    bench.store.seek_bounds = (1, 10_000)  # type: ignore[attr-defined]
    cursor, found = "", None
    while not found:
        step = bench.store.seek("o1999", "waiting", "w", cursor)
        cursor, found = step.cursor, step.found
        assert cursor or found
        bench.run()

    assert found.state == "waiting"


def test_both_change_nothing(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=10, flush_ms=1000)
    bench.put(*[op(f"o{n}", cost=4, key=f"k{n}") for n in range(5)])
    bench.claim(bench.released())
    bench.released()
    assert bench.refused() == "capacity"
    bench.clock.advance(0.5)
    before = bench.snapshot()

    explain(bench)
    find(bench, "o4")
    find(bench, "none")

    assert bench.snapshot() == before


def test_a_ramp_and_a_lowered_capacity_are_told_as_what_may_be_used(bench: Bench) -> None:
    bench.begin(capacity=10, resource=replace(ResourceOptions(), adaptive=True))
    bench.store.throttle(1000, 0.0)

    (limit,) = explain(bench).limits

    assert (limit.limit.capacity, limit.usable) == (10, 5)
