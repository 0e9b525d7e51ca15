"""Operations become batches on a broker, a backend and a worker with beat of pytest-celery."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup
from redis import Redis

from celery_batcher import Batcher, Watcher
from connected import close
from eventually import eventually
from smoke.batches import CAPACITY, HANDLED, build

pytestmark = pytest.mark.usefixtures("kind")  # by name, so that each test runs on every kind


@pytest.fixture
def batcher(celery_setup: CeleryTestSetup) -> Iterator[Batcher]:
    """The workers' batcher, in the test's process."""
    batcher = build(celery_setup.app)
    yield batcher
    batcher.stop()
    close(batcher.connections)


@pytest.fixture
def work(batcher: Batcher) -> Watcher:
    """Its watcher."""
    return batcher.watchers["work"]


@pytest.fixture
def notes(celery_setup: CeleryTestSetup) -> Iterator[Any]:
    """Reads what handlers noted, once the batcher has settled everything."""
    client = Redis.from_url(celery_setup.backend.container.host_url)

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in client.lrange(HANDLED, 0, -1)]

    yield read
    client.close()


def settle(batcher: Batcher) -> None:
    """Wait until nothing is on its way."""

    def settled() -> bool:
        return (batcher.needs_capacity(), batcher.operations_in_buffer(), batcher.inflight()) == (
            0,
            0,
            0,
        )

    eventually(settled, timeout=30, interval=0.1)


def test_operations_are_handled_once_in_batches_whose_results_are_kept(
    celery_setup: CeleryTestSetup, batcher: Batcher, work: Watcher, notes: Any
) -> None:
    assert work.enqueue_many({"n": n} for n in range(60)) == 60
    settle(batcher)

    handled = notes()
    assert sorted(note["n"] for note in handled) == list(range(60))
    batches = Counter(note["batch"] for note in handled)
    assert len(batches) < 60
    results = {id: celery_setup.app.AsyncResult(id) for id in batches}
    eventually(lambda: all(one.state == "SUCCESS" for one in results.values()))
    assert {id: one.result["done"] for id, one in results.items()} == batches


def test_what_is_retried_runs_again_and_what_fails_is_kept(
    batcher: Batcher, work: Watcher, notes: Any
) -> None:
    work.enqueue_many([{"n": 1}, {"n": 2, "do": "retry"}, {"n": 3, "do": "fail"}])
    settle(batcher)

    assert sorted((note["n"], note["attempt"]) for note in notes()) == [
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 1),
    ]
    assert [(one.payload["n"], one.reason) for one in work.dead_letters] == [(3, "told to fail")]


def test_no_second_starts_more_than_the_capacity(
    batcher: Batcher, work: Watcher, notes: Any
) -> None:
    work.enqueue_many(({"n": n} for n in range(50)), cost=10)
    settle(batcher)

    starts = sorted(note["at"] for note in notes())
    assert len(starts) == 50
    worst = max(sum(at <= start < at + 1 for start in starts) for at in starts)
    assert worst * 10 <= CAPACITY


def test_a_worker_that_is_killed_with_a_batch_loses_nothing(
    celery_setup: CeleryTestSetup, batcher: Batcher, work: Watcher, notes: Any
) -> None:
    work.enqueue_many({"n": n, "do": "dawdle"} for n in range(30))
    eventually(notes)
    celery_setup.worker.kill()
    celery_setup.worker.container.restart()
    settle(batcher)

    seen = Counter(note["n"] for note in notes())
    assert sorted(seen) == list(range(30))
    assert max(seen.values()) == 2  # it was killed amid a batch, which was begun again
