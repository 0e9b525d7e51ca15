"""Drain: the fleet takes no more operations and finishes those it has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celery_batcher import Batch, BatcherStoppedError, ConfigurationError
from celery_batcher.clock import ManualClock
from celery_batcher.store import memory
from in_memory import InMemory


class WorkingClock(ManualClock):
    """A clock on which a fleet works whenever somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.work: Callable[[], Any] = lambda: None

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.work()
        return super().wait(event, seconds)


@pytest.fixture
def clock() -> WorkingClock:
    return WorkingClock()


@pytest.fixture
def site(clock: WorkingClock) -> Iterator[InMemory]:
    site = InMemory()
    site.clock = clock
    memory._servers[site.url] = memory.MemoryServer(clock)
    yield site
    site.close()


def test_a_drain_finishes_everything_and_takes_nothing_until_resumed(
    site: InMemory, clock: WorkingClock
) -> None:
    batcher = site.batcher(flush_mode="tick")
    tried: list[int] = []
    refused: list[str] = []

    @batcher.watcher(name="write", max_batch_size=10)
    def write(batch: Batch) -> None:
        with pytest.raises(BatcherStoppedError, match="drained") as caught:
            write.enqueue(0)
        refused.append(str(caught.value))
        for one in batch:
            tried.append(one.payload)
            if one.payload == 7 and one.attempt == 1:
                batch.retry(one, after=3.0)
            elif one.payload == 8:
                batch.fail(one, "bad")

    write.enqueue_many(range(30))
    heard: list[tuple[str, int]] = []
    batcher.add_listener(lambda event, val, *_: heard.append((event, val)))
    clock.work = lambda: site.tick(batcher, every=0)

    assert batcher.drain() is True

    assert sorted(tried) == sorted([*range(30), 7])
    status = batcher.status()
    assert (status.phase, status.done, status.dead) == ("draining", 29, 1)
    assert (status.waiting, status.delayed, status.running, batcher.needs_capacity()) == (0,) * 4
    assert len(refused) == 4
    with pytest.raises(BatcherStoppedError, match="until resume"):
        write.enqueue_many(range(3))

    batcher.resume()

    write.enqueue(1)
    assert batcher.status().phase != "draining"
    assert [one for one in heard if one[0] in {"drain", "resume"}] == [("drain", 30), ("resume", 0)]


def test_a_drain_whose_time_is_over_goes_on(site: InMemory, clock: WorkingClock) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue(1)
    before = clock.monotonic()

    assert batcher.drain(timeout=5) is False

    assert clock.monotonic() == pytest.approx(before + 5)
    with pytest.raises(BatcherStoppedError):
        write.enqueue(2)
    assert batcher.drain(timeout=0) is False
    clock.work = lambda: site.tick(batcher, every=0)
    assert batcher.drain(timeout=5) is True


def test_a_drain_ends_who_waits_for_room(site: InMemory, clock: WorkingClock) -> None:
    batcher = site.batcher(flush_mode="tick", buffer_size=2)
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue_many(range(2))
    clock.work = batcher.store.drain

    with pytest.raises(BatcherStoppedError, match="drained") as caught:
        write.enqueue_many(range(3))

    assert caught.value.enqueued == 0


def test_what_was_admitted_before_a_drain_is_enqueued_whatever_is_sent_again(
    site: InMemory,
) -> None:
    batcher = site.batcher(flush_mode="tick")
    store = batcher.store
    message = memory.Admission("m", "write", 1, 1)
    assert store.admit([message], 10).messages == 1
    store.drain()

    answer = store.admit([message, memory.Admission("n", "write", 1, 1)], 10)

    assert (answer.messages, answer.draining) == (1, True)


@pytest.mark.parametrize("timeout", [-1, "1", float("nan"), True])
def test_a_timeout_that_is_none_is_refused(site: InMemory, timeout: Any) -> None:
    batcher = site.batcher()

    with pytest.raises(ConfigurationError, match="timeout"):
        batcher.drain(timeout)

    assert batcher.status().phase == "idle"
