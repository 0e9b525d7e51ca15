"""Ways to run it: pools, queues, one slot, no beat, one process, every kind of server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from redis import Redis

from celery_batcher import Batch, Batcher, BatcherStoppedError, ImproperOrderError
from celery_batcher.intakes.base import lane_name
from celery_processes import Fleet, worst_window
from eventually import eventually


def rows(number: int, **extra: Any) -> list[dict[str, Any]]:
    return [{"n": at, **extra} for at in range(number)]


# One worker with one slot


@pytest.fixture(scope="module")
def one_slot(redis_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`celery worker --concurrency 1 --beat`: control tasks and batches share one process."""
    batchers = {
        "slot": {"capacity": 500, "watchers": {"slot.work": {"max_batch_size": 20}}},
        "ticked": {
            "capacity": 1000,
            "options": {"flush_mode": "tick", "send_events": True},
            "watchers": {"ticked.work": {}},
        },
    }
    conf = {"batcher_key_prefix": "one-slot:", "task_default_queue": "one-slot"}
    directory = tmp_path_factory.mktemp("one-slot")
    broker = f"{redis_server.url[:-1]}2"
    with Fleet(directory, broker=broker, batchers=batchers, conf=conf) as fleet:
        fleet.worker(concurrency=1, beat=True, queues="one-slot")
        yield fleet


def test_one_worker_with_one_slot_makes_steady_progress(one_slot: Fleet) -> None:
    payloads = rows(50, do=["spin"])
    one_slot.project.watchers["slot.work"].enqueue_many(payloads, cost=10, pack=10)

    one_slot.await_settled("slot")

    assert one_slot.journal.numbers("slot.work") == list(range(50))
    assert worst_window(one_slot.journal.starts("slot.work")) <= 500


def test_tick_mode_flushes_inside_the_task(one_slot: Fleet) -> None:
    one_slot.project.watchers["ticked.work"].enqueue_many(rows(300), cost=1)

    one_slot.await_settled("ticked")

    assert one_slot.journal.numbers("ticked.work") == list(range(300))
    starts = one_slot.journal.starts("ticked.work")
    assert worst_window(starts) <= 1000


def test_who_captures_events_hears_of_batches_from_the_worker_by_its_name(one_slot: Fleet) -> None:
    app, got = one_slot.project.app, list[dict[str, Any]]()
    wanted = {"batcher-released", "batcher-started", "batcher-settled"}
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers=dict.fromkeys(wanted, got.append))
        with receiver.consumer_context() as (listening, _, _):
            one_slot.project.watchers["ticked.work"].enqueue({"n": 300})
            while {event["type"] for event in got} < wanted:
                listening.drain_events(timeout=30)

    one_slot.await_settled("ticked")
    assert {event["hostname"] for event in got} == {"worker1@test"}
    assert {event["batcher"] for event in got} == {"ticked"}
    assert len({event["batch_id"] for event in got}) == 1


# Queues


@pytest.fixture(scope="module")
def apart(redis_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One worker for the control queue, with beat; another, with threads, for batches."""
    batchers = {
        "apart": {
            "note_flusher": True,
            "options": {"max_operation_time": 0.5, "claim_grace": 0.3},
            "watchers": {"apart.work": {"max_batch_size": 5}},
        }
    }
    conf = {"batcher_control_queue": "control"}
    broker = f"{redis_server.url[:-1]}3"
    directory = tmp_path_factory.mktemp("apart")
    with Fleet(directory, broker=broker, batchers=batchers, conf=conf) as fleet:
        fleet.worker(concurrency=1, beat=True, queues="control", wait=False)
        fleet.worker(concurrency=4, pool="threads")
        yield fleet


def test_a_control_queue_keeps_the_flusher_out_of_the_workers_of_batches(apart: Fleet) -> None:
    control, work = apart.processes
    apart.project.watchers["apart.work"].enqueue_many(rows(200), pack=20)

    apart.await_settled("apart")

    assert set(apart.flushers("apart")) <= set(control.children)
    assert {start.pid for start in apart.journal.starts("apart.work")} == {work.pid}
    assert sorted(apart.journal.numbers("apart.work")) == list(range(200))


def test_without_a_soft_limit_a_late_handler_is_fenced_and_others_run_its_operations(
    apart: Fleet,
) -> None:
    id = apart.project.watchers["apart.work"].enqueue({"n": 1000, "do": ["late"]})

    eventually(lambda: apart.journal.attempts("apart.work")[id, 2] == 1)

    apart.processes[1].await_log("ClaimExpiredError")
    apart.await_settled("apart")
    attempts = apart.journal.attempts("apart.work")
    assert [attempts[id, attempt] for attempt in (1, 2, 3)] == [1, 1, 0]
    status = apart.project.batchers["apart"].status()
    assert (status.expired_batches, status.late_batches) == (1, 1)


# Drain


def test_a_drain_finishes_what_waits_and_what_is_delayed(apart: Fleet) -> None:
    batcher, work = apart.project.batchers["apart"], apart.project.watchers["apart.work"]
    work.enqueue_many([{"n": 2000 + n, "do": ["later"] if n < 5 else []} for n in range(50)])

    assert batcher.drain(timeout=30) is True

    numbers = apart.journal.numbers("apart.work")
    assert sum(1 for number in numbers if number >= 2000) == 55
    with pytest.raises(BatcherStoppedError, match="drained"):
        work.enqueue({"n": 1})
    batcher.resume()
    assert work.enqueue_many(rows(5)) == 5
    apart.await_settled("apart")


# Without beat


@pytest.fixture
def beatless(redis_url: str, unique: str, key_prefix: str, tmp_path: Any) -> Iterator[Fleet]:
    """A solo worker, started without `-Q`, and no beat."""
    batchers = {unique: {"watchers": {f"{unique}.work": {"max_batch_size": 10}}}}
    conf = {"batcher_key_prefix": key_prefix, "task_default_queue": unique}
    with Fleet(tmp_path, broker=redis_url, batchers=batchers, conf=conf) as fleet:
        fleet.worker(pool="solo", concurrency=1, queues="")
        yield fleet


def test_start_flushes_without_beat_and_a_worker_leaves_lanes_alone(
    beatless: Fleet, redis_url: str, unique: str
) -> None:
    (batcher,) = beatless.project.batchers.values()
    (work,) = beatless.project.watchers.values()
    work.enqueue_many(rows(30), pack=10)
    # A task behind them has run: the worker had every occasion to consume the lane.
    beatless.project.app.send_task("celery_batcher.limit", (unique,))
    beatless.processes[0].await_log("Task celery_batcher.limit")
    with Redis.from_url(redis_url) as client:
        assert client.llen(lane_name(unique, work.name)) == 3
    assert work.name not in beatless.project.app.amqp.queues
    assert lane_name(unique, work.name) not in beatless.project.app.amqp.queues

    batcher.start()
    with pytest.raises(ImproperOrderError, match="started"):
        batcher.start()

    beatless.await_settled(unique)
    assert beatless.journal.numbers() == list(range(30))
    batcher.stop()
    with pytest.raises(BatcherStoppedError):
        work.enqueue({"n": 1})
    with pytest.raises(ImproperOrderError, match="stopped"):
        batcher.start()
    assert batcher.status().phase == "idle"


# One process, in memory


@pytest.fixture
def root_logger() -> Iterator[None]:
    """A worker in this process sets the root logger up as its own: back with it for later tests."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("root_logger")
@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
def test_an_app_in_memory_is_one_process_and_its_listeners_hear_it(unique: str) -> None:
    app = Celery(unique, broker=f"memory://{unique}", set_as_current=False)
    batcher = Batcher(unique, app=app, emit_batch=True, flush_interval=0.02)
    handled: list[Any] = []
    events: list[tuple[str, int]] = []
    emitted = threading.Event()

    @batcher.watcher(name=f"{unique}.work", max_batch_size=10)
    def work(batch: Batch) -> None:
        handled.extend(operation.payload for operation in batch)

    def listen(event: str, val: int, _msg: str, metadata: Any) -> None:
        events.append((event, val))
        if event == "batch":
            assert [operation.payload for operation in metadata] == handled or metadata
            emitted.set()

    def broken(*_: Any) -> None:
        raise RuntimeError("a listener's own fault")

    batcher.add_listener(broken)
    listener = batcher.add_listener(listen)

    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=10):
        batcher.start()
        assert work.enqueue_many(range(25)) == 25
        eventually(lambda: len(handled) == 25)
        eventually(lambda: batcher.needs_capacity() == 0)
        batcher.pause(5)
        batcher.resume()
        batcher.remove_listener(listener)
        batcher.stop()

    assert handled == list(range(25))
    assert emitted.is_set()
    names = {event for event, _ in events}
    assert {"batch", "flush-start", "flush-done", "request", "pause", "resume"} <= names
    assert "shutdown" not in names  # it was removed before
    assert sum(val for event, val in events if event == "batch") == 25
    assert ("pause", 5000) in events
    app.close()


# Every kind of server


def test_a_thousand_operations_pass_on_every_kind_of_server(
    flavour_url: str, unique: str, tmp_path: Any
) -> None:
    batchers = {unique: {"capacity": 2000, "watchers": {"flavour.work": {}}}}
    with Fleet(tmp_path, broker=flavour_url, batchers=batchers) as fleet:
        fleet.worker(beat=True)

        assert fleet.project.watchers["flavour.work"].enqueue_many(rows(1000)) == 1000

        fleet.await_settled(unique)
        assert sorted(fleet.journal.numbers()) == list(range(1000))
        assert set(fleet.journal.attempts().values()) == {1}
        assert worst_window(fleet.journal.starts()) <= 2000
