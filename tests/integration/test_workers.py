"""Workers that lose children, are shut down, or run on pools without soft time limits.

Nothing here waits for the deadline of a claim, unless a test says so: that is five minutes away.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from celery_processes import CeleryProcess, Fleet
from eventually import eventually

OPTIONS = {"bisect": False, "max_batch_size": 100}
WATCHERS = {
    "long": {"max_operation_time": 300.0, **OPTIONS},
    "short": {"max_operation_time": 1.0, **OPTIONS},
}


@pytest.fixture(scope="module", params=["prefork", "threads", "solo", "gevent", "eventlet"])
def fleet(
    request: pytest.FixtureRequest, redis_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A worker; the test's process flushes."""
    name, directory = f"t{uuid4().hex[:12]}", tmp_path_factory.mktemp(request.param)
    conf = {"task_default_queue": name, "batcher_key_prefix": f"{name}:"}
    batchers = {name: {"options": {"claim_grace": 0.5}, "watchers": WATCHERS}}
    broker = f"{redis_server.url[:-1]}4"
    with Fleet(directory, broker=broker, batchers=batchers, conf=conf) as fleet:
        fleet.project.batchers[name].start()
        worker(fleet, request.param)
        yield fleet


def worker(fleet: Fleet, pool: str = "threads") -> CeleryProcess:
    """Start one more."""
    (name,) = fleet.project.batchers
    return fleet.worker(queues=name, pool=pool, concurrency=2)


def enqueue(fleet: Fleet, watcher: str, *does: list[str]) -> list[str]:
    """Enqueue operations that come in one batch; return their ids."""
    rows = [{"n": at, "id": uuid4().hex, "do": do} for at, do in enumerate(does)]
    fleet.project.watchers[watcher].enqueue_many(rows, id=lambda row: row["id"])
    return [row["id"] for row in rows]


def attempts(fleet: Fleet, ids: list[str]) -> list[dict[int, int]]:
    """How often each attempt of operations was handled."""
    found: list[Counter[int]] = [Counter() for _ in ids]
    for (id, attempt), times in fleet.journal.attempts().items():
        if id in ids:
            found[ids.index(id)][attempt] = times
    return [dict(one) for one in found]


def test_a_handler_that_takes_too_long_is_interrupted_and_what_it_decided_stays(
    fleet: Fleet,
) -> None:
    decided, *rest = enqueue(fleet, "short", ["commit"], *[["slow"]] * 9)

    eventually(lambda: attempts(fleet, rest) == [{1: 1, 2: 1}] * 9, timeout=30)

    assert attempts(fleet, [decided]) == [{1: 1}]
    first = next(start for start in fleet.journal.starts() if start.operations[0][0] == decided)
    assert [end.outcome for end in fleet.journal.ends(first.batch)] == ["SoftTimeLimitExceeded"]
    (batcher,) = fleet.project.batchers
    fleet.await_settled(batcher)
    status = fleet.project.batchers[batcher].status()
    assert (status.done, status.expired_batches, status.late_batches) == (10, 0, 0)


@pytest.mark.parametrize("fleet", ["prefork"], indirect=True)
def test_a_killed_childs_operations_come_back_at_once(fleet: Fleet) -> None:
    ids = enqueue(fleet, "long", ["die"], ["ok"])

    eventually(lambda: attempts(fleet, ids) == [{1: 1, 2: 1}] * 2, timeout=30)

    fleet.processes[0].await_log("the process of its handler was lost")


@pytest.mark.parametrize("fleet", ["prefork", "gevent"], indirect=True)
def test_a_handler_that_cannot_be_interrupted_is_killed_and_others_get_its_operations(
    fleet: Fleet,
) -> None:
    ids = enqueue(fleet, "short", ["stuck"], ["ok"])

    eventually(lambda: attempts(fleet, ids) == [{1: 1, 2: 1}] * 2, timeout=30)

    fleet.processes[0].await_log("Hard time limit")


def test_a_cold_shutdown_hands_back_what_is_not_decided(fleet: Fleet) -> None:
    decided, *rest = enqueue(fleet, "long", ["commit"], *[["slow"]] * 99)
    eventually(lambda: attempts(fleet, rest) == [{1: 1}] * 99)
    (process,) = fleet.processes

    os.kill(process.pid, signal.SIGQUIT)
    worker(fleet)

    eventually(lambda: attempts(fleet, rest) == [{1: 2}] * 99, timeout=30)
    assert attempts(fleet, [decided]) == [{1: 1}]
    (batcher,) = fleet.project.batchers.values()
    assert (batcher.status().expired_batches, batcher.status().late_batches) == (0, 0)
