"""Poison: an operation that makes its batch fail is found by halving, and the others go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from celery_batcher import Batch, Batcher
from in_memory import InMemory

pytestmark = pytest.mark.long


@pytest.fixture
def memory() -> Iterator[InMemory]:
    memory = InMemory()
    yield memory
    memory.close()


class Poisoned:
    """A watcher whose handler raises when a batch has one of the bad, and what came of it."""

    def __init__(
        self,
        memory: InMemory,
        bad: set[int],
        error: Callable[[], BaseException] = RuntimeError,
        before: Callable[[Batch, set[int]], None] = lambda batch, bad: None,
        **options: Any,
    ) -> None:
        self.memory = memory
        self.batches: list[list[int]] = []
        self.attempts: Counter[int] = Counter()
        self.events: list[tuple[str, int]] = []
        self.batcher: Batcher = memory.batcher(flush_mode="tick")

        def handle(batch: Batch) -> None:
            self.batches.append([one.payload for one in batch])
            self.attempts.update(one.payload for one in batch)
            before(batch, bad)
            if bad.intersection(self.batches[-1]):
                raise error()

        self.watcher = self.batcher.watcher(name="w", **options)(handle)
        self.batcher.add_listener(lambda event, val, *_: self.events.append((event, val)))

    def run(self, n: int, ticks: int = 30) -> None:
        self.watcher.enqueue_many(range(n))
        self.memory.tick(self.batcher, ticks)

    @property
    def dead(self) -> list[int]:
        return [letter.payload for letter in self.watcher.dead_letters]


def test_one_bad_operation_among_n_is_alone_after_log2_n_rounds(memory: InMemory) -> None:
    poisoned = Poisoned(memory, {37}, max_batch_size=64)

    poisoned.run(64)

    status = poisoned.batcher.status()
    assert (status.done, status.dead, status.halved_batches) == (63, 1, 6)
    assert poisoned.dead == [37]
    failed = [len(batch) for batch in poisoned.batches if 37 in batch]
    assert failed == [64, 32, 16, 8, 4, 2, 1, 1, 1]
    assert max(n for one, n in poisoned.attempts.items() if one != 37) <= 7
    assert [val for event, val in poisoned.events if event == "bisect"] == [64, 32, 16, 8, 4, 2]


def test_only_tries_alone_are_counted_as_attempts(memory: InMemory) -> None:
    poisoned = Poisoned(memory, {1}, max_batch_size=8, max_attempts=2)

    poisoned.run(8)

    letters = list(poisoned.watcher.dead_letters)
    assert [(letter.payload, letter.attempts) for letter in letters] == [(1, 2)]
    assert "RuntimeError" in letters[0].reason


@pytest.mark.parametrize("bad", [{0}, {0, 99}, {3, 4, 50}, set(range(100))])
def test_exactly_the_bad_ones_die_however_many_there_are(memory: InMemory, bad: set[int]) -> None:
    poisoned = Poisoned(memory, bad, max_batch_size=20)

    poisoned.run(100, ticks=40)

    assert sorted(poisoned.dead) == sorted(bad)
    status = poisoned.batcher.status()
    assert (status.done, status.waiting, status.running) == (100 - len(bad), 0, 0)


@pytest.mark.parametrize(
    "options", [{"autoretry_for": (OSError,)}, {"dont_autoretry_for": (RuntimeError,)}]
)
def test_an_error_that_is_final_kills_only_who_is_alone(
    memory: InMemory, options: dict[str, Any]
) -> None:
    poisoned = Poisoned(memory, {5}, max_batch_size=16, **options)

    poisoned.run(16)

    assert poisoned.dead == [5]
    assert [len(batch) for batch in poisoned.batches if 5 in batch] == [16, 8, 4, 2, 1]


def test_a_time_limit_halves_too(memory: InMemory) -> None:
    poisoned = Poisoned(memory, {2}, SoftTimeLimitExceeded, max_batch_size=4, max_attempts=1)

    poisoned.run(4)

    assert (poisoned.dead, poisoned.batcher.status().done) == ([2], 3)


def test_what_the_handler_decided_stays_and_the_last_undecided_is_the_culprit(
    memory: InMemory,
) -> None:
    def until_bad(batch: Batch, bad: set[int]) -> None:
        for one in batch:
            if one.payload in bad:
                return
            batch.done(one)

    poisoned = Poisoned(memory, {9}, before=until_bad, max_batch_size=10, max_attempts=1)

    poisoned.run(10)

    assert poisoned.batches == [list(range(10))]
    assert poisoned.dead == [9]
    assert poisoned.batcher.status().halved_batches == 0


def test_a_named_culprit_counts_its_attempt_and_the_others_are_halved(memory: InMemory) -> None:
    def name(batch: Batch, bad: set[int]) -> None:
        for one in batch:
            if one.payload in bad:
                batch.retry(one)

    poisoned = Poisoned(memory, {1}, before=name, max_batch_size=3, max_attempts=2)

    poisoned.run(3)

    assert poisoned.batches == [[0, 1, 2], [0], [1], [2]]
    assert (poisoned.dead, poisoned.batcher.status().done) == ([1], 2)


def test_bisect_can_be_turned_off(memory: InMemory) -> None:
    poisoned = Poisoned(memory, {0}, max_batch_size=4, bisect=False)

    poisoned.run(4)

    assert [len(batch) for batch in poisoned.batches] == [4, 4, 4]
    assert poisoned.dead == [0, 1, 2, 3]
    assert poisoned.batcher.status().halved_batches == 0


def test_halves_wait_for_the_backoff(memory: InMemory) -> None:
    poisoned = Poisoned(memory, {0}, max_batch_size=4, retry_backoff=5, retry_jitter=False)

    poisoned.run(4, ticks=20)
    assert poisoned.batches == [[0, 1, 2, 3]]
    assert poisoned.batcher.status().delayed == 4
    memory.tick(poisoned.batcher, 40)

    assert poisoned.batches[:3] == [[0, 1, 2, 3], [0, 1], [2, 3]]
