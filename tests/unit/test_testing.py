"""What users test their apps with: `batcher.testing()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from celery_batcher import (
    Batch,
    Batcher,
    ConfigurationError,
    ImproperOrderError,
    MemoryLeaseManager,
    NoWatcherError,
    ProvisionedResource,
    SharedResource,
    Throttled,
)
from celery_batcher.expecting import over_capacity
from celery_batcher.records import Start
from celery_batcher.store.options import Limit
from celery_batcher.testing import rehearse

AWAY = "redis://127.0.0.1:1/0"
"""Nobody answers there."""


@pytest.fixture
def app() -> Celery:
    return Celery(f"app{uuid4().hex}", broker=AWAY, backend=AWAY, set_as_current=False)


def write_with(
    batcher: Batcher, handler: Callable[[Batch], Any] = lambda batch: None, **options: Any
) -> Any:
    return batcher.watcher(name=f"{batcher.name}.write", **options)(handler)


def test_operations_wait_until_the_test_runs_them(app: Celery) -> None:
    store = Batcher("store", app=app, rate_limiter=ProvisionedResource(100))
    seen: list[Any] = []
    write = write_with(store, lambda batch: seen.extend(one.payload for one in batch))

    with store.testing() as t:
        write.enqueue({"id": 1}, cost=3, key="k")
        assert (seen, t.batches) == ([], [])
        assert store.operations_in_buffer() == 1

        (batch,) = t.step()

        assert seen == [{"id": 1}]
        assert (batch.watcher, batch.cost, batch.trigger) == ("store.write", 3, "interval")
        assert batch.payloads == [{"id": 1}]
        assert batch.outcomes == {t.operations[0].id: "done"}
        assert batch.error is None
        assert t.batches == [batch]
        assert store.status().done == 1
        t.assert_enqueued(write, payload={"id": 1}, key="k", cost=3, count=1)
        t.assert_done("store.write", payload={"id": 1}, count=1)
        t.assert_never_over_capacity()


def test_time_is_moved_by_the_test_and_capacity_is_kept(app: Celery) -> None:
    store = Batcher("store", app=app, rate_limiter=ProvisionedResource(10))
    write = write_with(store)

    with store.testing() as t:
        write.enqueue_many(range(50))
        t.run(seconds=2)
        assert t.clock.monotonic() == pytest.approx(2.0)
        done = sum(len(batch) for batch in (one.operations for one in t.batches))
        assert 18 <= done <= 20
        t.run_until_done()
        t.assert_done(write, count=50)
        t.assert_never_over_capacity()
        assert 4 < t.clock.monotonic() < 6


def test_retries_deaths_and_their_reasons_are_told(app: Celery) -> None:
    store = Batcher("store", app=app)

    def handle(batch: Batch) -> None:
        for one in batch:
            if one.payload == "bad":
                batch.fail(one, "no such table")
            elif one.payload == "later":
                batch.retry(one, after=60)

    write = write_with(store, handle, max_attempts=2)

    with store.testing() as t:
        write.enqueue_many(["good", "bad", "later"])
        (batch,) = t.step()
        assert list(batch.outcomes.values()) == ["done", "dead", "retried"]
        t.assert_dead(write, payload="bad", reason="no such table", count=1)
        t.assert_dead(write, payload="later", count=0)
        t.run_until_done()
        t.assert_dead(write, payload="later", reason="attempt 2")
        assert t.clock.monotonic() >= 60
        assert [letter.payload for letter in write.dead_letters] == ["bad", "later"]


def test_what_is_redriven_and_done_is_no_longer_dead(app: Celery) -> None:
    store = Batcher("store", app=app)
    write = write_with(store, max_attempts=1)

    with store.testing() as t:
        t.fail_next(write, OSError("away"))
        write.enqueue(1)
        t.run_until_done()
        t.assert_dead(write, reason="away", count=1)
        write.dead_letters.redrive()
        t.run_until_done()
        t.assert_dead(write, count=0)
        t.assert_done(write, count=1)


def test_a_429_closes_the_resource_and_burns_no_attempt(app: Celery) -> None:
    store = Batcher("store", app=app, rate_limiter=ProvisionedResource(10))
    write = write_with(store, max_attempts=1)

    with store.testing() as t:
        write.enqueue(1)
        t.fail_next(write, Throttled(retry_after=5.0))
        (batch,) = t.step()
        assert list(batch.outcomes.values()) == ["given_back"]
        assert t.run(seconds=4.9) == []
        (again,) = t.run_until_done()
        assert again.started_at >= 5.0
        assert again.operations[0].attempt == 1


def test_time_outs_are_raised_or_come_with_the_clock(app: Celery) -> None:
    store = Batcher("store", app=app, max_operation_time=2.0)
    slow = True

    def handle(batch: Batch) -> None:
        for _ in batch:
            if slow:
                t.clock.advance(2.0)

    write = write_with(store, handle, bisect=False)

    with store.testing() as t:
        write.enqueue_many([1, 2])
        t.fail_next(write, SoftTimeLimitExceeded())
        (first,) = t.step()
        (second,) = t.step()
        assert isinstance(first.error, SoftTimeLimitExceeded)
        assert isinstance(second.error, SoftTimeLimitExceeded)
        assert list(second.outcomes.values()) == ["retried", "retried"]
        slow = False
        t.run_until_done()
        t.assert_done(write, count=2)


def test_a_handler_that_outlives_its_claim_is_told_so(app: Celery) -> None:
    store = Batcher("store", app=app, max_operation_time=2.0)
    took = [10.0, 0.0]
    write = write_with(store, lambda batch: t.clock.advance(took.pop(0)))

    with store.testing() as t:
        write.enqueue(1)
        (late,) = t.step()
        assert type(late.error).__name__ == "ClaimExpiredError"
        assert late.outcomes == {}
        t.run_until_done()
        assert [one.attempt for batch in t.batches for one in batch.operations] == [1, 2]


def test_handlers_may_enqueue(app: Celery) -> None:
    store = Batcher("store", app=app)
    index = store.watcher(name="index")(lambda batch: None)
    write = write_with(store, lambda batch: index.enqueue_many(one.payload for one in batch))

    with store.testing() as t:
        write.enqueue_many([1, 2])
        t.run_until_done()
        t.assert_done(index, count=2)


def test_whoever_waits_in_enqueue_or_drain_lets_the_fleet_go_on(app: Celery) -> None:
    store = Batcher("store", app=app, buffer_size=3, rate_limiter=ProvisionedResource(10))
    write = write_with(store)

    with store.testing() as t:
        assert write.enqueue_many(range(9), pack=1) == 9
        assert store.drain() is True
        t.assert_done(write, count=9)


def test_batchers_of_one_resource_share_it(app: Celery) -> None:
    resource = ProvisionedResource(10, name="shared")
    a, b = (Batcher(name, app=app, rate_limiter=resource) for name in "ab")
    writes = [write_with(a), write_with(b)]

    with a.testing(b) as t:
        for write in writes:
            write.enqueue_many(range(30))
        t.run(seconds=3)
        t.assert_never_over_capacity()
        costs = [
            sum(one.cost for one in t.batches if one.watcher == write.name) for write in writes
        ]
        assert 25 <= sum(costs) <= 40
        assert min(costs) >= 12


def test_a_shared_resource_is_leased_in_memory(app: Celery) -> None:
    manager = MemoryLeaseManager()
    resource = SharedResource(100, factor=10, lease_manager=manager)
    store = Batcher("store", app=app, rate_limiter=resource)
    write = write_with(store)
    before = vars(resource).copy()

    with store.testing() as t:
        write.enqueue_many(range(100))
        t.run_until_done()
        t.assert_done(write, count=100)
        t.assert_never_over_capacity()
    assert vars(resource) == before


def test_results_are_kept_in_memory_meanwhile(app: Celery) -> None:
    store = Batcher("store", app=app)
    backend = app.backend
    write = write_with(
        store,
        lambda batch: [batch.done(one, one.payload + 1) for one in batch],
        ignore_result=False,
    )

    with store.testing() as t:
        id = write.enqueue(1)
        t.step()
        assert app.AsyncResult(id).get(timeout=1) == 2
    assert app.backend is backend


def test_all_is_as_before_afterwards(app: Celery) -> None:
    resource = ProvisionedResource(10)
    store = Batcher("store", app=app, rate_limiter=resource)
    write = write_with(store, estimate=True)
    before = [vars(store).copy(), vars(write).copy(), vars(resource).copy()]

    def fail() -> None:
        with store.testing() as t:
            resource.set_capacity(20)
            store.stop()
            t.fail_next(write, OSError())
            raise LookupError("a failing test")

    with pytest.raises(LookupError, match="a failing test"):
        fail()

    assert [vars(store), vars(write), vars(resource)] == before
    with store.testing() as t:
        write.enqueue(1)
        t.run_until_done()
        t.assert_done(write, count=1)


def test_a_batcher_is_tested_once_at_a_time(app: Celery) -> None:
    a, b = Batcher("a", app=app), Batcher("b", app=app)

    with a.testing() as t:
        with pytest.raises(ImproperOrderError, match="a is being tested already"), b.testing(a):
            pass
        with b.testing() as inner:
            assert inner.clock is not t.clock
        assert a.operations_in_buffer() == 0
    with pytest.raises(ConfigurationError, match=r"rehearse\(\) what"), rehearse():
        pass


def test_a_batcher_that_flushes_or_was_replaced_is_not_tested() -> None:
    name = uuid4().hex
    app = Celery(name, broker=f"memory://{name}", set_as_current=False)
    first, second = (Batcher("store", app=app) for _ in range(2))
    with pytest.raises(ConfigurationError, match="replaced by a later one"), first.testing():
        pass
    second.start()
    try:
        with pytest.raises(ImproperOrderError, match="stop"), second.testing():
            pass
    finally:
        second.stop()


def test_start_and_ticks_do_nothing_in_a_test(app: Celery) -> None:
    store = Batcher("store", app=app)
    write = write_with(store)

    with store.testing() as t:
        store.start()
        store.tick()
        write.enqueue(1)
        assert store.check() == []
        assert t.batches == []
        assert store.status().admitted == 1
        t.step()
        t.assert_done(write)


def test_an_expectation_that_fails_says_what_there_is_instead(app: Celery) -> None:
    store = Batcher("store", app=app)
    write = write_with(store, max_attempts=1)
    other = store.watcher(name="other")(lambda batch: None)

    with store.testing() as t:
        with pytest.raises(AssertionError, match=r"at least one.*found 0\nnone was enqueued"):
            t.assert_enqueued(write)
        other.enqueue(0)
        with pytest.raises(AssertionError, match="others: 1 of other"):
            t.assert_enqueued(write)
        t.fail_next(write, ValueError("no such row"))
        write.enqueue({"id": 1}, key="k")
        t.step()
        write.enqueue_many({"id": n} for n in range(2, 20))
        with pytest.raises(AssertionError) as caught:
            t.assert_done(write, payload={"id": 1}, count=2)
        said = str(caught.value).splitlines()
        assert said[0] == (
            "expected 2 operations of store.write done, with payload {'id': 1}; found 0"
        )
        assert said[2] == "  {'id': 1}, cost 1, key 'k': dead, ValueError: no such row"
        assert said[3] == "  {'id': 2}, cost 1: not handled yet"
        assert said[-1] == "  and 9 more"
        with pytest.raises(NoWatcherError, match=r"'wrte': they have other, store\.write"):
            t.assert_done("wrte")
        with pytest.raises(ConfigurationError, match="nothing to keep"):
            t.assert_never_over_capacity()


def test_payloads_are_compared_as_enqueued_or_as_handled(app: Celery) -> None:
    store = Batcher("store", app=app)
    write = write_with(store)

    with store.testing() as t:
        write.enqueue((1, 2))
        t.assert_enqueued(write, payload=(1, 2))
        t.assert_enqueued(write, payload=[1, 2])
        t.assert_enqueued(write, payload=object(), count=0)


def test_what_never_ends_says_what_it_waits_for(app: Celery) -> None:
    store = Batcher("store", app=app, rate_limiter=ProvisionedResource(10))
    write = write_with(store)

    with store.testing() as t:
        write.enqueue(1)
        store.pause(None)
        with pytest.raises(AssertionError, match=r"(?s)after 5 s.*1 wait.*paused"):
            t.run_until_done(timeout=5)
        store.resume()
        t.run_until_done()


def test_more_than_the_capacity_within_a_window_is_noticed() -> None:
    def start(at_ms: int, cost: int, capacity: int = 10, resource: str = "r") -> Start:
        return Start(at_ms, resource, (cost,), (Limit(1, capacity, 1000),))

    assert over_capacity([start(0, 10), start(1000, 10), start(1500, 9, resource="s")]) == ""
    assert over_capacity([start(0, 4), start(500, 10, capacity=20), start(1499, 10, 20)]) == ""
    assert "batches of cost 11 started within 1 s" in over_capacity([start(0, 9), start(999, 2)])
    assert "resource r is 10" in over_capacity([start(0, 1), start(5, 1), start(1004, 10)])
