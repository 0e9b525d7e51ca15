"""Which result an outcome amounts to, and who is told of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import states

from celery_batcher import Batch, Batcher, Operation, OperationFailedError
from celery_batcher.apart import apart
from celery_batcher.outcomes import Outcome
from celery_batcher.results import Result, Results, result_of
from in_memory import InMemory

ERROR = LookupError("no such table")


def operation(attempt: int = 1) -> Operation:
    return Operation("id", "work", 1, {}, attempt=attempt)


@pytest.mark.parametrize(
    ("kind", "attempt", "state"),
    [
        ("d", 3, states.SUCCESS),
        ("x", 1, states.FAILURE),
        ("r", 2, states.RETRY),
        ("r", 3, states.FAILURE),
        ("a", 2, states.RETRY),
        ("a", 3, states.FAILURE),
        ("h", 3, states.RETRY),
        ("g", 3, None),
        ("-", 3, None),
    ],
)
def test_states_follow_outcomes_and_the_last_attempt_fails(
    kind: str, attempt: int, state: str | None
) -> None:
    found = result_of(operation(attempt), Outcome(kind, "why"), 3, None)

    assert (found.state if found else None) == state


def test_an_operation_that_is_tried_for_ever_never_fails_by_itself() -> None:
    found = result_of(operation(900), Outcome("r", "why"), 0, ERROR)

    assert found is not None
    assert (found.state, found.value, found.traceback) == (states.RETRY, ERROR, "why")


def test_a_failure_without_an_error_has_its_reason() -> None:
    found = result_of(operation(), Outcome("x", "no such row"), 3, None)

    assert found is not None
    assert isinstance(found.value, OperationFailedError)
    assert (str(found.value), found.traceback) == ("no such row", None)


def test_a_backend_of_any_kind_is_told_and_the_batch_has_a_result_too() -> None:
    site = InMemory(result_backend="cache+memory://")
    batcher = site.batcher(flush_mode="tick")

    def handle(batch: Batch) -> None:
        for op in batch:
            batch.done(op, op.payload * 2)

    work = batcher.watcher(name="work", ignore_result=False)(handle)
    id = work.enqueue(21)
    batcher.tick()
    ((_, batch, headers),) = site.tasks()
    batcher.run_batch(work, batch)

    assert headers["ignore_result"] is False  # so the worker stores the batch's own
    assert site.app.AsyncResult(id).get(timeout=1) == 42
    assert site.app.tasks["work"].ignore_result is False
    site.close()


def test_whoever_keeps_no_results_tells_no_backend(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    work = batcher.watcher(name="work")(lambda batch: None)
    work.enqueue({})
    batcher.tick()
    ((_, _, headers),) = site.tasks()

    assert headers["ignore_result"] is True
    assert not work.keeps_results


def test_an_app_without_a_backend_keeps_nothing_and_goes_on(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    handled: list[Any] = []
    work = batcher.watcher(name="work", ignore_result=False)(handled.append)
    work.enqueue({})

    site.tick(batcher)

    assert (len(handled), batcher.status().done) == (1, 1)


# What dies with its worker


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Result]]:
    """The results that a backend is told."""
    told: list[Result] = []
    monkeypatch.setattr(Results, "_store", lambda self, results: told.extend(results))
    yield told
    apart.finish()


def late(site: InMemory, **options: Any) -> tuple[Batcher, str]:
    """A batcher with an operation in its last attempt, whose claim is over; and its id."""
    batcher = site.batcher(flush_mode="tick")
    options = {"ignore_result": False, "max_attempts": 1, **options}
    id = batcher.watcher(name="work", **options)(lambda batch: None).enqueue({})
    batcher.tick()
    ((_, batch, _),) = site.tasks()
    batcher.store.claim(batch, "n", batcher.limits(), 100)
    site.clock.advance(0.1)
    return batcher, id


def test_what_dies_at_its_deadline_is_a_failure_told_by_the_turn(
    site: InMemory, stored: list[Result]
) -> None:
    batcher, id = late(site)

    batcher.tick()

    apart.finish()
    (result,) = stored
    assert (result.id, result.attempt, result.state) == (id, 1, states.FAILURE)
    assert isinstance(result.value, OperationFailedError)
    assert str(result.value) == "the handler did not settle before its deadline"


@pytest.mark.parametrize("options", [{"max_attempts": 2}, {"ignore_result": True}])
def test_what_is_tried_again_or_keeps_no_results_is_told_nobody(
    site: InMemory, stored: list[Result], options: dict[str, Any]
) -> None:
    batcher, _ = late(site, **options)

    batcher.tick()

    apart.finish()
    assert batcher.status().expired_batches == 1
    assert stored == []


def test_a_turn_that_does_not_know_the_watcher_tells_nobody(
    site: InMemory, stored: list[Result]
) -> None:
    batcher, _ = late(site)
    batcher._registry._watchers.clear()

    batcher.tick()

    apart.finish()
    assert batcher.status().expired_batches == 1
    assert stored == []


def test_a_turn_does_not_wait_for_a_backend_that_does_not_answer(
    site: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, over = threading.Event(), threading.Event()
    monkeypatch.setattr(Results, "_store", lambda *_: (asked.set(), over.wait(30)))
    batcher, _ = late(site)

    batcher.tick()

    assert asked.wait(10)
    assert not over.is_set()
    over.set()
    apart.finish()


def test_a_backend_that_cannot_be_made_is_logged(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    batcher, _ = late(site)
    site.app.conf.result_backend = "no.such:Backend"

    batcher.tick()

    apart.finish()
    assert batcher.status().expired_batches == 1
    assert "the results of 1 operations are lost" in caplog.text
