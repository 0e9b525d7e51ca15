"""Which result an outcome amounts to, and who is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states

from celery_batcher import Batch, Operation, OperationFailedError
from celery_batcher.outcomes import Outcome
from celery_batcher.results import result_of
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
