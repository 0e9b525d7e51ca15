"""What a handler decides about each operation of its batch, and what follows from an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from builders import Bench, MicroClock, memory_bench, op
from celery_batcher import (
    Batch,
    ClaimExpiredError,
    ConfigurationError,
    OutcomeError,
    StoreUnavailableError,
    Throttled,
)
from celery_batcher.claim import Claimant
from celery_batcher.enqueuing import Patience
from celery_batcher.events import Listeners
from celery_batcher.outcomes import RetryPolicy
from celery_batcher.store.base import Released, Settlement
from celery_batcher.store.options import WatcherOptions

Handler = Callable[[Batch], Any]


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    app = Celery("outcomes", broker="memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def bench() -> Bench:
    bench = memory_bench(MicroClock())
    return bench.begin(WatcherOptions("w", max_attempts=3), capacity=100, flush_ms=1000)


@pytest.fixture
def worker(app: Celery, bench: Bench) -> Claimant:
    return Claimant(
        app=app,
        store=bench.store,
        clock=bench.clock,
        limits=bench.limits,
        operation_time=30.0,
        watcher="w",
        handler=lambda batch: None,
        listeners=Listeners(),
        emit_batch=False,
    )


def put(bench: Bench, *ids: str, **options: Any) -> Released:
    bench.put(*(op(id, **options) for id in ids))
    return bench.released()


def state(bench: Bench) -> dict[str, int]:
    """Operations by state."""
    counts = bench.store.counts()
    states = ("waiting", "delayed", "running", "done", "dead")
    return {name: n for name in states if (n := getattr(counts, name))}


def reasons(bench: Bench) -> list[str]:
    return [dead.reason for dead in bench.store.dead("w", 9)]


def test_each_operation_gets_the_outcome_that_the_handler_decided(
    bench: Bench, worker: Claimant
) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        batch.retry(batch[1])
        batch.fail(batch[2], reason="no such customer")
        batch.retry(batch[3], after=5)

    batch = put(bench, "a", "b", "c", "d", "e")

    answer = replace(worker, handler=handle).run(batch.id)

    assert answer == {"done": 2, "retried": 2, "failed": 1, "cost": 5}
    assert state(bench) == {"waiting": 1, "delayed": 1, "done": 2, "dead": 1}
    assert reasons(bench) == ["no such customer"]
    assert bench.run() == ["b"]


def test_the_last_decision_counts_until_it_is_committed(bench: Bench, worker: Claimant) -> None:
    def handle(batch: Batch) -> None:
        batch.fail(batch[0], reason="too early")
        batch.done(batch[0])
        batch.commit()
        batch.retry(batch[0])

    batch = put(bench, "a")

    with pytest.raises(OutcomeError, match="operation a was committed as done"):
        replace(worker, handler=handle).run(batch.id)

    assert state(bench) == {"done": 1}


def test_an_operation_of_another_batch_is_refused(bench: Bench, worker: Claimant) -> None:
    seen: list[Batch] = []
    replace(worker, handler=seen.append).run(put(bench, "other").id)

    with pytest.raises(OutcomeError, match="operation other is not of this batch"):
        replace(worker, handler=lambda b: b.done(seen[0][0])).run(put(bench, "a").id)

    assert state(bench) == {"waiting": 1, "done": 1}


# What is undecided


def test_what_a_raising_handler_had_decided_stays_decided(bench: Bench, worker: Claimant) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        batch.fail(batch[1], reason="bad")
        raise RuntimeError("the third")

    batch = put(bench, "a", "b", "c")

    with pytest.raises(RuntimeError, match="the third"):
        replace(worker, handler=handle).run(batch.id)

    assert state(bench) == {"waiting": 1, "done": 1, "dead": 1}
    assert bench.run() == ["c"]


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), KeyboardInterrupt(), SystemExit()])
def test_an_end_that_is_not_the_handlers_own_retries_the_undecided(
    bench: Bench, worker: Claimant, error: BaseException
) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        raise error

    batch = put(bench, "a", "b")
    policy = RetryPolicy(autoretry_for=(), dont_autoretry_for=(BaseException,))

    with pytest.raises(type(error)):
        replace(worker, handler=handle, policy=policy).run(batch.id)

    assert state(bench) == {"waiting": 1, "done": 1}


def test_throttled_gives_the_undecided_back_and_burns_no_attempt(
    bench: Bench, worker: Claimant
) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        batch.retry(batch[1])
        raise Throttled(retry_after=2)

    batch = put(bench, "a", "b", "c")

    answer = replace(worker, handler=handle).run(batch.id)

    assert answer == {"batch": "throttled", "done": 1, "retried": 1, "given_back": 1}
    assert bench.refused() == "closed"
    bench.clock.advance(2)
    attempts: list[tuple[str, int]] = []
    again = replace(worker, handler=lambda b: attempts.extend((one.id, one.attempt) for one in b))
    again.run(bench.released().id)
    assert attempts == [("b", 2), ("c", 1)]


def test_throttled_without_a_time_backs_off_longer_each_time(
    bench: Bench, worker: Claimant
) -> None:
    def handle(batch: Batch) -> None:
        raise Throttled

    closed: list[float] = []
    batch = put(bench, "a").id
    for _ in range(3):
        replace(worker, handler=handle).run(batch)
        refused = bench.release()
        assert (refused.reason, bench.store.counts().waiting) == ("closed", 1)  # type: ignore[union-attr]
        closed.append(refused.wait_ms / 1000)  # type: ignore[union-attr]
        bench.clock.advance(closed[-1])
        batch = bench.released().id

    assert 0.5 <= closed[0] <= 1 <= closed[1] <= 2 <= closed[2] <= 4


# Attempts, backoff and errors that are final


def test_a_retry_in_the_last_attempt_is_dead_and_says_why(bench: Bench, worker: Claimant) -> None:
    put(bench, "a", attempt=3)
    handler: Handler = lambda batch: batch.retry(batch[0], after=1)  # noqa: E731

    answer = replace(worker, handler=handler).run("b2")

    assert answer["retried"] == 1
    assert state(bench) == {"dead": 1}
    assert reasons(bench) == ["its handler asked for another try in attempt 3, the last"]


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (4, 10), (5, 10)])
def test_the_delay_doubles_up_to_the_longest(
    bench: Bench, worker: Claimant, attempt: int, seconds: int
) -> None:
    bench.begin(WatcherOptions("w", max_attempts=0))
    batch = put(bench, "a", attempt=attempt)
    policy = RetryPolicy(retry_backoff=2, retry_backoff_max=10, retry_jitter=False)

    with pytest.raises(RuntimeError):
        replace(worker, handler=fail, policy=policy).run(batch.id)

    bench.clock.advance(seconds - 0.001)
    assert bench.refused() == "empty"
    bench.clock.advance(0.001)
    assert bench.run() == ["a"]


def fail(batch: Batch) -> None:
    raise RuntimeError("no")


def test_jitter_spreads_the_delays(bench: Bench, worker: Claimant) -> None:
    batch = put(bench, *(f"o{at}" for at in range(60)))
    policy = RetryPolicy(retry_backoff=60, bisect=False)

    with pytest.raises(RuntimeError):
        replace(worker, handler=fail, policy=policy).run(batch.id)

    came: Counter[int] = Counter()
    for second in range(61):
        came[second] = sum(len(ids) for ids in bench.drain())
        bench.clock.advance(1)
    assert sum(came.values()) == 60
    assert sum(1 for n in came.values() if n) > 15


def test_a_refusal_says_when_the_next_delay_is_over(bench: Bench, worker: Claimant) -> None:
    batch = put(bench, "a")
    replace(worker, handler=lambda b: b.retry(b[0], after=0.25)).run(batch.id)

    refused = bench.release()

    assert (refused.reason, refused.wait_ms) == ("empty", 250)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("policy", "error", "ends"),
    [
        (RetryPolicy(), ValueError(), "waiting"),
        (RetryPolicy(autoretry_for=(OSError,)), ConnectionError(), "waiting"),
        (RetryPolicy(autoretry_for=(OSError,)), ValueError(), "dead"),
        (RetryPolicy(dont_autoretry_for=(ValueError,)), UnicodeError(), "dead"),
        (RetryPolicy(dont_autoretry_for=(ValueError,)), KeyError(), "waiting"),
    ],
)
def test_errors_that_are_not_retried_are_final(
    bench: Bench, worker: Claimant, policy: RetryPolicy, error: Exception, ends: str
) -> None:
    def handle(batch: Batch) -> None:
        raise error

    batch = put(bench, "a", "b")

    with pytest.raises(type(error)):
        replace(worker, handler=handle, policy=replace(policy, bisect=False)).run(batch.id)

    assert state(bench) == {ends: 2}
    assert all(type(error).__name__ in reason for reason in reasons(bench))


# Commit


def test_a_commit_survives_what_comes_after(bench: Bench, worker: Claimant) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        batch.fail(batch[2], reason="bad")
        batch.commit()
        assert state(bench) == {"running": 2, "done": 1, "dead": 1}
        batch.done(batch[3])
        batch.commit()
        batch.commit()  # nothing new
        raise MemoryError

    batch = put(bench, "a", "b", "c", "d", cost=2)

    with pytest.raises(MemoryError):
        replace(worker, handler=handle).run(batch.id)

    assert state(bench) == {"waiting": 1, "done": 2, "dead": 1}
    assert bench.store.counts().unsettled_cost == 2
    assert bench.run() == ["b"]


def test_everything_may_be_committed(bench: Bench, worker: Claimant) -> None:
    def handle(batch: Batch) -> None:
        for one in batch:
            batch.done(one)
            batch.commit()

    batch = put(bench, "a", "b", registered=True)

    assert replace(worker, handler=handle).run(batch.id) == {"done": 2, "cost": 2}
    assert state(bench) == {"done": 2}
    assert bench.put(op("a", registered=True)).duplicates == 0


def test_an_id_that_was_committed_may_be_enqueued_again_at_once(
    bench: Bench, worker: Claimant
) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        batch.commit()
        assert bench.put(op("a", registered=True)).operations == 1

    batch = put(bench, "a", "b", registered=True)
    replace(worker, handler=handle).run(batch.id)

    assert bench.put(op("a", registered=True)).duplicates == 1, "the new one lives"


def test_a_commit_after_the_claim_is_refused(bench: Bench, worker: Claimant) -> None:
    def handle(batch: Batch) -> None:
        batch.done(batch[0])
        bench.clock.advance(40)
        bench.store.expire(bench.token, bench.limits, "late", 9)
        bench.clock.advance(1)
        bench.store.expire(bench.token, bench.limits, "late", 9)
        bench.clock.advance(1.5)
        bench.store.expire(bench.token, bench.limits, "late", 9)
        batch.commit()

    batch = put(bench, "a")

    with pytest.raises(ClaimExpiredError):
        replace(worker, handler=handle).run(batch.id)

    assert state(bench) == {"waiting": 1}


class LostAnswers:
    """A store whose commits take effect, and are answered when a test says so."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.answers = False

    def __getattr__(self, act: str) -> Any:
        return getattr(self._store, act)

    def commit(self, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
        recorded: bool = self._store.commit(id, nonce, number, settlement)
        if not self.answers:
            raise StoreUnavailableError("the answer was lost")
        return recorded


def test_a_commit_whose_answer_was_lost_is_sent_again_before_all_else(
    bench: Bench, worker: Claimant
) -> None:
    store: Any = LostAnswers(bench.store)

    def handle(batch: Batch) -> None:
        batch.fail(batch[0], "bad")
        with pytest.raises(StoreUnavailableError):
            batch.commit()
        store.answers = True
        batch.retry(batch[1], after=50)
        batch.retry(batch[2], after=timedelta(seconds=1))

    batch = put(bench, "a", "b", "c")

    answer = replace(worker, store=store, handler=handle, operation_time=1.0).run(batch.id)

    assert answer == {"done": 0, "retried": 2, "failed": 1, "cost": 3}
    assert state(bench) == {"delayed": 2, "dead": 1}
    bench.clock.advance(1)
    assert bench.drain() == [["c"]]


# What goes wrong in handlers


@pytest.mark.parametrize("reason", [None, 7, ValueError("no"), "\udcff", "x" * 100_000])
def test_any_reason_is_kept_as_text_that_is_not_too_long(
    bench: Bench, worker: Claimant, reason: Any
) -> None:
    def handle(batch: Batch) -> None:
        batch.fail(batch[0], reason)

    replace(worker, handler=handle).run(put(bench, "a", "b").id)

    assert state(bench) == {"done": 1, "dead": 1}
    (kept,) = reasons(bench)
    assert kept.encode()
    assert len(kept) < 9000


def test_an_error_whose_text_cannot_be_encoded_is_kept_all_the_same(
    bench: Bench, worker: Claimant
) -> None:
    def handle(batch: Batch) -> None:
        raise ValueError("\udcff" * 100_000)

    batch = put(bench, "a", attempt=3)

    with pytest.raises(ValueError, match="\udcff"):
        replace(worker, handler=handle).run(batch.id)

    (kept,) = reasons(bench)
    assert "ValueError" in kept
    assert len(kept) < 9000


@pytest.mark.parametrize("after", [-1, True, "1", float("nan"), float("inf")])
def test_a_wrong_delay_is_refused(bench: Bench, worker: Claimant, after: Any) -> None:
    with pytest.raises(ConfigurationError, match="after="):
        replace(worker, handler=lambda b: b.retry(b[0], after=after)).run(put(bench, "a").id)

    assert state(bench) == {"waiting": 1}


def test_no_delay_is_at_once(bench: Bench, worker: Claimant) -> None:
    policy = RetryPolicy(retry_backoff=60, retry_jitter=False)
    handler: Handler = lambda b: b.retry(b[0], after=0)  # noqa: E731

    replace(worker, policy=policy, handler=handler).run(put(bench, "a").id)

    assert state(bench) == {"waiting": 1}


class Interrupting:
    """A store in whose commits and settlements the soft time limit comes, once."""

    def __init__(self, store: Any, act: str, *, away: bool) -> None:
        self._store, self._act, self._away, self._left = store, act, away, 1

    def __getattr__(self, act: str) -> Any:
        real = getattr(self._store, act)

        def call(*args: Any) -> Any:
            if act == self._act and self._left:
                self._left -= 1
                if self._away:
                    raise StoreUnavailableError("away")
                raise SoftTimeLimitExceeded
            return real(*args)

        return call


def test_a_soft_limit_during_a_commit_is_raised_once_it_is_recorded(
    bench: Bench, worker: Claimant
) -> None:
    went_on: list[str] = []

    def handle(batch: Batch) -> None:
        for one in batch:
            batch.done(one)
            batch.commit()
            went_on.append(one.id)

    batch = put(bench, "a", "b")
    store: Any = Interrupting(bench.store, "commit", away=False)

    with pytest.raises(SoftTimeLimitExceeded):
        replace(worker, store=store, handler=handle).run(batch.id)

    assert went_on == []
    assert state(bench) == {"waiting": 1, "done": 1}


def test_a_soft_limit_while_a_settlement_waits_for_the_store_does_not_lose_it(
    bench: Bench, worker: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [SoftTimeLimitExceeded()]

    def over(patience: Patience) -> bool:
        if limits:
            raise limits.pop()
        return False

    monkeypatch.setattr(Patience, "over", over)
    store: Any = Interrupting(bench.store, "settle", away=True)

    replace(worker, store=store).run(put(bench, "a").id)

    assert state(bench) == {"done": 1}


def test_operations_of_one_id_are_told_apart(bench: Bench, worker: Claimant) -> None:
    def handle(batch: Batch) -> None:
        batch.fail(batch[0], "bad")
        batch.done(batch[1])

    replace(worker, handler=handle).run(put(bench, "same", "same").id)

    assert state(bench) == {"done": 1, "dead": 1}


def test_a_batch_of_ones_own_can_be_decided_in_tests() -> None:
    from celery_batcher.clock import ManualClock
    from celery_batcher.operation import Operation

    batch = Batch("id", "w", (Operation("a", "w", 1, None),), 60.0, ManualClock())
    batch.done(batch[0])
    batch.commit()
