"""What a worker's main process does with the batches of children that it loses."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from celery_batcher import Batch, Batcher, OperationFailedError, StoreUnavailableError
from celery_batcher.apart import apart
from celery_batcher.claim import owner
from celery_batcher.worker import hand_back as hand_back_module
from celery_batcher.worker.children import look_after_children
from celery_batcher.worker.hand_back import hand_back
from celery_batcher.worker.request import GivesBack, gives_back
from celery_batcher.worker.stopping import is_stopped, soft_limited, told_to_end
from eventually import eventually
from in_memory import InMemory

LOST = SimpleNamespace(exception=WorkerLostError("signal 9"))


class Told:
    """What Celery's class of requests is to ours: it notes what it is told."""

    worker_pid = os.getpid()
    _already_cancelled = False

    def __init__(self, batcher: Batcher, id: str) -> None:
        self.app, self.id = batcher.app, id
        self.task = SimpleNamespace(name="work")
        self.calls: list[Any] = []

    def on_timeout(self, soft: bool, timeout: float) -> None:
        self.calls.append(("on_timeout", soft, timeout))

    def on_failure(self, exc_info: Any, send_failed_event: bool, return_ok: bool) -> None:
        self.calls.append(("on_failure", send_failed_event, return_ok))

    def cancel(self, pool: Any, **kwargs: Any) -> None:
        self.calls.append(("cancel", kwargs))
        pool.terminate_job()


@pytest.fixture
def batcher(site: InMemory) -> Batcher:
    batcher = site.batcher(flush_mode="tick")
    batcher.watcher(name="work", bisect=False)(lambda batch: None)
    return batcher


def claimed(site: InMemory, batcher: Batcher, pid: int) -> Any:
    """The request of a batch that a process has claimed."""
    batcher.watchers["work"].enqueue({})
    batcher.tick()
    ((_, id, _),) = site.tasks()
    batcher.store.claim(id, f"{owner(pid)}/x", batcher.limits(), 60_000)
    request = gives_back(Told)(batcher, id)
    request.worker_pid = pid
    return request


def attempts(site: InMemory, batcher: Batcher) -> list[int]:
    """The attempts of what waits, after everything was given back."""
    hand_back.finish()
    seen: list[int] = []
    watcher = batcher.watchers["work"]
    watcher.handler = lambda batch: seen.extend(op.attempt for op in batch)
    site.tick(batcher)
    return seen


def test_requests_are_made_of_the_apps_own(site: InMemory) -> None:
    class OwnRequest(Request):
        pass

    class OwnTask(Task):
        Request = OwnRequest

    plain = site.batcher("plain").watcher(name="plain")(lambda batch: None)
    assert issubclass(site.app.tasks[plain.name].Request, (GivesBack, Request))
    own = InMemory()
    own.app.Task = OwnTask
    own.batcher().watcher(name="work")(lambda batch: None)
    task = own.app.tasks["work"]

    assert isinstance(task, OwnTask)
    assert issubclass(task.Request, GivesBack)
    assert issubclass(task.Request, OwnRequest)
    assert task.Request is task.Request
    own.close()


def test_a_killed_childs_batch_comes_back_and_the_attempt_counts(
    site: InMemory, batcher: Batcher
) -> None:
    request = claimed(site, batcher, os.getpid())

    request.on_failure(LOST)

    assert request.calls == [("on_failure", True, False)]
    assert attempts(site, batcher) == [2]


def test_what_died_of_a_killed_child_is_a_failure_for_whoever_waits_for_its_result() -> None:
    site = InMemory(result_backend="cache+memory://")
    batcher = site.batcher(flush_mode="tick")
    work = batcher.watcher(name="work", max_attempts=1, ignore_result=False)(lambda batch: None)
    request = claimed(site, batcher, os.getpid())

    request.on_failure(LOST)

    hand_back.finish()
    apart.finish()
    (letter,) = work.dead_letters
    with pytest.raises(OperationFailedError, match="the process of its handler was lost"):
        site.app.AsyncResult(letter.id).get(timeout=1)
    site.close()


def test_a_child_that_its_worker_ended_has_used_no_attempt(
    site: InMemory, batcher: Batcher
) -> None:
    request = claimed(site, batcher, os.getpid())
    request._already_cancelled = True

    request.on_failure(LOST)

    assert attempts(site, batcher) == [1]


def test_a_hard_time_limit_gives_the_batch_back_and_a_soft_one_does_not(
    site: InMemory, batcher: Batcher
) -> None:
    request = claimed(site, batcher, os.getpid())

    request.on_timeout(True, 1.0)
    assert attempts(site, batcher) == []
    request.on_timeout(False, 2.0)

    assert request.calls == [("on_timeout", True, 1.0), ("on_timeout", False, 2.0)]
    assert attempts(site, batcher) == [2]


def test_a_handler_that_raised_keeps_what_it_settled(site: InMemory, batcher: Batcher) -> None:
    request = claimed(site, batcher, os.getpid())

    request.on_failure(LOST, return_ok=True)

    assert attempts(site, batcher) == []
    assert batcher.store.counts().running == 1


def test_a_batch_that_another_process_has_is_left_alone(site: InMemory, batcher: Batcher) -> None:
    request = claimed(site, batcher, os.getpid() + 10**9)
    request.worker_pid = os.getpid()

    request.on_failure(LOST)

    assert attempts(site, batcher) == []
    assert batcher.store.counts().running == 1


def test_nothing_is_given_back_before_the_process_has_ended(
    site: InMemory, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ends_the_third_time(pid: int, number: int) -> None:
        assert (pid, number) == (10**9, 0)
        assert batcher.store.counts().running == 1
        asked.append(pid)
        if len(asked) == 3:
            raise ProcessLookupError

    monkeypatch.setattr(hand_back_module.os, "kill", ends_the_third_time)
    request = claimed(site, batcher, 10**9)

    request.cancel(SimpleNamespace(terminate_job=lambda: None), emit_retry=True)

    assert request.calls == [("cancel", {"emit_retry": True})]
    assert attempts(site, batcher) == [1]  # its worker was shut down: no fault of its own
    assert len(asked) == 3


def test_a_pool_that_cannot_kill_has_the_handler_asked_to_end(
    site: InMemory, batcher: Batcher
) -> None:
    def cannot() -> None:
        raise NotImplementedError

    request = claimed(site, batcher, os.getpid())

    request.cancel(SimpleNamespace(terminate_job=cannot))

    assert is_stopped(request.id)
    assert attempts(site, batcher) == []
    assert batcher.store.counts().running == 1


def test_a_store_that_is_away_is_logged_and_breaks_nothing(
    site: InMemory,
    batcher: Batcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise StoreUnavailableError("away")

    request = claimed(site, batcher, os.getpid())
    monkeypatch.setattr(batcher.store, "abandon", away)
    with caplog.at_level(logging.WARNING, "celery_batcher"):
        request.on_failure(LOST)
        eventually(lambda: "comes back at its deadline: away" in caplog.text)

    request.task = None  # nor does anything else
    request.on_failure(LOST)
    assert "AttributeError" in caplog.text


# Ends and deadlines of handlers


def run(site: InMemory, batcher: Batcher, handler: Callable[[Batch], None]) -> Any:
    """Enqueue two operations and let a handler have them; what became of the batch."""
    watcher = batcher.watchers["work"]
    watcher.handler = handler
    watcher.enqueue_many([{"n": 1}, {"n": 2}])
    batcher.tick()
    ((_, id, _),) = site.tasks()
    return batcher.run_batch(watcher, id)


def test_a_handler_that_is_asked_to_end_gives_back_what_it_has_not_decided(
    site: InMemory, batcher: Batcher
) -> None:
    from celery_batcher.worker.stopping import stop

    def handle(batch: Batch) -> None:
        for op in batch:
            batch.done(op)
            stop(batch.id)

    assert run(site, batcher, handle) == {"batch": "stopped", "done": 1, "given_back": 1}
    assert attempts(site, batcher) == [1]


def test_a_process_that_is_told_to_end_gives_back_and_ends(
    site: InMemory, batcher: Batcher
) -> None:
    def ends(batch: Batch) -> None:
        raise SystemExit(-(256 - signal.SIGTERM))

    with pytest.raises(SystemExit):
        run(site, batcher, ends)

    assert attempts(site, batcher) == [1, 1]


def test_a_process_that_is_killed_because_its_time_was_over_has_used_an_attempt(
    site: InMemory, batcher: Batcher
) -> None:
    def ends(batch: Batch) -> None:
        site.clock.advance(batch.remaining)
        raise SystemExit(-(256 - signal.SIGTERM))

    with pytest.raises(SystemExit):
        run(site, batcher, ends)

    assert attempts(site, batcher) == [2, 2]


def test_an_exit_of_the_handlers_own_is_an_error(site: InMemory, batcher: Batcher) -> None:
    def ends(batch: Batch) -> None:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        run(site, batcher, ends)

    assert attempts(site, batcher) == [2, 2]
    assert not told_to_end(SystemExit())


def test_iterating_raises_once_when_the_time_is_over_and_what_was_decided_stays(
    site: InMemory, batcher: Batcher
) -> None:
    rest: list[Any] = []

    def slow(batch: Batch) -> None:
        try:
            for op in batch:
                batch.done(op)
                site.clock.advance(batch.remaining)
        except SoftTimeLimitExceeded:
            rest.extend(op.payload["n"] for op in batch)
            raise

    with pytest.raises(SoftTimeLimitExceeded):
        run(site, batcher, slow)

    assert rest == [1, 2]
    assert (batcher.store.counts().done, batcher.store.counts().waiting) == (1, 1)
    assert attempts(site, batcher) == [2]


def test_a_commit_records_first_and_raises_then_when_the_time_is_over(
    site: InMemory, batcher: Batcher
) -> None:
    def slow(batch: Batch) -> None:
        batch.done(batch[0])
        site.clock.advance(batch.remaining)
        try:
            batch.commit()
        except SoftTimeLimitExceeded:
            assert batcher.store.counts().done == 1
            raise

    with pytest.raises(SoftTimeLimitExceeded):
        run(site, batcher, slow)


def test_where_celery_interrupts_handlers_nothing_else_does(
    site: InMemory, batcher: Batcher
) -> None:
    watcher = batcher.watchers["work"]
    watcher.handler = lambda batch: [site.clock.advance(60.5) for _ in batch]
    watcher.enqueue({})
    batcher.tick()
    ((_, id, _),) = site.tasks()

    assert batcher.run_batch(watcher, id, soft_limited=True) == {"done": 1, "cost": 1}


def test_soft_limits_work_in_a_process_of_a_pool_that_was_given_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, not_given = SimpleNamespace(timelimit=(2, 1)), SimpleNamespace(timelimit=(None, None))
    assert not soft_limited(given)
    child = SimpleNamespace(name="ForkPoolWorker-1")
    monkeypatch.setattr("celery_batcher.worker.stopping.current_process", lambda: child)
    assert soft_limited(given)
    assert not soft_limited(not_given)
    assert not soft_limited(SimpleNamespace(timelimit=None))


def test_a_refused_claim_is_not_asked_about_again(
    site: InMemory, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery_batcher import ClaimExpiredError

    asked: list[str] = []

    def counted(name: str) -> None:
        real = getattr(batcher.store, name)
        monkeypatch.setattr(batcher.store, name, lambda *args: asked.append(name) or real(*args))

    def late(batch: Batch) -> None:
        batcher.store.abandon(batch.id, owner(os.getpid()), "lost")
        counted("commit")
        counted("settle")
        batch.done(batch[0])
        batch.commit()

    with pytest.raises(ClaimExpiredError):
        run(site, batcher, late)

    assert asked == ["commit"]
    assert batcher.status().late_batches == 1


# Children


def test_a_pool_of_processes_looks_for_ended_children_often_and_once_per_connection() -> None:
    ended: list[Any] = []
    entries = [SimpleNamespace(cancel=lambda at=at: ended.append(at)) for at in (1, 2)]
    calls: list[Any] = []

    def call_repeatedly(every: float, act: Any) -> Any:
        calls.append(act)
        return entries[len(calls) - 1]

    pool = SimpleNamespace(uses_semaphore=True, maintain_pool=object())
    consumer = SimpleNamespace(hub=SimpleNamespace(call_repeatedly=call_repeatedly), pool=pool)

    look_after_children(consumer)
    look_after_children(consumer)

    assert (calls, ended) == ([pool.maintain_pool] * 2, [1])


def test_other_pools_and_loops_are_left_alone() -> None:
    hub = SimpleNamespace(call_repeatedly=None)
    look_after_children(SimpleNamespace(hub=hub, pool=SimpleNamespace(uses_semaphore=False)))
    look_after_children(SimpleNamespace(hub=None, pool=SimpleNamespace(uses_semaphore=True)))
