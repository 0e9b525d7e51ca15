"""A whole app in one process and in memory: operations in, batches out, no server."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from celery_batcher import (
    Batch,
    BatcherStoppedError,
    BufferFullError,
    ConfigurationError,
    ImproperOrderError,
    InvalidCostError,
    NoOperationError,
    NoWatcherError,
    Operation,
    PayloadError,
    ProvisionedResource,
    TooExpensiveError,
    TooManyAttemptsError,
)
from celery_batcher.status import LimitStatus
from in_memory import InMemory, collecting


def test_operations_come_out_as_batches_with_all_their_attributes(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    seen: list[Operation] = []

    @batcher.watcher(name="write", max_batch_size=2)
    def write(batch: Batch) -> None:
        seen.extend(batch)

    ids = [
        write.enqueue({"n": 1}, cost=2, key="k", priority="high"),
        write.enqueue([2], id="my own"),
        batcher.enqueue(write.operation("three", cost=3, batchable=False)),
    ]
    site.tick(batcher)

    assert sorted(one.id for one in seen) == sorted(ids)
    by_id = {one.id: one for one in seen}
    first = by_id[ids[0]]
    assert (first.payload, first.cost, first.key, first.priority) == ({"n": 1}, 2, "k", "high")
    assert (first.watcher, first.attempt, first.batchable) == ("write", 1, True)
    assert by_id["my own"].payload == [2]
    assert by_id[ids[2]].batchable is False
    status = batcher.status()
    assert (status.done, status.waiting, status.admitted, batcher.needs_capacity()) == (3, 0, 0, 0)


def test_numbers_follow_an_operation_on_its_way(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(10))
    write = batcher.watcher(name="write")(lambda batch: None)

    def numbers() -> tuple[int, int, int]:
        return batcher.operations_in_buffer(), batcher.needs_capacity(), batcher.inflight()

    assert numbers() == (0, 0, 0)
    write.enqueue(1, cost=1)
    assert numbers() == (1, 1, 0)
    batcher.tick()
    assert numbers() == (0, 1, 1)
    site.work()
    assert numbers() == (0, 0, 0)


def test_enqueue_many_packs_keeps_the_order_and_says_how_many(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    write = batcher.watcher(name="write", max_batch_size=1000)(
        lambda batch: batches.append([one.payload for one in batch])
    )

    assert write.enqueue_many((n for n in range(1200)), pack=500) == 1200
    assert site.in_lane(batcher, "write") == 3
    site.tick(batcher, 3)

    assert [n for batch in batches for n in batch] == list(range(1200))


def test_enqueue_many_takes_scalars_and_functions_of_the_payload(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    seen: list[Operation] = []
    write = batcher.watcher(name="write")(seen.extend)

    write.enqueue_many(
        ["a", "bb"],
        cost=len,
        key=lambda text: text[0],
        priority=lambda text: "high" if text == "bb" else "backfill",
        batchable=lambda text: text == "a",
        id=lambda text: f"id-{text}",
    )
    site.tick(batcher)

    assert [(one.id, one.cost, one.key, one.priority, one.batchable) for one in seen] == [
        ("id-bb", 2, "b", "high", False),
        ("id-a", 1, "a", "backfill", True),
    ]


def test_an_id_that_lives_is_enqueued_once_and_again_when_done(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    for _ in range(3):
        write.enqueue(1, id="mine")
    site.tick(batcher)
    assert batches == [["mine"]]

    write.enqueue(1, id="mine")
    site.tick(batcher)

    assert batches == [["mine"], ["mine"]]


# Refusals, each without a trace (G8)


class Unserialisable:
    pass


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"cost": -1}, InvalidCostError),
        ({"cost": 1.5}, InvalidCostError),
        ({"cost": float("nan")}, InvalidCostError),
        ({"cost": 2**53}, InvalidCostError),
        ({"cost": "1"}, InvalidCostError),
        ({"cost": True}, InvalidCostError),
        ({"cost": 11}, TooExpensiveError),
        ({"payload": Unserialisable()}, PayloadError),
        ({"payload": {1, 2}.__iter__()}, PayloadError),
        ({"payload": "x" * 2_000_000}, PayloadError),
        ({"key": ""}, ConfigurationError),
        ({"key": 7}, ConfigurationError),
        ({"key": "k" * 256}, ConfigurationError),
        ({"key": "ü" * 128}, ConfigurationError),
        ({"id": 7}, ConfigurationError),
        ({"id": ""}, ConfigurationError),
        ({"id": "i" * 256}, ConfigurationError),
        ({"priority": "urgent"}, ConfigurationError),
        ({"priority": 0}, ConfigurationError),
        ({"priority": None}, ConfigurationError),
    ],
    ids=lambda given: str(given)[:40],
)
@pytest.mark.parametrize("way", ["enqueue", "enqueue_many"])
def test_what_could_never_run_is_refused_and_counted_nowhere(
    site: InMemory, way: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    batcher = site.batcher(rate_limiter=ProvisionedResource(10))
    write = batcher.watcher(name="write")(lambda batch: None)
    given = dict(arguments)
    payload = given.pop("payload", 1)
    if way == "enqueue_many" and "id" in given:
        id = given["id"]
        given["id"] = lambda payload: id

    argument: Any = payload if way == "enqueue" else [payload]
    with pytest.raises(error) as caught:
        getattr(write, way)(argument, **given)

    assert caught.value.args[0]
    assert batcher.operations_in_buffer() == batcher.needs_capacity() == 0
    assert site.in_lane(batcher, "write") == 0


def test_a_cost_that_is_too_high_is_refused_with_the_numbers(site: InMemory) -> None:
    batcher = site.batcher(rate_limiter=ProvisionedResource(10))
    write = batcher.watcher(name="write")(lambda batch: None)

    with pytest.raises(TooExpensiveError, match="costs 11, and the capacity is 10") as caught:
        write.enqueue(1, cost=11)

    assert (caught.value.cost, caught.value.capacity) == (11, 10)
    assert write.enqueue(1, cost=10)


def test_what_is_in_front_of_a_faulty_payload_is_enqueued_and_counted(site: InMemory) -> None:
    batcher = site.batcher()
    write = batcher.watcher(name="write")(lambda batch: None)

    with pytest.raises(InvalidCostError) as caught:
        write.enqueue_many([1, 2, -3, 4], cost=lambda payload: payload)

    assert caught.value.enqueued == 2  # type: ignore[attr-defined]
    assert batcher.operations_in_buffer() == 2
    assert batcher.needs_capacity() == 3


def test_a_generator_that_breaks_off_leaves_what_it_gave_enqueued_and_counted(
    site: InMemory,
) -> None:
    batcher = site.batcher()
    write = batcher.watcher(name="write")(lambda batch: None)

    def rows() -> Any:
        yield from range(3)
        raise LookupError("no more rows")

    with pytest.raises(LookupError) as caught:
        write.enqueue_many(rows())

    assert caught.value.enqueued == 3  # type: ignore[attr-defined]
    assert batcher.operations_in_buffer() == 3


def test_a_full_buffer_says_how_many_were_enqueued(site: InMemory) -> None:
    batcher = site.batcher(buffer_size=7, error_on_full_buffer=True)
    write = batcher.watcher(name="write")(lambda batch: None)

    with pytest.raises(BufferFullError) as caught:
        write.enqueue_many(range(10), pack=2)

    assert (caught.value.enqueued, caught.value.size, caught.value.limit) == (6, 6, 7)
    assert batcher.operations_in_buffer() == 6


def test_only_operations_of_watchers_known_here_are_enqueued(site: InMemory) -> None:
    batcher = site.batcher()
    write = batcher.watcher(name="write", max_attempts=2)(lambda batch: None)

    with pytest.raises(NoOperationError, match="not dict"):
        batcher.enqueue({"id": 1})  # type: ignore[arg-type]
    with pytest.raises(NoWatcherError, match=r"no watcher 'other'.*: it has write"):
        batcher.enqueue(Operation("id", "other", 1, None))
    with pytest.raises(TooManyAttemptsError, match="attempt 3 of 2") as caught:
        batcher.enqueue(write.operation(1)._replace(attempt=3))
    assert (caught.value.attempt, caught.value.max_attempts) == (3, 2)
    with pytest.raises(InvalidCostError):
        batcher.enqueue(write.operation(1)._replace(cost=-1))
    assert batcher.operations_in_buffer() == 0


@pytest.mark.parametrize("pack", [0, 1001, 1.5, "1", None, True])
def test_a_pack_out_of_range_is_refused(site: InMemory, pack: Any) -> None:
    write = site.batcher().watcher(name="write")(lambda batch: None)

    with pytest.raises(ConfigurationError, match="pack="):
        write.enqueue_many([1], pack=pack)


# This process and the fleet


def test_a_stopped_batcher_takes_nothing_more_and_drops_nothing(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue(1)
    batcher.stop()
    batcher.stop()

    for act in (lambda: write.enqueue(1), lambda: write.enqueue_many([1])):
        with pytest.raises(BatcherStoppedError):
            act()
    batcher.tick()
    assert site.tasks() == []
    assert batcher.operations_in_buffer() == 1
    with pytest.raises(ImproperOrderError, match="stopped"):
        batcher.start()


def test_a_pause_and_its_end_are_the_fleets(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", pause_time=3.0)
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    write.enqueue(1, id="a")
    batcher.pause()
    assert (batcher.status().phase, batcher.status().paused_for) == ("paused", 3.0)
    site.tick(batcher, 5)
    assert batches == []

    batcher.resume()
    site.tick(batcher)

    assert batches == [["a"]]
    batcher.pause(None)
    assert batcher.status().paused_for is None


@pytest.mark.parametrize("pause_time", [0, -1, "1", float("nan"), True])
def test_a_pause_that_is_none_is_refused(site: InMemory, pause_time: Any) -> None:
    batcher = site.batcher()

    with pytest.raises(ConfigurationError, match="pause"):
        batcher.pause(pause_time)

    assert batcher.status().phase == "idle"


def test_listeners_hear_what_happens_in_their_process(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", emit_batch=True, rate_limiter=ProvisionedResource(10))
    write = batcher.watcher(name="write")(lambda batch: None)
    heard: list[tuple[str, int, str]] = []
    batcher.add_listener(lambda event, val, msg, metadata: heard.append((event, val, msg)))

    write.enqueue(1, cost=1)
    batcher.pause(0.5)
    batcher.resume()
    site.tick(batcher)
    batcher.stop()

    assert [one for one in heard if one[0] != "request"] == [
        ("pause", 500, ""),
        ("resume", 0, ""),
        ("capacity", 10, ""),
        ("flush-start", 0, ""),
        ("flush-done", 1, ""),
        ("audit-pass", 11, ""),
        ("batch", 1, "write"),
        ("shutdown", 0, ""),
    ]
    assert ("request", 1, "") in heard


def test_a_listener_that_fails_is_logged_and_breaks_nothing(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    heard: list[str] = []

    def fail(event: str, val: int, msg: str, metadata: Any) -> None:
        raise LookupError("listener's own")

    failing = batcher.add_listener(fail)
    batcher.add_listener(lambda event, *rest: heard.append(event))
    write.enqueue(1, id="a")
    with caplog.at_level(logging.ERROR, "celery_batcher"):
        site.tick(batcher)

    assert batches == [["a"]]
    assert "flush-done" in heard
    assert "listener's own" in caplog.text
    batcher.remove_listener(failing)
    batcher.remove_listener(failing)
    caplog.clear()
    site.tick(batcher)
    assert caplog.text == ""


def test_status_says_it_all(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(100))
    write = batcher.watcher(name="write", max_batch_size=1, max_attempts=1)(lambda batch: 1 / 0)
    write.enqueue_many([1, 2, 3], cost=2)
    site.clock.advance(1.5)
    before = batcher.status()
    assert (before.name, before.phase, before.admitted, before.admitted_cost) == ("b", "idle", 3, 6)
    assert (before.last_flush, before.capacity, before.paused_for) == (None, None, 0)
    batcher.tick()
    middle = batcher.status()
    assert (middle.released, middle.released_cost, middle.capacity, middle.held) == (3, 6, 100, 6)
    assert middle.limits == (LimitStatus("", 1.0, 100, 100, 6, 0),)
    site.work()

    after = batcher.status()

    assert (after.dead, after.dead_cost, after.running, after.held) == (3, 6, 0, 6)
    assert after.last_flush is not None
    assert (after.last_flush.batches, after.last_flush.reason) == (3, "empty")
    (row,) = after.watchers
    assert (row.name, row.dead, row.waiting, row.next_age) == ("write", 3, 0, None)


def test_a_task_says_its_size_and_never_its_payload(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", claim_grace=2.0)
    write = batcher.watcher(name="write", max_operation_time=9)(lambda batch: None)
    write.enqueue("secret", cost=3)
    batcher.tick()

    ((name, id, headers),) = site.tasks()

    assert name == "write"
    assert headers["argsrepr"] == "(1 operation, cost 3, oldest 0.0 s)"
    assert headers["timelimit"] == [11.0, 9.0]
    assert "secret" not in str(headers)
    assert batcher.store.claim(id, "n", batcher.limits(), 1).state == "claimed"


def test_unserialisable_results_of_handlers_do_not_matter(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(lambda batch: object())
    write.enqueue(1, cost=4)
    site.tick(batcher)

    assert site.results == [{"done": 1, "cost": 4}]


def test_a_watcher_is_called_like_its_handler(site: InMemory) -> None:
    batcher = site.batcher()

    @batcher.watcher(name="write")
    def write(batch: Any) -> int:
        """Write it."""
        return len(batch)

    assert write([1, 2, 3]) == 3  # type: ignore[arg-type]
    assert (write.__name__, write.__doc__) == ("write", "Write it.")
    assert site.app.tasks["write"].__doc__ == "Write it."


def test_a_watchers_cost_is_that_of_operations_enqueued_without_one(site: InMemory) -> None:
    batcher = site.batcher()
    fixed = batcher.watcher(name="fixed", cost=7)(lambda batch: None)
    by_size = batcher.watcher(name="by_size", cost=len)(lambda batch: None)

    assert fixed.operation("x").cost == 7
    assert by_size.operation("four").cost == 4
    assert by_size.operation("four", cost=0).cost == 0
    by_size.enqueue_many(["a", "bb"])
    assert batcher.needs_capacity() == 3
    with pytest.raises(InvalidCostError):
        batcher.watcher(name="wrong", cost=-1)
