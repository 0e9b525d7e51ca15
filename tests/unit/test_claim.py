"""What a worker does with a batch: once, in time, and recorded whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from builders import Bench, MicroClock, memory_bench, op, read
from celery_batcher import Batch, ClaimExpiredError, StoreUnavailableError, Throttled
from celery_batcher.claim import Claimant
from celery_batcher.events import Listeners
from celery_batcher.outcomes import RetryPolicy
from celery_batcher.store.base import Released
from celery_batcher.store.options import WatcherOptions

Handler = Callable[[Batch], Any]


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    app = Celery("claim", broker="memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def bench() -> Bench:
    bench = memory_bench(MicroClock())
    return bench.begin(
        WatcherOptions("w", max_batch_size=3, max_attempts=2), capacity=100, flush_ms=1000
    )


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


class Faulty:
    """A store that fails, before or after the real call, when a test says so."""

    def __init__(self, store: Any, clock: Any) -> None:
        self._store, self._clock = store, clock
        self.before: dict[str, int] = {}
        self.after: dict[str, int] = {}
        self.takes: dict[str, list[float]] = {}
        self.calls: list[str] = []

    def __getattr__(self, act: str) -> Any:
        real = getattr(self._store, act)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(act)
            self._fail(self.before, act)
            answer = real(*args, **kwargs)
            self._clock.advance(self.takes[act].pop(0) if self.takes.get(act) else 0)
            self._fail(self.after, act)
            return answer

        return call

    @staticmethod
    def _fail(left: dict[str, int], act: str) -> None:
        if left.get(act):
            left[act] -= 1
            raise StoreUnavailableError("away")


def put(bench: Bench, *ids: str, **options: Any) -> Released:
    bench.put(*(op(id, **options) for id in ids))
    return bench.released()


def test_a_handled_batch_is_done_and_says_what_it_was(bench: Bench, worker: Claimant) -> None:
    seen: list[Batch] = []
    batch = put(bench, "a", "b", cost=4)

    answer = replace(worker, handler=seen.append).run(batch.id)

    assert answer == {"done": 2, "cost": 8}
    assert [(one.id, one.cost, one.attempt) for one in seen[0]] == [("a", 4, 1), ("b", 4, 1)]
    assert (seen[0].id, seen[0].watcher, seen[0].cost, len(seen[0])) == (batch.id, "w", 8, 2)
    assert seen[0][0].payload == "x"
    assert bench.store.counts().done == 2


def test_the_deadline_is_the_operation_time_from_before_the_claim(
    bench: Bench, worker: Claimant
) -> None:
    faulty = Faulty(bench.store, bench.clock)
    faulty.takes["claim"] = [0.004]
    remaining: list[float] = []
    batch = put(bench, "a")

    replace(worker, store=faulty, handler=lambda b: remaining.append(b.remaining)).run(batch.id)

    assert 29.9 < remaining[0] <= 30.0


def test_a_batch_that_is_taken_gone_or_must_wait_reaches_no_handler(
    bench: Bench, worker: Claimant
) -> None:
    def never(batch: Batch) -> None:
        raise AssertionError(batch)

    worker = replace(worker, handler=never)
    batch = put(bench, "a")
    bench.claim(batch, "another")
    assert worker.run(batch.id) == {"batch": "taken"}
    assert worker.run("unknown") == {"batch": "gone"}
    waits = put(bench, "b")
    bench.store.pause(1000)
    assert worker.run(waits.id) == {"batch": "wait"}


def test_a_handler_that_raises_gets_its_operations_again_until_they_are_dead(
    bench: Bench, worker: Claimant
) -> None:
    attempts: list[int] = []

    def fail(batch: Batch) -> None:
        attempts.extend(one.attempt for one in batch)
        raise LookupError("no such table")

    worker = replace(worker, handler=fail, policy=RetryPolicy(bisect=False))
    batch = put(bench, "a", "b")
    with pytest.raises(LookupError, match="no such table"):
        worker.run(batch.id)
    assert bench.store.counts().waiting == 2
    with pytest.raises(LookupError):
        worker.run(bench.released().id)

    assert attempts == [1, 1, 2, 2]
    counts = bench.store.counts()
    assert (counts.dead, counts.waiting, counts.unsettled_cost) == (2, 0, 0)
    assert all("LookupError: no such table" in one.reason for one in bench.store.dead("w", 9))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_is_interrupted_gives_its_operations_back_too(
    bench: Bench, worker: Claimant, error: type[BaseException]
) -> None:
    def fail(batch: Batch) -> None:
        raise error

    batch = put(bench, "a")
    with pytest.raises(error):
        replace(worker, handler=fail).run(batch.id)

    assert bench.store.counts().waiting == 1


def test_throttled_closes_the_resource_and_burns_no_attempt(bench: Bench, worker: Claimant) -> None:
    def throttle(batch: Batch) -> None:
        raise Throttled(retry_after=2.5)

    batch = put(bench, "a", "b")

    answer = replace(worker, handler=throttle).run(batch.id)

    assert answer == {"batch": "throttled", "given_back": 2}
    refusal = bench.release()
    assert (refusal.reason, refusal.wait_ms) == ("closed", 2500)  # type: ignore[union-attr]
    bench.clock.advance(2.5)
    again = bench.claim(bench.released())
    assert [one.attempt for one in read(again.blocks)] == [1, 1]


@pytest.mark.parametrize(
    "retry_after", [None, 0, -1, float("nan"), float("inf"), "2", 10**400], ids=repr
)
def test_a_strange_retry_after_gives_the_operations_back_all_the_same(
    bench: Bench, worker: Claimant, retry_after: Any
) -> None:
    def throttle(batch: Batch) -> None:
        raise Throttled(retry_after)

    batch = put(bench, "a")
    with suppress(Exception):  # whatever it says of the value
        replace(worker, handler=throttle).run(batch.id)

    counts = bench.store.counts()
    assert (counts.running, counts.waiting) == (0, 1)


def test_throttling_burns_no_attempt_when_the_store_is_away(bench: Bench, worker: Claimant) -> None:
    def throttle(batch: Batch) -> None:
        raise Throttled(1)

    faulty = Faulty(bench.store, bench.clock)
    faulty.before["shut"] = 1
    batch = put(bench, "a")
    with suppress(StoreUnavailableError):
        replace(worker, store=faulty, handler=throttle).run(batch.id)

    assert bench.store.counts().waiting == 1


def test_an_unreadable_payload_is_dead_alone(
    bench: Bench, worker: Claimant, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[str] = []
    bench.put(op("a"), op("bad", payload=b"{", registered=True), op("b"))
    batch = bench.released()

    with caplog.at_level(logging.ERROR, "celery_batcher"):
        answer = replace(worker, handler=lambda b: handled.extend(one.id for one in b)).run(
            batch.id
        )

    assert handled == ["a", "b"]
    assert answer == {"done": 2, "failed": 1, "cost": 2}
    (dead,) = bench.store.dead("w", 9)
    assert "payload of bad cannot be read" in dead.reason
    assert "payload of bad cannot be read" in caplog.text
    assert bench.put(op("bad", registered=True)).operations == 1


def test_a_batch_of_unreadable_payloads_reaches_no_handler(bench: Bench, worker: Claimant) -> None:
    def never(batch: Batch) -> None:
        raise AssertionError(batch)

    batch = put(bench, "a", "b", payload=b"{")
    assert replace(worker, handler=never).run(batch.id) == {"done": 0, "failed": 2, "cost": 0}
    assert bench.store.counts().dead == 2


def test_registered_ids_are_free_again_once_done(bench: Bench, worker: Claimant) -> None:
    batch = put(bench, "mine", registered=True)
    worker.run(batch.id)

    assert bench.put(op("mine", registered=True)).operations == 1


# In time


def test_a_prompt_handler_needs_no_renewal(bench: Bench, worker: Claimant) -> None:
    faulty = Faulty(bench.store, bench.clock)
    faulty.takes["claim"] = [0.009]

    replace(worker, store=faulty).run(put(bench, "a").id)

    assert faulty.calls == ["claim", "settle"]


def test_a_late_start_renews_until_it_is_in_time(bench: Bench, worker: Claimant) -> None:
    faulty = Faulty(bench.store, bench.clock)
    faulty.takes = {"claim": [0.02], "renew": [0.03, 0.001]}

    replace(worker, store=faulty).run(put(bench, "a").id)

    assert faulty.calls == ["claim", "renew", "renew", "settle"]


def test_without_a_capacity_no_hold_is_renewed(bench: Bench, worker: Claimant) -> None:
    bench.limits = replace(bench.limits, capacity=None)
    faulty = Faulty(bench.store, bench.clock)
    faulty.takes["claim"] = [5.0]

    replace(worker, store=faulty, limits=bench.limits).run(put(bench, "a").id)

    assert bench.store.counts().done == 1
    assert faulty.calls.count("renew") <= 1


def test_a_hold_that_is_gone_gives_the_batch_back_and_counts_no_attempt(
    bench: Bench, worker: Claimant
) -> None:
    def never(batch: Batch) -> None:
        raise AssertionError(batch)

    faulty = Faulty(bench.store, bench.clock)
    faulty.takes["claim"] = [1.5]
    batch = put(bench, "a", "b")

    answer = replace(worker, store=faulty, handler=never).run(batch.id)

    assert answer == {"batch": "late", "given_back": 2}
    again = bench.claim(bench.released())
    assert [one.attempt for one in read(again.blocks)] == [1, 1]


def test_a_slow_listener_does_not_make_a_handler_start_outside_of_its_hold(
    bench: Bench, worker: Claimant
) -> None:
    faulty = Faulty(bench.store, bench.clock)
    listeners = Listeners()
    events: list[tuple[str, int, str, Any]] = []
    listeners.add(lambda *event: (events.append(event), bench.clock.advance(0.5)))  # type: ignore[arg-type, func-returns-value]
    started: list[float] = []
    ended: list[float] = []
    batch = put(bench, "a")

    replace(
        worker,
        store=faulty,
        listeners=listeners,
        emit_batch=True,
        handler=lambda b: started.append(bench.clock.monotonic()),
    ).run(batch.id)
    while bench.store.counts().held:
        bench.clock.advance(0.001)
    ended.append(bench.clock.monotonic())

    assert [(name, val, msg) for name, val, msg, _ in events] == [("batch", 1, "w")]
    assert ended[0] - started[0] >= 1.0


# Settling


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_outcome_is_recorded_although_the_store_was_away(
    bench: Bench, worker: Claimant, when: str
) -> None:
    faulty = Faulty(bench.store, bench.clock)
    getattr(faulty, when)["settle"] = 5
    batch = put(bench, "a")

    assert replace(worker, store=faulty).run(batch.id) == {"done": 1, "cost": 1}
    assert faulty.calls.count("settle") == 6
    assert bench.store.counts().done == 1


def test_a_store_that_stays_away_is_an_error_when_the_claim_must_be_over(
    bench: Bench, worker: Claimant
) -> None:
    faulty = Faulty(bench.store, bench.clock)
    faulty.before["settle"] = 10**6
    began = bench.clock.monotonic()

    with pytest.raises(StoreUnavailableError):
        replace(worker, store=faulty).run(put(bench, "a").id)

    assert bench.clock.monotonic() - began >= 30.0


def test_a_handler_that_outlived_its_claim_is_told(bench: Bench, worker: Claimant) -> None:
    def slow(batch: Batch) -> None:
        for _ in range(60):
            bench.clock.advance(1)
            bench.store.expire(bench.token, bench.limits, "late", 9)

    batch = put(bench, "a")

    with pytest.raises(ClaimExpiredError, match="Raise max_operation_time") as caught:
        replace(worker, handler=slow).run(batch.id)

    assert isinstance(caught.value, TimeoutError)
    assert bench.store.counts().waiting == 1


def test_a_claim_lasts_the_operation_time_and_its_grace(bench: Bench, worker: Claimant) -> None:
    expired: list[float] = []

    def slow(batch: Batch) -> None:
        began = bench.clock.monotonic()
        while not expired:
            bench.clock.advance(0.5)
            if bench.store.expire(bench.token, bench.limits, "late", 9):
                expired.append(bench.clock.monotonic() - began)

    with pytest.raises(ClaimExpiredError):
        replace(worker, handler=slow).run(put(bench, "a").id)

    assert expired == [31.0]
