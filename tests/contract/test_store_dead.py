"""What becomes of operations that failed for good."""

from __future__ import annotations

from builders import START_MS, Bench, op, read, read_entries
from celery_batcher.store.options import WatcherOptions


def bury(bench: Bench, *ids: str, **options: object) -> None:
    """Let operations of these ids die, each a second after the one before."""
    for id in ids:
        bench.put(op(id, **options))  # type: ignore[arg-type]
        bench.run("x")
        bench.clock.advance(1)


def dead(bench: Bench, watcher: str = "w") -> list[str]:
    return [read_entries(one.entry)[0].id for one in bench.store.dead(watcher, 100)]


def test_a_redriven_operation_waits_in_its_first_attempt_behind_what_waits(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=2))
    bury(bench, "a", "b", attempt=2)
    bench.put(op("waiting"))
    first, second = bench.store.dead("w", 9)

    assert bench.store.redrive("w", [first.number, second.number, 99]) == 2

    counts = bench.store.counts()
    assert (counts.dead, counts.dead_cost, counts.waiting, counts.waiting_cost) == (0, 0, 3, 3)
    batch = read(bench.claim(bench.released()).blocks)
    assert [(one.id, one.attempt) for one in batch] == [("waiting", 1), ("a", 1), ("b", 1)]


def test_a_redriven_id_is_registered_again(bench: Bench) -> None:
    bench.begin()
    bury(bench, "mine", registered=True)
    bench.store.redrive("w", [bench.store.dead("w", 1)[0].number])

    assert bench.put(op("mine", registered=True)).duplicates == 1


def test_a_letter_whose_id_lives_again_stays_dead(bench: Bench) -> None:
    bench.begin()
    bury(bench, "mine", registered=True)
    bench.put(op("mine", registered=True))

    assert bench.store.redrive("w", [bench.store.dead("w", 1)[0].number]) == 0

    assert dead(bench) == ["mine"]
    assert bench.store.counts().waiting == 1


def test_only_the_letters_asked_for_are_purged(bench: Bench) -> None:
    bench.begin()
    bury(bench, *"abc", cost=2)
    numbers = [one.number for one in bench.store.dead("w", 9)]

    assert bench.store.purge("w", [numbers[1], numbers[1]]) == 1

    assert dead(bench) == ["a", "c"]
    counts = bench.store.counts()
    assert (counts.dead, counts.dead_cost, counts.dropped) == (2, 4, 0)


def test_a_watcher_keeps_the_newest_letters_and_what_was_dropped_is_counted(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_dead=2))
    bury(bench, *"abcd", cost=3)

    assert dead(bench) == ["c", "d"]
    counts = bench.store.counts()
    assert (counts.dead, counts.dead_cost, counts.dropped) == (2, 6, 2)


def test_letters_are_read_in_steps(bench: Bench) -> None:
    bench.begin()
    bury(bench, *"abcde")

    first = bench.store.dead("w", 2)
    rest = bench.store.dead("w", 9, first[-1].number)

    assert [read_entries(one.entry)[0].id for one in (*first, *rest)] == list("abcde")


def test_old_letters_are_retired_a_step_at_a_time(bench: Bench) -> None:
    bench.begin(WatcherOptions("w"), WatcherOptions("v"))
    bury(bench, *"abc")
    bench.put(op("other"), watcher="v")
    bench.run("x")

    assert bench.store.retire(START_MS + 2000, 1) == 1
    assert dead(bench) == ["b", "c"]
    assert bench.store.retire(START_MS + 2000, 9) == 1
    assert bench.store.retire(START_MS + 2000, 9) == 0
    assert (dead(bench), dead(bench, "v")) == (["c"], ["other"])
    assert bench.store.counts().dead == 2
