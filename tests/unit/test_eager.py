"""Eager mode: handlers run inside `enqueue`, without any server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, current_task

from celery_batcher import (
    Batch,
    Batcher,
    OperationFailedError,
    PayloadError,
    ProvisionedResource,
    Throttled,
    TooExpensiveError,
)
from celery_batcher.signals import batch_settled, operations_enqueued

AWAY = "redis://127.0.0.1:1/0"
"""Nobody answers there."""


class Site:
    """An app in eager mode, and what its handler saw."""

    def __init__(self, **conf: Any) -> None:
        self.app = Celery(f"app{uuid4().hex}", broker=AWAY, backend=AWAY, set_as_current=False)
        self.app.conf.update(task_always_eager=True, **conf)
        self.batcher = Batcher("store", app=self.app, rate_limiter=ProvisionedResource(10))
        self.seen: list[list[Any]] = []

    def watcher(self, handler: Callable[[Batch], Any] = lambda batch: None, **options: Any) -> Any:
        def handle(batch: Batch) -> None:
            self.seen.append([one.payload for one in batch])
            handler(batch)

        return self.batcher.watcher(name="write", **options)(handle)


def test_an_operation_is_handled_inside_enqueue_as_a_batch_of_one() -> None:
    site = Site()
    tasks: list[Any] = []

    def handle(batch: Batch) -> None:
        (one,) = batch
        tasks.append((current_task.name, current_task.request.id, current_task.request.is_eager))
        assert (one.id, one.cost, one.key, one.attempt) == ("my own", 3, "k", 1)
        assert batch.id == current_task.request.id
        assert 50 < batch.remaining <= 60

    write = site.watcher(handle)

    assert write.enqueue({"at": (1, 2)}, cost=3, key="k", id="my own") == "my own"
    assert site.seen == [[{"at": [1, 2]}]]  # it went through the serializer
    ((name, _, eager),) = tasks
    assert (name, eager) == ("write", True)


def test_many_are_handled_in_batches_of_up_to_the_maximum_and_capacity_does_not_count() -> None:
    site = Site()
    write = site.watcher(max_batch_size=40)

    assert write.enqueue_many(range(1, 101), cost=10) == 100

    assert [len(batch) for batch in site.seen] == [40, 40, 20]
    assert [one for batch in site.seen for one in batch] == list(range(1, 101))


def test_caps_of_keys_and_of_batches_do_not_count_and_batches_have_one_key() -> None:
    site = Site()
    write = site.watcher(key_capacity=1, key_concurrency=1, max_concurrent_batches=1)

    write.enqueue_many(["a1", "b1", "a2", "b2", "a3"], key=lambda payload: payload[0])

    assert sorted(site.seen) == [["a1", "a2", "a3"], ["b1", "b2"]]


def test_what_could_never_run_is_refused_as_always() -> None:
    site = Site()
    write = site.watcher()

    with pytest.raises(TooExpensiveError):
        write.enqueue(1, cost=11)
    with pytest.raises(PayloadError):
        write.enqueue(object())
    assert site.seen == []


def test_retries_are_made_at_once_up_to_max_attempts(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    attempts: list[int] = []

    def handle(batch: Batch) -> None:
        attempts.extend(one.attempt for one in batch)
        for one in batch:
            batch.retry(one, after=3600)

    write = site.watcher(handle, max_attempts=4)

    with caplog.at_level(logging.ERROR):
        write.enqueue(1)
    assert attempts == [1, 2, 3, 4]
    assert "write: 1 operations are dead: its handler asked for another try" in caplog.text


def test_a_handler_that_raises_is_tried_again_and_one_bad_operation_is_alone() -> None:
    site = Site()
    done: list[int] = []

    def handle(batch: Batch) -> None:
        if any(one.payload == 3 for one in batch):
            raise ValueError("no such row")
        done.extend(one.payload for one in batch)

    write = site.watcher(handle, max_attempts=2, retry_backoff=600)

    write.enqueue_many(range(8))
    assert sorted(done) == [0, 1, 2, 4, 5, 6, 7]
    assert site.seen[-1] == [3] or site.seen.count([3]) == 2


def test_without_a_limit_of_attempts_there_are_three_tries() -> None:
    site = Site()
    site.watcher(lambda batch: 1 / 0, max_attempts=0).enqueue(1)
    assert site.seen == [[1]] * 3


@pytest.mark.parametrize("how", ["raise", "fail"])
def test_errors_propagate_where_celery_is_told_to(how: str) -> None:
    site = Site(task_eager_propagates=True)

    def handle(batch: Batch) -> None:
        if how == "raise":
            raise ValueError("no such row")
        batch.fail(batch[0], "no such table")

    write = site.watcher(handle, max_attempts=2)

    error, said = (
        (ValueError, "no such row") if how == "raise" else (OperationFailedError, "no such table")
    )
    with pytest.raises(error, match=said):
        write.enqueue(1)
    assert len(site.seen) == (2 if how == "raise" else 1)


def test_a_throttled_handler_is_asked_again_and_then_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    throttled = [True, False, True, True]

    def handle(batch: Batch) -> None:
        if throttled.pop(0):
            raise Throttled(retry_after=60)

    write = site.watcher(handle, max_attempts=2)
    write.enqueue(1)
    assert caplog.text == ""
    with caplog.at_level(logging.ERROR):
        write.enqueue(2)
    assert site.seen == [[1], [1], [2], [2]]
    assert "1 operations were not handled: Throttled was raised 2 times" in caplog.text


@pytest.mark.parametrize("stored", [True, False])
def test_results_are_stored_only_where_celery_stores_eager_ones(stored: bool) -> None:
    site = Site(
        task_store_eager_result=stored,
        result_backend="cache+memory://",
        task_serializer="json",
    )

    def handle(batch: Batch) -> None:
        batch.done(batch[0], batch[0].payload + 1)

    write = site.watcher(handle, ignore_result=False)
    result = site.app.AsyncResult(write.enqueue(1))
    site.app.conf.task_always_eager = False  # Celery warns of whoever asks in eager mode

    assert result.state == ("SUCCESS" if stored else "PENDING")
    assert not stored or result.get(timeout=1) == 2


def test_a_dead_operation_has_its_error_as_the_result() -> None:
    site = Site(task_store_eager_result=True, result_backend="cache+memory://")
    write = site.watcher(lambda batch: 1 / 0, ignore_result=False, max_attempts=0)

    assert site.app.AsyncResult(write.enqueue(1)).state == "FAILURE"


def test_operators_find_nothing_and_nothing_fails_without_servers() -> None:
    site = Site()
    write = site.watcher()
    write.enqueue(1)

    site.batcher.flush()
    site.batcher.pause()
    write.enqueue(2)
    site.batcher.resume()
    assert site.batcher.status().waiting == 0
    assert site.batcher.needs_capacity() == 0
    assert list(write.dead_letters) == []
    assert site.seen == [[1], [2]]


def test_handlers_may_enqueue_and_signals_are_sent() -> None:
    site = Site(batcher_serializer="pickle", accept_content=["pickle", "json"])
    later = site.batcher.watcher(name="later")(lambda batch: site.seen.append(["later"]))
    write = site.watcher(lambda batch: later.enqueue_many(one.payload for one in batch))
    heard: list[str] = []

    def note(sender: Any, signal: Any, watcher: str, **_: Any) -> None:
        heard.append(f"{signal.name} {watcher}")

    for one in (operations_enqueued, batch_settled):
        one.connect(note, sender=site.batcher)
    try:
        write.enqueue(datetime(2026, 1, 1, tzinfo=timezone.utc))
    finally:
        for one in (operations_enqueued, batch_settled):
            one.disconnect(note, sender=site.batcher)

    assert site.seen == [[datetime(2026, 1, 1, tzinfo=timezone.utc)], ["later"]]
    assert heard == [
        "operations_enqueued write",
        "operations_enqueued later",
        "batch_settled later",
        "batch_settled write",
    ]


def test_the_setting_is_read_at_each_call_and_a_test_with_a_clock_beats_it() -> None:
    site = Site()
    write = site.watcher()
    site.app.conf.update(task_always_eager=False, broker_url=f"memory://{site.app.main}")
    site.app.conf.batcher_store_url = f"memory://{site.app.main}"
    write.enqueue(1)
    assert (site.seen, site.batcher.operations_in_buffer()) == ([], 1)

    site.app.conf.task_always_eager = True
    write.enqueue(2)
    assert site.seen == [[2]]
    with site.batcher.testing() as t:
        write.enqueue(3)
        assert site.seen == [[2]]
        t.step()
        t.assert_done(write, payload=3)
