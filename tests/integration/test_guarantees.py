"""The guarantees G1 to G10, on real servers, workers and beats, single ones being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Producer
from redis import Redis

from by_hand import ByHand
from celery_batcher import (
    BatcherStoppedError,
    BrokerUnavailableError,
    BufferFullError,
    ClaimExpiredError,
    StoreUnavailableError,
    Throttled,
    TooExpensiveError,
)
from celery_batcher.embedded import EmbeddedServer, free_port
from celery_batcher.intakes.base import lane_name
from celery_processes import CeleryProcess, Fleet, Start, record_for, worst_window
from eventually import eventually
from servers import RabbitServer

CAPACITY = 1000
BATCHERS: dict[str, Any] = {
    "plain": {
        "note_flusher": True,
        "options": {"max_operation_time": 1.0, "claim_grace": 0.5, "enqueue_timeout": 5.0},
        "watchers": {"plain.work": {"max_batch_size": 20}},
    },
    # Of a producer that is killed, an admission may be left until it is void: nobody waits for it.
    "produced": {"watchers": {"produced.work": {"max_batch_size": 20}}},
    "limited": {
        "capacity": CAPACITY,
        "resource": "shared",
        "watchers": {"limited.work": {"max_batch_size": 50}},
    },
    "sharing": {
        "capacity": CAPACITY,
        "resource": "shared",
        "watchers": {"sharing.work": {"max_batch_size": 50}},
    },
    "ordered": {
        "options": {"max_concurrent_batches": 1},
        "watchers": {"ordered.work": {"max_batch_size": 10}},
    },
    "fair": {
        "capacity": CAPACITY,
        "watchers": {"fair.flood": {}, "fair.trickle": {}, "fair.dear": {}},
    },
    "deaf": {
        "capacity": CAPACITY,
        "watchers": {"deaf.busy": {}, "deaf.lonely": {"queue": "lonely"}},
    },
}


class Stack(Fleet):
    """Two workers with two processes each, and beat; what a test killed is started again."""

    workers: list[CeleryProcess]
    beats: list[CeleryProcess]

    def start(self) -> Stack:
        self.workers = [self.worker(wait=False), self.worker(wait=False)]
        self.beats = [self.beat()]
        for worker in self.workers:
            worker.await_log(" ready.")
        return self

    def rows(self, number: int, *, first: int = 0, **extra: Any) -> list[dict[str, Any]]:
        """Payloads, numbered."""
        return [{"n": first + at, **extra} for at in range(number)]


@pytest.fixture(scope="module")
def crash_server(redis_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server to be killed: what it has answered, it has on disk."""
    with EmbeddedServer(binary=redis_server.binary, appendfsync="always") as server:
        yield server


@pytest.fixture(scope="module")
def shared_stack(
    crash_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    with Stack(directory, broker=crash_server.url, batchers=BATCHERS) as stack:
        yield stack.start()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """The workers and the beat that the tests of this file share, all of them running."""
    shared_stack.restart_failed()
    for worker in shared_stack.workers:
        worker.await_log(" ready.")
    return shared_stack


@pytest.fixture
def by_hand(redis_url: str, unique: str, key_prefix: str) -> Iterator[ByHand]:
    """A batcher worked by hand, with a capacity of 100."""
    batcher = ByHand(redis_url, unique, key_prefix, capacity=100, enqueue_timeout=0.3)
    yield batcher
    batcher.close()


# G1: no operation is lost once enqueue returned

PRODUCER = """
import itertools, json, os, sys
from pathlib import Path
from projects import recording
project = recording.build(json.loads(Path(os.environ[recording.VARIABLE]).read_text()))
for chunk in itertools.count():
    rows = [{"n": 100_000 + chunk * 50 + at} for at in range(50)]
    project.watchers["produced.work"].enqueue_many(rows, pack=7)
    print(chunk, flush=True)
"""


def test_g1_what_enqueue_many_returned_for_survives_the_end_of_its_producer(
    stack: Stack,
) -> None:
    env = {
        **os.environ,
        "RECORDING_PROJECT": str(stack.directory / "project.json"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", PRODUCER],
        cwd=stack.directory,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as producer:
        assert producer.stdout is not None
        for _ in range(4):
            producer.stdout.readline()
        producer.kill()
        confirmed = 4 + len(producer.stdout.read().split())

    def all_handled() -> None:
        numbers = set(stack.journal.numbers("produced.work"))
        assert numbers.issuperset(range(100_000, 100_000 + confirmed * 50))

    eventually(all_handled)
    assert set(stack.journal.attempts("produced.work").values()) == {1}


def test_g1_the_work_of_a_killed_flusher_is_taken_up_by_another(stack: Stack) -> None:
    work = stack.project.watchers["plain.work"]
    flusher = eventually(lambda: stack.flushers("plain"))[0]
    work.enqueue_many(stack.rows(2000, first=200_000), pack=10)

    os.kill(flusher, signal.SIGKILL)
    work.enqueue_many(stack.rows(500, first=202_000), pack=10)

    def all_handled() -> None:
        assert set(stack.journal.numbers("plain.work")).issuperset(range(200_000, 202_500))
        assert stack.flushers("plain")[0] != flusher

    eventually(all_handled, timeout=20)
    assert set(stack.journal.attempts("plain.work").values()) == {1}
    stack.await_settled("plain")


def test_g1_an_operation_whose_worker_is_killed_runs_again_as_the_next_attempt(
    stack: Stack,
) -> None:
    ids = [
        stack.project.watchers["plain.work"].enqueue(row, batchable=False)
        for row in stack.rows(3, first=300_000, do=["hang"])
    ]

    def running() -> set[int]:
        return {
            start.pid
            for start in stack.journal.starts("plain.work")
            for operation in start.operations
            if operation[0] in ids
        }

    for pid in eventually(running):
        os.kill(pid, signal.SIGKILL)

    def run_again() -> None:
        attempts = stack.journal.attempts("plain.work")
        assert [attempts[id, 2] for id in ids] == [1, 1, 1]

    eventually(run_again)
    attempts = stack.journal.attempts("plain.work")
    assert [(attempts[id, 1], attempts[id, 3]) for id in ids] == [(1, 0)] * 3
    stack.await_settled("plain")


def test_g1_what_a_handler_committed_is_not_run_again_when_its_worker_is_killed(
    stack: Stack,
) -> None:
    rows = [{"n": 330_000, "do": ["commit"]}, {"n": 330_001, "do": ["hang"]}]
    stack.project.watchers["plain.work"].enqueue_many(rows)
    running = stack.project.batchers["plain"].status

    def committed() -> int:
        starts = stack.journal.starts("plain.work")
        pids = [start.pid for start in starts if start.operations[0][2]["n"] == 330_000]
        assert pids
        assert running().running == 1
        return pids[0]

    os.kill(eventually(committed), signal.SIGKILL)

    stack.await_settled("plain")
    numbers = stack.journal.numbers("plain.work")
    assert (numbers.count(330_000), numbers.count(330_001)) == (1, 2)


def test_g1_an_operation_that_is_tried_again_later_comes_when_its_delay_is_over(
    stack: Stack,
) -> None:
    batcher, before = stack.project.batchers["plain"], stack.project.batchers["plain"].status()
    rows = [{"n": 340_000, "do": ["later"]}, {"n": 340_001, "do": ["fail"]}, {"n": 340_002}]
    stack.project.watchers["plain.work"].enqueue_many(rows, cost=3)

    def delayed() -> None:
        status = batcher.status()
        assert (status.delayed, status.delayed_cost, status.dead) == (1, 3, before.dead + 1)
        assert (batcher.operations_in_buffer(), batcher.needs_capacity()) == (1, 3)

    eventually(delayed)
    stack.await_settled("plain")

    first, second = [
        start
        for start in stack.journal.starts("plain.work")
        if 340_000 in [one[2]["n"] for one in start.operations]
    ]
    assert [(one[1], one[2]["n"]) for one in second.operations] == [(2, 340_000)]
    assert second.at - first.at >= 0.5
    assert stack.journal.numbers("plain.work").count(340_001) == 1


def test_g1_a_raising_handler_is_tried_again_until_its_operations_are_dead(stack: Stack) -> None:
    batcher = stack.project.batchers["plain"]
    before = batcher.status().dead
    id = stack.project.watchers["plain.work"].enqueue({"n": 310_000, "do": ["raise"] * 9})

    eventually(lambda: batcher.status().dead == before + 1)

    attempts = stack.journal.attempts("plain.work")
    assert [attempts[id, attempt] for attempt in (1, 2, 3, 4)] == [1, 1, 1, 0]
    dead = batcher.store.dead("plain.work", 10)[-1]
    assert "HandlerError: attempt 3 was told to raise" in dead.reason
    assert id.encode() in dead.entry


def test_g1_a_soft_time_limit_ends_a_handler_and_its_operations_run_again(stack: Stack) -> None:
    id = stack.project.watchers["plain.work"].enqueue({"n": 320_000, "do": ["hang"]})

    eventually(lambda: stack.journal.attempts("plain.work")[id, 2] == 1)

    first, _ = [
        start for start in stack.journal.starts("plain.work") if start.operations[0][0] == id
    ]
    assert [end.outcome for end in stack.journal.ends(first.batch)] == ["SoftTimeLimitExceeded"]
    stack.await_settled("plain")


def test_g1_operations_wait_for_the_next_beat_when_one_is_killed(stack: Stack) -> None:
    for beat in stack.beats:
        beat.kill()
    batcher = stack.project.batchers["ordered"]
    eventually(lambda: batcher.status().phase == "idle")
    stack.project.watchers["ordered.work"].enqueue_many(stack.rows(50))
    assert batcher.operations_in_buffer() == 50

    stack.beats = [stack.beat()]

    stack.await_settled("ordered")
    assert stack.journal.numbers("ordered.work") == list(range(50))


def test_g1_nothing_is_lost_nor_started_too_soon_when_the_server_is_killed(
    stack: Stack, crash_server: EmbeddedServer
) -> None:
    work = stack.project.watchers["limited.work"]
    work.enqueue_many(stack.rows(250, first=400_000), cost=10, pack=10)
    eventually(lambda: len(stack.journal.numbers("limited.work")) > 50)

    crash_server.kill()
    crash_server.start()
    work.enqueue_many(stack.rows(50, first=400_250), cost=10, pack=10)

    stack.await_settled("limited", timeout=60)
    assert sorted(stack.journal.numbers("limited.work")) == list(range(400_000, 400_300))
    assert set(stack.journal.attempts("limited.work").values()) == {1}
    assert worst_window(stack.journal.starts("limited.work")) <= CAPACITY


@pytest.mark.usefixtures("rabbitmq_installed")
def test_g1_nothing_is_lost_nor_doubled_when_rabbitmq_is_killed(
    redis_url: str, unique: str, key_prefix: str, tmp_path: Path
) -> None:
    rabbitmq = RabbitServer()
    batchers = {unique: {"capacity": 500, "watchers": {"rabbit.work": {"max_batch_size": 20}}}}
    conf = {"batcher_store_url": redis_url, "batcher_key_prefix": key_prefix}
    try:
        rabbitmq.start()
        with Fleet(tmp_path, broker=rabbitmq.url, batchers=batchers, conf=conf) as fleet:
            fleet.worker(beat=True)
            work = fleet.project.watchers["rabbit.work"]
            work.enqueue_many(({"n": number} for number in range(100)), cost=10, pack=5)
            eventually(lambda: len(fleet.journal.numbers()) > 20, timeout=20)

            rabbitmq.kill()
            rabbitmq.start()
            work.enqueue_many(({"n": number} for number in range(100, 150)), cost=10, pack=5)

            fleet.await_settled(unique, timeout=60)
            assert sorted(fleet.journal.numbers()) == list(range(150))
            assert worst_window(fleet.journal.starts()) <= 500
    finally:
        rabbitmq.stop()


# G2: no two live batches contain the same attempt


def test_g2_a_batch_that_celery_delivers_often_is_handled_once(stack: Stack) -> None:
    stack.close_gate()
    work = stack.project.watchers["plain.work"]
    work.enqueue_many(stack.rows(5, first=500_000, do=["gate"]))

    def find() -> list[Start]:
        starts = stack.journal.starts("plain.work")
        return [start for start in starts if start.operations[0][2]["n"] == 500_000]

    (start,) = eventually(find)

    for _ in range(5):
        stack.project.app.send_task("plain.work", (start.batch,))
    stack.open_gate()
    stack.await_settled("plain")

    assert [one.batch for one in find()] == [start.batch]


def test_g2_a_late_handler_cannot_settle_what_others_have(
    redis_url: str, unique: str, key_prefix: str
) -> None:
    by_hand = ByHand(
        redis_url, unique, key_prefix, max_operation_time=0.05, claim_grace=0.01, max_open_batches=1
    )
    work = by_hand.watcher()
    work.enqueue({})
    (batch,) = by_hand.flush()
    others: list[str] = []

    def late(_batch: Any) -> None:
        by_hand.handlers.clear()
        others.extend(eventually(by_hand.flush))
        by_hand.run(others[0])

    by_hand.handlers["work"] = late

    with pytest.raises(ClaimExpiredError, match=r"0\.05 s"):
        by_hand.run(batch)

    assert [(one[0].attempt, one.id) for one in by_hand.handled] == [(1, batch), (2, others[0])]
    status = by_hand.batcher.status()
    assert (status.done, status.dead, status.expired_batches) == (1, 0, 1)
    assert by_hand.batcher.needs_capacity() == 0
    by_hand.close()


# G3: in every window, measured where handlers start, cost <= capacity


def test_g3_windows_hold_under_manual_flushes_and_stacked_and_doubled_ticks(stack: Stack) -> None:
    stack.beats.append(stack.beat())
    before = time.monotonic()
    limited, sharing = (stack.project.batchers[name] for name in ("limited", "sharing"))
    costs = (1, 7, 90, 13)
    for name in ("limited.work", "sharing.work"):
        rows = stack.rows(80, first=600_000)
        stack.project.watchers[name].enqueue_many(rows, cost=lambda row: costs[row["n"] % 4])

    for flush in range(1000):
        limited.flush()
        sharing.flush()
        for name in ("limited", "sharing") if flush % 10 == 0 else ():
            stack.project.app.send_task("celery_batcher.flush", (name,))
        if limited.needs_capacity() + sharing.needs_capacity() == 0:
            break
        record_for(0.03)

    starts = [
        one for one in stack.journal.starts("limited.work", "sharing.work") if one.at > before
    ]
    assert sum(one.cost for one in starts) == 2 * 20 * sum(costs)
    assert {one.watcher for one in starts} == {"limited.work", "sharing.work"}
    assert worst_window(starts) <= CAPACITY
    stack.beats.pop().stop()


def test_g3_windows_hold_across_a_stall_of_all_workers(stack: Stack) -> None:
    before = time.monotonic()
    stack.project.watchers["limited.work"].enqueue_many(stack.rows(400), cost=10)

    def started() -> list[Start]:
        return [one for one in stack.journal.starts("limited.work") if one.at > before]

    eventually(lambda: len(started()) > 3)

    for worker in stack.workers:
        worker.signal(signal.SIGSTOP)
    record_for(5.0)
    for worker in stack.workers:
        worker.signal(signal.SIGCONT)

    stack.await_settled("limited")
    assert sum(one.cost for one in started()) == 4000
    assert worst_window(started()) <= CAPACITY


def test_g3_a_pause_and_a_closed_resource_hold_back_batches_released_before(
    by_hand: ByHand,
) -> None:
    work = by_hand.watcher()
    work.enqueue_many([{}] * 3)
    (batch,) = by_hand.flush()

    by_hand.batcher.pause(None)
    assert by_hand.run(batch) == {"batch": "wait"}
    assert by_hand.flush() == []
    by_hand.batcher.resume()
    by_hand.batcher.store.shut(200)
    assert by_hand.run(batch) == {"batch": "wait"}
    assert by_hand.handled == []

    again = eventually(by_hand.flush)
    assert [by_hand.run(one) for one in again] == [{"done": 3, "cost": 3}]


def test_g3_a_lowered_capacity_binds_the_batches_released_before(
    redis_url: str, unique: str, key_prefix: str
) -> None:
    by_hand = ByHand(redis_url, unique, key_prefix, capacity=100, flush_interval=1.0)
    work = by_hand.watcher(max_batch_size=1)
    for cost in (20, 20, 60):
        work.enqueue({}, cost=cost)
    released: list[str] = []
    eventually(lambda: (released.extend(by_hand.flush()), len(released) == 3)[1])

    by_hand.batcher.rate_limiter.set_capacity(30)

    assert [by_hand.run(batch) for batch in released] == [
        {"done": 1, "cost": 20},
        {"batch": "wait"},  # 20 of 30 have started
        {"batch": "recalled"},  # 60 do not fit at all now
    ]
    assert by_hand.batcher.needs_capacity() == 80
    by_hand.close()


# G5: order


def test_g5_operations_that_were_given_back_keep_their_place(by_hand: ByHand) -> None:
    work = by_hand.watcher(max_batch_size=2)
    work.enqueue_many([1, 2])
    (batch,) = eventually(by_hand.flush)
    work.enqueue_many([3, 4])

    def throttled(_batch: Any) -> None:
        by_hand.handlers.clear()
        raise Throttled(0.05)

    by_hand.handlers["work"] = throttled
    assert by_hand.run(batch) == {"batch": "throttled", "given_back": 2}
    while by_hand.batcher.needs_capacity():
        for one in by_hand.flush():
            by_hand.run(one)

    payloads = [(operation.payload, operation.attempt) for b in by_hand.handled for operation in b]
    assert payloads == [(1, 1), (2, 1), (1, 1), (2, 1), (3, 1), (4, 1)]


def test_g5_a_key_keeps_its_order_and_priorities_go_first(stack: Stack) -> None:
    batcher = stack.project.batchers["ordered"]
    batcher.pause(None)
    first = 700_000
    priorities = ("backfill", "normal", "high")
    stack.project.watchers["ordered.work"].enqueue_many(
        stack.rows(300, first=first),
        key=lambda row: f"k{row['n'] % 5}",
        priority=lambda row: priorities[row["n"] % 3],
        pack=7,
    )
    eventually(lambda: batcher.status().waiting == 300)

    batcher.resume()
    stack.await_settled("ordered")

    operations = [
        (op[4], op[3], op[2]["n"])
        for start in stack.journal.starts("ordered.work")
        for op in start.operations
        if op[2]["n"] >= first
    ]
    assert len(operations) == 300
    ranks = [("high", "normal", "backfill").index(op[0]) for op in operations]
    assert ranks == sorted(ranks)
    for priority in priorities:
        for key in {op[1] for op in operations}:
            numbers = [op[2] for op in operations if op[:2] == (priority, key)]
            assert numbers == sorted(numbers)


# G6: fairness


def test_g6_neither_a_trickle_nor_a_dear_operation_starves_beside_a_flood(stack: Stack) -> None:
    watchers = stack.project.watchers
    watchers["fair.flood"].enqueue_many(stack.rows(5000), cost=1)
    eventually(lambda: stack.journal.numbers("fair.flood"))

    watchers["fair.trickle"].enqueue_many(stack.rows(20), cost=1)
    watchers["fair.dear"].enqueue({"n": 0}, cost=900)
    eventually(lambda: len(stack.journal.numbers("fair.trickle", "fair.dear")) == 21, timeout=20)

    assert stack.project.batchers["fair"].status().waiting > 0  # the flood is not over yet
    stack.await_settled("fair")
    assert sorted(stack.journal.numbers("fair.flood")) == list(range(5000))
    starts = stack.journal.starts("fair.flood", "fair.trickle", "fair.dear")
    assert worst_window(starts) <= CAPACITY


def test_g6_a_watcher_without_workers_does_not_keep_the_capacity(stack: Stack) -> None:
    watchers, batcher = stack.project.watchers, stack.project.batchers["deaf"]
    watchers["deaf.lonely"].enqueue_many(stack.rows(300), cost=10)
    watchers["deaf.busy"].enqueue_many(stack.rows(400), cost=10)

    def on_probe() -> bool:
        rows = {row.name: row for row in batcher.status().watchers}
        return rows["deaf.lonely"].on_probe and rows["deaf.busy"].waiting == 0

    eventually(on_probe, timeout=20)
    assert stack.journal.numbers("deaf.lonely") == []

    consumer = stack.worker(queues="lonely")
    stack.await_settled("deaf", timeout=30)
    consumer.kill()

    assert sorted(stack.journal.numbers("deaf.lonely")) == list(range(300))
    assert sorted(stack.journal.numbers("deaf.busy")) == list(range(400))
    starts = stack.journal.starts("deaf.lonely", "deaf.busy")
    assert worst_window(starts) <= CAPACITY


# G7: needs_capacity


def test_g7_needs_capacity_is_the_cost_of_what_is_neither_done_nor_dead(by_hand: ByHand) -> None:
    batcher, work = by_hand.batcher, by_hand.watcher(max_batch_size=2, max_attempts=2)
    seen: list[int] = []

    def handle(batch: Any) -> None:
        seen.append(batcher.needs_capacity())
        if batch[0].payload == "bad":
            raise ValueError("bad")

    by_hand.handlers["work"] = handle
    work.enqueue_many(["good", "good", "good"], cost=3)
    assert batcher.needs_capacity() == 9  # in its lane
    batches = by_hand.flush()
    assert batcher.needs_capacity() == 9  # released, and waiting
    work.enqueue("bad", cost=4)
    assert batcher.needs_capacity() == 13

    for batch in batches:
        by_hand.run(batch)
    assert seen == [13, 7]  # running
    while batcher.status().dead == 0:
        for batch in eventually(by_hand.flush):
            try:
                by_hand.run(batch)
            except ValueError:
                status = batcher.status()
                assert batcher.needs_capacity() == status.waiting_cost  # to be retried, or dead

    assert batcher.status().done == 3
    assert (batcher.status().dead_cost, batcher.needs_capacity()) == (4, 0)


def test_g7_an_admission_whose_message_never_came_is_void_in_the_end(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_batcher.duties._LONGEST_PUBLISH", 0.1)
    work, linked = by_hand.watcher(), by_hand.batcher.connections
    publish = linked.publisher.publish

    def killed(messages: Any) -> None:
        raise KeyboardInterrupt

    linked.publisher.publish = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        work.enqueue({}, cost=5)
    linked.publisher.publish = publish  # type: ignore[method-assign]
    assert by_hand.batcher.needs_capacity() == 5

    def void() -> None:
        by_hand.flush()
        by_hand.batcher.audit()
        assert by_hand.batcher.needs_capacity() == 0

    eventually(void)
    assert by_hand.batcher.operations_in_buffer() == 0


# G8: a refusal leaves no trace


def test_g8_a_refusal_leaves_no_trace(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    work = by_hand.watcher()
    monkeypatch.setitem(by_hand.batcher._options, "buffer_size", 2)
    work.enqueue_many([{}, {}])
    before = by_hand.keys()

    with pytest.raises(BufferFullError, match=r"2 of at most 2 .* 0\.3 s") as full:
        work.enqueue({})
    assert (full.value.size, full.value.limit, full.value.enqueued) == (2, 2, 0)
    monkeypatch.setitem(by_hand.batcher._options, "error_on_full_buffer", True)
    with pytest.raises(BufferFullError):
        work.enqueue({})
    with pytest.raises(TooExpensiveError, match=r"costs 101, and the capacity is 100"):
        work.enqueue({}, cost=101)
    by_hand.batcher.stop()
    with pytest.raises(BatcherStoppedError):
        work.enqueue({})

    assert by_hand.keys() == before


def test_g8_a_blocked_enqueue_gets_through_when_there_is_room(
    redis_url: str, unique: str, key_prefix: str
) -> None:
    by_hand = ByHand(redis_url, unique, key_prefix, buffer_size=5, enqueue_timeout=20.0)
    by_hand.watcher()
    # The same batcher, in another process: it has nothing to do with this one's connections.
    producer = ByHand(redis_url, unique, key_prefix, buffer_size=5, enqueue_timeout=20.0)
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if producer.watcher().enqueue_many([{}] * 50, pack=2) == 50 else 1)
        finally:
            os._exit(2)
    most = 0
    while len(by_hand.handled_ids()) < 50:
        most = max(most, by_hand.batcher.operations_in_buffer())
        for batch in by_hand.flush():
            by_hand.run(batch)

    assert os.waitpid(pid, 0)[1] == 0
    assert 0 < most <= 5
    assert by_hand.batcher.needs_capacity() == 0
    producer.close()
    by_hand.close()


def test_g8_an_unreachable_store_or_broker_is_named_and_nothing_is_counted(
    redis_url: str, unique: str, key_prefix: str
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    no_store = ByHand(redis_url, unique, key_prefix, conf={"batcher_store_url": nowhere})
    no_broker = ByHand(redis_url, f"{unique}b", key_prefix, conf={"batcher_store_url": redis_url})
    no_broker.app.conf.broker_url = nowhere

    with pytest.raises(StoreUnavailableError, match=nowhere):
        no_store.watcher().enqueue({})
    with pytest.raises(BrokerUnavailableError, match=nowhere.removeprefix("redis://")):
        no_broker.watcher().enqueue({})

    counts = no_broker.batcher.store.counts()
    assert (counts.admitted, counts.admitted_cost, counts.admitted_messages) == (0, 0, 0)
    assert no_store.client.llen(lane_name(unique, "work")) == 0
    no_store.batcher.stop()
    no_broker.close()


def test_g8_a_producer_whose_connections_broke_publishes_again_at_once(
    redis_server: EmbeddedServer, unique: str
) -> None:
    by_hand = ByHand(redis_server.url, unique, f"{unique}:", enqueue_timeout=1.0)
    work = by_hand.watcher()
    work.enqueue({})
    by_hand.client.client_kill_filter(_type="normal", skipme=True)

    assert work.enqueue_many([{}] * 200, pack=1) == 200  # 200 messages, each uncertain

    handled = 0
    while by_hand.batcher.needs_capacity():
        handled += sum(by_hand.run(batch)["done"] for batch in by_hand.flush())
    assert handled == 201
    by_hand.close()


# G9: malformed and unknown messages


def test_g9_wrong_messages_are_set_aside_and_the_others_run(stack: Stack) -> None:
    batcher = stack.project.batchers["plain"]
    lane = lane_name("plain", "plain.work")
    url = stack.project.app.conf.broker_url
    with Connection(url) as connection, connection.channel() as channel:
        task = stack.project.app.amqp.as_task_v2("4711", "shop.send_mail", args=("to",))
        producer = Producer(channel, auto_declare=False)
        producer.publish(
            task.body, headers=task.headers, routing_key=lane, exchange="", serializer="json"
        )
    with Redis.from_url(url) as client:
        client.lpush(lane, b"\x00 garbage")
    stack.project.watchers["plain.work"].enqueue_many(stack.rows(20, first=800_000))

    stack.await_settled("plain")

    assert set(stack.journal.numbers("plain.work")).issuperset(range(800_000, 800_020))
    reasons = [one.reason for one in batcher.status().set_aside_messages]
    assert batcher.status().set_aside == 2
    assert any("shop.send_mail" in reason for reason in reasons)
    assert any("unreadable envelope" in reason for reason in reasons)


def test_g9_a_worker_that_consumes_a_lane_puts_operations_back_and_stops(stack: Stack) -> None:
    batcher = stack.project.batchers["ordered"]
    stack.beats.pop().kill()  # so that no flusher is faster
    eventually(lambda: batcher.status().phase == "idle")
    already = len(stack.journal.numbers("ordered.work"))
    misrouted = stack.worker(queues=lane_name("ordered", "ordered.work"))
    stack.project.watchers["ordered.work"].enqueue_many(stack.rows(20, first=900_000), pack=5)

    misrouted.await_log("it is told to stop")
    assert batcher.operations_in_buffer() == 20
    stack.beats = [stack.beat()]
    stack.await_settled("ordered")
    misrouted.kill()

    numbers = stack.journal.numbers("ordered.work")[already:]
    assert sorted(numbers) == list(range(900_000, 900_020))
    assert batcher.status().set_aside == 0


# G10: work per operation


def calls(client: Redis, act: Any) -> int:
    """Commands that the server runs for an act, those inside of scripts included."""
    client.config_resetstat()
    act()
    stats = client.info("commandstats")
    ours = {name: row["calls"] for name, row in stats.items() if "config" not in name}
    return sum(ours.values())


@pytest.fixture
def counted(redis_server: EmbeddedServer, unique: str) -> Iterator[ByHand]:
    """A batcher by hand on the private server, where nobody else is counted."""
    by_hand = ByHand(redis_server.url, unique, f"{unique}:", capacity=10, max_open_batches=1)
    yield by_hand
    by_hand.close()


def test_g10_enqueuing_and_flushing_cost_the_same_with_any_backlog(counted: ByHand) -> None:
    work = counted.watcher(max_batch_size=1, cost=1)
    spare = counted.watcher("spare")

    def measure() -> tuple[int, int]:
        enqueuing = calls(counted.client, lambda: spare.enqueue({}))
        counted.flush()
        flushing = calls(counted.client, counted.batcher.tick)
        for batch in counted.delivered():
            counted.run(batch)
        return enqueuing, flushing

    work.enqueue({})
    counted.flush()
    few = measure()
    work.enqueue_many(({} for _ in range(20_000)), key=lambda _: "k")
    while counted.batcher.status().admitted:
        counted.flush()
    many = measure()
    counted.watcher("third").enqueue_many(range(1000), key=str)
    while counted.batcher.status().admitted:
        counted.flush()
    keyed = measure()

    assert many[0] == few[0] == keyed[0]
    assert many[1] <= 1.5 * few[1] + 10
    assert keyed[1] <= 1.5 * few[1] + 10


def test_g10_idle_lanes_are_not_polled(counted: ByHand) -> None:
    for number in range(50):
        counted.watcher(f"w{number}").enqueue({})
    for _ in range(60):
        counted.flush()
    eventually(lambda: counted.batcher.status().admitted == 0)

    counted.flush()
    counted.client.config_resetstat()
    counted.batcher.tick()

    assert counted.client.info("commandstats").get("cmdstat_rpop", {"calls": 0})["calls"] == 0
