"""The public API as users type it: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.schedules import crontab

from celery_batcher import (
    AzureBlobLeaseManager,
    Backfill,
    BackfillProgress,
    Batch,
    Batcher,
    Explanation,
    MemoryLeaseManager,
    Meters,
    Operation,
    Problem,
    ProvisionedResource,
    RecentBatch,
    RedisLeaseManager,
    Row,
    SharedResource,
    Status,
    Throttled,
)
from celery_batcher.testing import CapturedBatch

app = Celery("proj", broker="memory://")
leases = RedisLeaseManager("redis://leases:6379/0", name="cosmos", lease_time=5.0)
blobs = AzureBlobLeaseManager("account", container="cosmos", master_key="key")
shared = SharedResource(20_000, reserved_capacity=500, factor=100, lease_manager=leases)
local = SharedResource(500, lease_manager=MemoryLeaseManager(), max_interval=timedelta(seconds=1))
resource = ProvisionedResource(20_000, name="cosmos", window=timedelta(seconds=1))
batcher = Batcher("cosmos", app=app, rate_limiter=resource, flush_interval=0.1)


def cost_of(payload: Any) -> int:
    return len(payload)


@batcher.watcher(autoretry_for=(OSError,), retry_backoff=True)
def retried(batch: Batch) -> None: ...


@batcher.watcher(estimate=True, cost=100, cost_key=lambda row: str(row["table"]))
def estimated(batch: Batch) -> None:
    batch.charge_many((one, cost_of(one.payload)) for one in batch)


@batcher.watcher(max_batch_size=100, max_operation_time=timedelta(minutes=1), cost=cost_of)
def write(batch: Batch) -> None:
    first: Operation = batch[0]
    rest: list[Operation] = list(batch[1:])
    names: tuple[str, str, int | Mapping[str, int], int, str | None] = (
        first.id,
        first.watcher,
        first.cost,
        first.attempt,
        first.key,
    )
    seconds: float = batch.remaining
    print(names)  # noqa: T201
    batch.done(first)
    batch.done(first, {"rows": 3})
    batch.retry(first, after=2.0)
    batch.fail(first, "no such customer")
    batch.charge(first, 812)
    batch.charge(first, {"requests": 1, "tokens": 812})
    batch.charge_many((one, 5) for one in rest)
    batch.commit()
    if not rest and seconds < 1:
        raise Throttled(retry_after=2.0)


def rows() -> Iterator[dict[str, int]]:
    yield {"id": 1}


def produce() -> None:
    id: str = write.enqueue({"id": 1}, cost=10, key="tenant", priority="high", batchable=False)
    enqueued: int = write.enqueue_many(rows(), cost=lambda row: 5 + len(row), pack=100)
    once: str = write.enqueue({"id": 1}, dedupe_key="order-1", dedupe_for=timedelta(minutes=1))
    enqueued += write.enqueue_many(rows(), dedupe_key=lambda row: f"order-{row['id']}")
    print(once)  # noqa: T201
    same: str = batcher.enqueue(write.operation({"id": 2}, cost=10, id=id))
    numbers: tuple[int, int, int] = (
        batcher.operations_in_buffer(),
        batcher.needs_capacity(),
        batcher.inflight(),
    )
    status: Status = batcher.status()
    next_ones: list[Operation] = batcher.peek("write", most=5)
    purged: int = batcher.purge() + batcher.purge(write)
    masked: Any = batcher.shown(next_ones[0].payload)
    why: Explanation = batcher.explain(id, most=1000)
    waits: list[float | None] = [reason.wait for reason in batcher.explain(write).reasons]
    seconds: float | None = batcher.eta()
    print(purged, masked, why, why.earliest, waits, seconds)  # noqa: T201
    meters: Meters = batcher.meters()
    done: list[int] = [row.settled["done"] for row in meters.watchers]
    recent: list[RecentBatch] = batcher.recent_batches(most=10)
    print(done, [(one.id, one.state, one.ended_at) for one in recent])  # noqa: T201
    listener: int = batcher.add_listener(lambda event, val, msg, metadata: None)
    batcher.remove_listener(listener)
    batcher.pause()
    batcher.pause(None)
    batcher.pause(timedelta(seconds=1))
    batcher.resume()
    batcher.flush()
    problems: list[Problem] = batcher.check(timeout=timedelta(seconds=2))
    print([(one.level, one.code, one.message) for one in problems])  # noqa: T201
    for letter in write.dead_letters:
        reason: str = letter.reason
        print(letter.id, letter.attempts, letter.died_at.isoformat(), reason)  # noqa: T201
    redriven: int = write.dead_letters.redrive(id, same) + write.dead_letters.purge()
    print(len(write.dead_letters), redriven)  # noqa: T201
    print(enqueued, same, numbers, status.waiting)  # noqa: T201


def test_it() -> None:
    with batcher.testing() as t:
        ran: list[CapturedBatch] = t.step() + t.run(seconds=1) + t.run_until_done(timeout=60)
        t.fail_next(write, Throttled())
        t.clock.advance(1.0)
        t.assert_done("write", payload={"id": 1}, count=1)
        outcomes: dict[str, str] = ran[0].outcomes
        print(outcomes, t.operations)  # noqa: T201


@write.backfill("rows-2024", total=lambda: 1000, priority="normal", chunk=100)
def backfilled(checkpoint: Any) -> Iterator[Row]:
    for row in rows():
        yield Row(row, checkpoint=row["id"], cost=2, key="tenant")


def backfill() -> None:
    done: BackfillProgress = backfilled.run(lambda one: print(one.eta, one.fraction), again=True)  # noqa: T201
    for one in backfilled.steps(max_time=timedelta(minutes=1)):
        print(one.phase, one.rows, one.rate, one.waits_for, one.error)  # noqa: T201
    backfilled.pause()
    backfilled.resume()
    backfilled.reset()
    backfilled.schedule(crontab(hour="2")).task.delay()
    same: Backfill = batcher.backfills["rows-2024"]
    print(done.phase, same.status(), batcher.backfill_progress())  # noqa: T201


def run() -> None:
    batcher.start()
    batcher.stop()
