"""What go-batcher's batcher does wrong, row by row of the review in the design, and our answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from by_hand import ByHand
from celery_batcher import (
    BatcherStoppedError,
    BufferFullError,
    ClaimExpiredError,
    ConfigurationError,
    InvalidCostError,
    NoOperationError,
    ProvisionedResource,
)
from celery_batcher.intakes.base import lane_name
from celery_processes import record_for
from eventually import eventually

CAPACITY = 100


@pytest.fixture
def make(redis_url: str, unique: str, key_prefix: str) -> Iterator[Callable[..., ByHand]]:
    """Batchers worked by hand; the grace of a second makes their windows two seconds long."""
    made: list[ByHand] = []

    def make(**options: Any) -> ByHand:
        name = f"{unique}-{len(made)}" if made else unique
        made.append(ByHand(redis_url, name, key_prefix, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def flush_and_run(by_hand: ByHand) -> int:
    """Flush once and run what was released; return the cost of it."""
    return sum(by_hand.run(batch).get("cost", 0) for batch in by_hand.flush())


def test_1_a_refused_enqueue_does_not_raise_the_target(make: Callable[..., ByHand]) -> None:
    by_hand = make(buffer_size=1, error_on_full_buffer=True)
    work = by_hand.watcher()
    work.enqueue({}, cost=3)

    with pytest.raises(BufferFullError):
        work.enqueue({}, cost=5)

    assert by_hand.batcher.needs_capacity() == 3


def test_2_an_enqueue_after_stop_or_blocked_at_stop_is_refused(
    make: Callable[..., ByHand],
) -> None:
    by_hand = make(buffer_size=1, enqueue_timeout=5.0)
    work = by_hand.watcher()
    work.enqueue({})
    outcome: list[Any] = []

    def blocked() -> None:
        try:
            outcome.append(work.enqueue({}))
        except (BatcherStoppedError, BufferFullError) as exc:
            outcome.append(exc)

    producer = threading.Thread(target=blocked)
    producer.start()
    by_hand.batcher.stop()
    with pytest.raises(BatcherStoppedError):
        work.enqueue({})
    producer.join()

    assert isinstance(outcome[0], BatcherStoppedError)
    assert by_hand.batcher.operations_in_buffer() == 1


def test_3_what_is_no_operation_is_refused_or_set_aside(make: Callable[..., ByHand]) -> None:
    by_hand = make()
    work = by_hand.watcher()
    with pytest.raises(NoOperationError):
        by_hand.batcher.enqueue(None)  # type: ignore[arg-type]
    work.enqueue({})
    by_hand.client.lpush(lane_name(by_hand.batcher.name, "work"), b"null")

    assert flush_and_run(by_hand) == 1

    assert by_hand.batcher.status().set_aside == 1


def test_4_a_flush_never_releases_more_than_fits(make: Callable[..., ByHand]) -> None:
    by_hand = make(capacity=CAPACITY, flush_interval=1.0)
    by_hand.watcher().enqueue_many([{}] * 4, cost=30)

    assert eventually(lambda: flush_and_run(by_hand)) == 90


def test_5_manual_flushes_bring_no_capacity_of_their_own(make: Callable[..., ByHand]) -> None:
    by_hand = make(capacity=CAPACITY, flush_interval=1.0)
    by_hand.watcher().enqueue_many([{}] * 10, cost=30)

    first = eventually(lambda: flush_and_run(by_hand))

    assert first + sum(flush_and_run(by_hand) for _ in range(20)) == 90


def test_6_below_one_operation_a_flush_credit_is_carried_and_capacity_0_runs_only_cost_0(
    make: Callable[..., ByHand],
) -> None:
    slow, shut = make(capacity=5, flush_mode="turn", flush_interval=0.01), make(capacity=0)
    slow.watcher().enqueue_many([{}] * 2, cost=2)  # 40 flushes for the credit of each
    shut.watcher().enqueue_many([{}] * 3, cost=0)

    released: list[int] = []
    eventually(lambda: (released.append(flush_and_run(slow)), sum(released) == 4)[1])
    assert set(released) <= {0, 2}
    flush_and_run(shut)
    assert shut.batcher.status().done == 3


def test_7_missed_ticks_lose_no_more_than_a_flush_and_short_intervals_work(
    make: Callable[..., ByHand],
) -> None:
    by_hand = make(capacity=1000, flush_interval=0.0005)
    by_hand.watcher().enqueue_many([{}] * 50, cost=1)

    done: list[int] = []
    eventually(lambda: (done.append(flush_and_run(by_hand)), sum(done) == 50)[1])
    assert by_hand.batcher.needs_capacity() == 0


def test_8_the_audit_leaves_long_operations_and_enqueues_in_peace(
    make: Callable[..., ByHand],
) -> None:
    by_hand = make(max_operation_time=0.01, enqueue_timeout=30.0)
    work = by_hand.watcher(max_operation_time=60.0)
    work.enqueue({}, cost=3)
    (batch,) = by_hand.flush()

    def audited(_batch: Any) -> None:
        work.enqueue({}, cost=4)
        record_for(0.02)
        by_hand.batcher.audit()
        assert by_hand.batcher.needs_capacity() == 7

    by_hand.handlers["work"] = audited
    assert by_hand.run(batch) == {"done": 1, "cost": 3}
    by_hand.batcher.audit()
    assert by_hand.batcher.needs_capacity() == 4


def test_9_a_handler_that_outlives_its_deadline_is_fenced(make: Callable[..., ByHand]) -> None:
    by_hand = make(max_operation_time=0.02, claim_grace=0.01)
    by_hand.watcher(max_attempts=5).enqueue({})
    (batch,) = by_hand.flush()

    def late(_batch: Any) -> None:
        eventually(lambda: (by_hand.flush(), by_hand.batcher.status().expired_batches)[1])

    by_hand.handlers["work"] = late
    with pytest.raises(ClaimExpiredError):
        by_hand.run(batch)
    assert by_hand.batcher.status().done == 0


def test_10_of_two_pauses_the_later_end_wins_and_stop_does_not_wait(
    make: Callable[..., ByHand],
) -> None:
    by_hand = make()
    batcher = by_hand.batcher
    by_hand.watcher().enqueue({})

    batcher.pause(60)
    batcher.pause(1)
    paused = batcher.status().paused_for
    assert paused is not None
    assert paused > 50
    batcher.pause(None)
    assert (batcher.status().phase, batcher.status().paused_for) == ("paused", None)
    assert by_hand.flush() == []
    batcher.resume()
    assert flush_and_run(by_hand) == 1
    batcher.pause(60)
    batcher.stop()


def test_11_stop_drops_nothing(make: Callable[..., ByHand], redis_url: str) -> None:
    by_hand = make()
    work = by_hand.watcher()
    work.enqueue_many([{}] * 3)
    by_hand.batcher.pause(None)
    by_hand.flush()
    work.enqueue_many([{}] * 4)

    by_hand.batcher.stop()

    assert by_hand.batcher.operations_in_buffer() == 7
    prefix = by_hand.prefix
    other = ByHand(redis_url, by_hand.batcher.name, prefix)  # as another process would find it
    other.watcher()
    other.batcher.resume()
    while other.batcher.needs_capacity():
        flush_and_run(other)
    assert len(other.handled_ids()) == 7
    other.close()


def test_12_a_failed_operation_is_retried_and_dead_in_the_end(make: Callable[..., ByHand]) -> None:
    by_hand = make()
    by_hand.watcher(max_attempts=2).enqueue({"n": 1})

    def fail(_batch: Any) -> None:
        raise LookupError("no such row")

    by_hand.handlers["work"] = fail
    for _ in range(2):
        with pytest.raises(LookupError):
            flush_and_run(by_hand)

    assert [batch[0].attempt for batch in by_hand.handled] == [1, 2]
    (dead,) = by_hand.batcher.store.dead("work", 10)
    assert "LookupError: no such row" in dead.reason
    status = by_hand.batcher.status()
    assert (status.dead, status.waiting, by_hand.batcher.needs_capacity()) == (1, 0, 0)
    assert by_hand.flush() == []


def test_13_sums_do_not_overflow(make: Callable[..., ByHand]) -> None:
    by_hand = make()
    work = by_hand.watcher(max_batch_size=1)
    work.enqueue_many([{}] * 3, cost=2**40)

    assert by_hand.batcher.needs_capacity() == 3 * 2**40
    assert flush_and_run(by_hand) == 3 * 2**40
    assert by_hand.batcher.needs_capacity() == 0
    with pytest.raises(InvalidCostError, match=str(2**53 - 1)):
        work.enqueue({}, cost=2**53)
    with pytest.raises(ConfigurationError, match=str(2**53 - 1)):
        ProvisionedResource(2**53)


def test_14_a_flood_of_one_watcher_does_not_starve_another(make: Callable[..., ByHand]) -> None:
    by_hand = make(max_concurrent_batches=2)
    by_hand.watcher("flood", max_batch_size=10).enqueue_many([{}] * 500)
    by_hand.batcher.pause(None)
    by_hand.flush()
    by_hand.watcher("trickle", max_batch_size=10).enqueue_many([{}] * 5)
    by_hand.flush()
    by_hand.batcher.resume()

    by_hand.flush()

    rows = {row.name: row for row in by_hand.batcher.status().watchers}
    assert (rows["flood"].open_batches, rows["trickle"].open_batches) == (1, 1)


def test_15_a_handler_that_raises_fails_its_batch_and_nothing_else(
    make: Callable[..., ByHand],
) -> None:
    by_hand = make()
    by_hand.watcher("bad", max_attempts=1).enqueue({})
    by_hand.watcher("good").enqueue({})

    def fail(_batch: Any) -> None:
        raise SystemExit("the worst that a handler may do")

    by_hand.handlers["bad"] = fail
    store = by_hand.batcher.store
    for batch in by_hand.flush():
        raw = by_hand.client.hget(f"{store.keys.base}batch:{batch}", "watcher")  # type: ignore[attr-defined]
        if raw == b"bad":
            with pytest.raises(SystemExit):
                by_hand.run(batch, "bad")
        else:
            by_hand.run(batch, "good")

    status = by_hand.batcher.status()
    assert (status.done, status.dead) == (1, 1)


def test_16_payloads_reach_listeners_only_when_asked_for_and_never_the_broker(
    make: Callable[..., ByHand], redis_url: str
) -> None:
    quiet, open_ = make(), make(emit_batch=True)
    heard: dict[str, list[Any]] = {"quiet": [], "open": []}
    for name, by_hand in (("quiet", quiet), ("open", open_)):
        by_hand.batcher.add_listener(
            lambda event, val, msg, metadata, name=name: (
                heard[name].append(metadata) if event == "batch" else None
            )
        )
        by_hand.watcher().enqueue({"secret": "s3cret"})

    quiet.batcher.tick()
    with Redis.from_url(redis_url) as client:
        (task,) = client.lrange(quiet.batcher.name, 0, -1)
    assert b"s3cret" not in task
    assert b"1 operation, cost 1" in task
    for batch in quiet.delivered():
        quiet.run(batch)
    flush_and_run(open_)

    assert heard["quiet"] == []
    assert [operation.payload for operation in heard["open"][0]] == [{"secret": "s3cret"}]
