"""Outcomes of single operations: later, committed, and for what reason."""

from __future__ import annotations

import pytest

from builders import Bench, ids, op, read_entries
from celery_batcher.store.base import Refused, Released, Settlement
from celery_batcher.store.options import WatcherOptions


def claimed(bench: Bench, *names: str, **options: object) -> Released:
    """A running batch of operations of these names."""
    bench.put(*(op(name, **options) for name in names))  # type: ignore[arg-type]
    batch = bench.released()
    bench.claim(batch)
    return batch


def states(bench: Bench) -> dict[str, tuple[int, int]]:
    """Operations and their cost, by state."""
    counts = bench.store.counts()
    found = {
        name: (getattr(counts, name), getattr(counts, f"{name}_cost"))
        for name in ("waiting", "delayed", "open", "running", "dead")
    }
    return {name: numbers for name, numbers in found.items() if numbers != (0, 0)}


# Later


def test_a_delayed_operation_waits_again_when_its_delay_is_over(bench: Bench) -> None:
    bench.begin()
    batch = claimed(bench, "a", "b", "c", cost=2)
    bench.settle(batch, "rrr", delays={0: 500, 2: 200})
    assert states(bench) == {"waiting": (1, 2), "delayed": (2, 4)}
    assert [row.delayed for row in bench.store.counts().watchers] == [2]
    assert bench.drain() == [["b"]]
    assert bench.release() == Refused("empty", 200)

    bench.clock.advance(0.199)
    assert bench.release() == Refused("empty", 1)
    bench.clock.advance(0.001)
    assert bench.drain() == [["c"]]
    assert states(bench) == {"delayed": (1, 2)}
    bench.clock.advance(10)
    assert bench.drain() == [["a"]]
    assert states(bench) == {}
    assert bench.release() == Refused("empty", -1)


def test_a_delayed_operation_comes_back_to_its_place(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2))
    bench.put_many("abcd")
    first = bench.released()
    bench.claim(first)
    bench.settle(first, "rr", delays={0: 100, 1: 100})
    bench.clock.advance(0.1)

    assert bench.drain() == [["a", "b"], ["c", "d"]]


def test_delayed_operations_of_many_watchers_come_back_to_each(bench: Bench) -> None:
    names = [f"w{at}" for at in range(3)]
    bench.begin(*(WatcherOptions(name) for name in names))
    for name in names:
        bench.put(op(f"of {name}", key="k:1", priority=2), watcher=name)
        batch = bench.released()
        bench.claim(batch)
        bench.settle(batch, "r", delays={0: 100})
    bench.clock.advance(0.1)

    assert sorted(id for batch in bench.drain() for id in batch) == [f"of {name}" for name in names]


def test_more_delayed_operations_than_one_step_brings_back(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=250))
    batch = claimed(bench, *(f"o{at}" for at in range(250)))
    bench.settle(batch, "r" * 250, delays=dict.fromkeys(range(250), 100))
    bench.clock.advance(0.1)

    assert sum(len(batch) for batch in bench.drain()) == 250


def test_delayed_operations_count_in_the_buffer_and_in_the_sum_of_all_costs(bench: Bench) -> None:
    from celery_batcher.store.base import Admission

    bench.begin()
    batch = claimed(bench, "a", cost=2**53 - 10)
    bench.settle(batch, "r", delays={0: 100})

    assert bench.store.admit([Admission("m", "w", 1, 1)], 1).messages == 0
    assert bench.store.admit([Admission("m", "w", 1, 20)], 9).too_dear
    assert bench.store.admit([Admission("m", "w", 1, 1)], 9).messages == 1
    assert bench.store.counts().buffered == 2


def test_a_delay_does_not_save_an_operation_from_its_last_attempt(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1))
    batch = claimed(bench, "a")
    bench.settle(batch, "r", delays={0: 100}, reason="why")

    assert states(bench) == {"dead": (1, 1)}


# Reasons


def test_reasons_of_their_own_go_before_the_reason_of_all(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1))
    batch = claimed(bench, "a", "b", "c")
    bench.settle(batch, "xrx", reason="of all", reasons={0: "of a", 1: "größer\n\x00"})

    dead = {read_entries(one.entry)[0].id: one.reason for one in bench.store.dead("w", 9)}
    assert dead == {"a": "of a", "b": "größer\n\x00", "c": "of all"}


# Commit


def commit(bench: Bench, batch: Released, number: int, outcomes: str, nonce: str = "n") -> bool:
    return bench.store.commit(batch.id, nonce, number, Settlement(outcomes, "why"))


def test_a_commit_records_what_is_decided_and_keeps_the_rest(bench: Bench) -> None:
    bench.begin(capacity=100, flush_ms=1000)
    batch = claimed(bench, *"abcde", cost=2)

    assert commit(bench, batch, 1, "d-xr-")

    assert states(bench) == {"waiting": (1, 2), "running": (2, 4), "dead": (1, 2)}
    counts = bench.store.counts()
    assert (counts.done, counts.running_batches, counts.held) == (1, 1, 10)
    assert ids(bench.claim(batch)) == ["b", "e"], "the same claim, again"
    assert commit(bench, batch, 2, "-d")
    assert bench.settle(batch, "d")
    assert states(bench) == {"waiting": (1, 2), "dead": (1, 2)}
    assert bench.store.counts().done == 3
    assert bench.store.counts().running_batches == 0


def test_what_expires_after_a_commit_is_what_was_left(bench: Bench) -> None:
    bench.begin()
    bench.put(op("a"), op("b"))
    batch = bench.released()
    bench.claim(batch, ms=500)
    commit(bench, batch, 1, "d-")
    bench.store.expire(bench.token, bench.limits, "late", 9)
    bench.clock.advance(1)

    assert [one.operations for one in bench.store.expire(bench.token, bench.limits, "late", 9)] == [
        1
    ]
    assert bench.drain() == [["b"]]


def test_everything_can_be_committed_before_the_batch_is_settled(bench: Bench) -> None:
    bench.begin()
    batch = claimed(bench, "a", "b")

    assert commit(bench, batch, 1, "d")
    assert states(bench) == {}
    assert bench.store.counts().running_batches == 1
    assert bench.settle(batch, "")
    assert bench.store.counts().running_batches == 0
    assert bench.store.counts().done == 2


def test_what_is_given_back_by_a_commit_may_be_released_at_once(bench: Bench) -> None:
    bench.begin()
    batch = claimed(bench, "a", "b")
    commit(bench, batch, 1, "r-")

    assert bench.drain() == [["a"]]


@pytest.mark.parametrize("outcomes", ["dd-", "d-", "xgdr"])
def test_outcomes_for_another_state_of_the_batch_are_refused(bench: Bench, outcomes: str) -> None:
    bench.begin()
    batch = claimed(bench, *"abcde")
    commit(bench, batch, 1, "d--d-")
    before = bench.snapshot()
    if len(outcomes) == 3:
        outcomes += "-"

    assert commit(bench, batch, 2, outcomes) is False
    assert bench.settle(batch, outcomes) is False
    assert bench.snapshot() == before


def test_only_the_claim_commits(bench: Bench) -> None:
    bench.begin()
    batch = claimed(bench, "a", "b")
    opened = bench.put(op("c")) and bench.released()

    assert commit(bench, batch, 1, "d-", nonce="other") is False
    assert commit(bench, opened, 1, "d") is False
    assert bench.store.commit("unknown", "n", 1, Settlement("d")) is False
    assert states(bench) == {"open": (1, 1), "running": (2, 2)}


def test_a_redriven_letter_is_released_though_nothing_else_happens(bench: Bench) -> None:
    bench.begin()
    bench.put(op("a"))
    bench.run("x")
    bench.store.redrive("w", [bench.store.dead("w", 1)[0].number])

    assert bench.drain() == [["a"]]
