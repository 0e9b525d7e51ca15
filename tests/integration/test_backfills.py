"""Back-fills in real processes: killed again and again, one at a time, by beat and in workers."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

import pytest

from celery_batcher import Backfill, BackfillRunningError, wire
from celery_batcher.store.base import Released, Settlement
from celery_batcher.store.options import WatcherOptions
from celery_processes import Fleet
from connected import close
from eventually import eventually
from projects import backfilled

FORKS = multiprocessing.get_context("forkserver")
KILLS = 30
JSON = frozenset(["application/json"])


@pytest.fixture(scope="module", autouse=True)
def zygote() -> None:
    """A process from which others fork that need not import anything."""
    FORKS.set_forkserver_preload(["projects.backfilled"])
    with pytest.MonkeyPatch.context() as patched:  # it has no path but this one
        patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()


@pytest.fixture
def settings(redis_url: str, key_prefix: str) -> dict[str, Any]:
    return {
        "broker": redis_url,
        "store": redis_url,
        "prefix": key_prefix,
        "rows": 12_000,
        "chunk": 10,
        "lease": 0.15,
    }


@pytest.fixture
def backfill(settings: dict[str, Any]) -> Iterator[Backfill]:
    one = backfilled.build(settings)
    yield one
    close(one.batcher.connections)


@contextmanager
def running(settings: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """A process that runs the back-fill, and what it tells in the end."""
    here, there = FORKS.Pipe()
    process = FORKS.Process(target=backfilled.run, args=(settings, there))
    process.start()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()
        there.close()


def handled(backfill: Backfill) -> Counter[int]:
    """Take all that waits through batches to its end; how often each row was in one."""
    store, limits = backfill.batcher.store, backfill.batcher.limits()
    store.configure(limits, [WatcherOptions("write", max_batch_size=1000)])
    assert store.take_turn("turn", 600_000).mine
    found = Counter[int]()
    number = 0
    while isinstance(batch := store.release("turn", f"batch{number}", limits), Released):
        claim = store.claim(batch.id, "n", limits, 60_000)
        opened = wire.open_blocks(claim.blocks, "write", JSON)
        found.update(op.payload for op in opened.operations)
        assert store.settle(batch.id, "n", Settlement())
        number += 1
    return found


def test_a_run_killed_at_random_points_loses_and_doubles_no_row(
    settings: dict[str, Any], backfill: Backfill
) -> None:
    chance = random.Random(17)
    before = 0
    for kill in range(KILLS):
        with running(settings) as (process, _):
            if kill % 3:  # else it may not have begun
                eventually(lambda seen=before: backfill.status().rows > seen, interval=0.002)
            process.join(chance.uniform(0, 0.03))
        eventually(lambda: backfill.status().runner is None, interval=0.02)
        before = backfill.status().rows
    assert 0 < before < settings["rows"], "it was killed on its way"

    assert backfill.run().phase == "complete"
    assert handled(backfill) == Counter(range(settings["rows"]))


def test_of_many_that_begin_at_once_one_runs(settings: dict[str, Any], backfill: Backfill) -> None:
    settings["lease"] = 30.0
    with running(settings) as one, running(settings) as other, running(settings) as third:
        ended = [pipe.recv()[0] for _, pipe in (one, other, third)]
        pids = [process.pid for process, _ in (one, other, third)]

    assert "complete" in ended
    runners = {f"run by {socket.gethostname()}:{pid}" for pid in pids}
    assert {one for one in ended if one != "complete"} <= runners
    assert handled(backfill) == Counter(range(settings["rows"]))


def test_a_second_run_is_refused_and_told_who_runs_it(
    settings: dict[str, Any], backfill: Backfill
) -> None:
    settings |= {"lease": 30.0, "rows": 10**9}
    with running(settings) as (process, _):
        eventually(lambda: backfill.status().rows > 0)
        with pytest.raises(BackfillRunningError) as refused:
            backfill.run()
        assert refused.value.owner == f"{socket.gethostname()}:{process.pid}"
        assert refused.value.since == backfill.status().runner_since


def test_one_that_was_stopped_for_long_is_refused_when_it_comes_back(
    settings: dict[str, Any], backfill: Backfill
) -> None:
    with running(settings) as (process, pipe):
        eventually(lambda: backfill.status().rows > 0)
        os.kill(process.pid, signal.SIGSTOP)
        eventually(lambda: backfill.status().runner is None)
        steps = backfill.steps()
        next(steps)
        os.kill(process.pid, signal.SIGCONT)
        assert pipe.recv()[0].startswith("run by ")
        list(steps)

    assert backfill.status().phase == "complete"
    assert handled(backfill) == Counter(range(settings["rows"]))


def test_it_is_paused_and_resumed_from_another_process(
    settings: dict[str, Any], backfill: Backfill
) -> None:
    with running(settings) as (_, pipe):
        eventually(lambda: backfill.status().rows > 0)
        backfill.pause()
        assert backfill.status().phase == "paused"
        rows = backfill.status().rows
        assert not pipe.poll(0.1)
        assert backfill.status().rows == rows < settings["rows"]
        backfill.resume()
        assert pipe.recv()[0] == "complete"
    assert handled(backfill) == Counter(range(settings["rows"]))


def test_ten_times_as_many_rows_take_no_more_memory(
    settings: dict[str, Any], backfill: Backfill
) -> None:
    settings["chunk"] = 500
    peaks = []
    for rows in (5_000, 50_000):
        settings["rows"] = rows
        with running(settings) as (_, pipe):
            phase, peak = pipe.recv()
        assert phase == "complete"
        peaks.append(peak)
        backfill.reset()
    assert peaks[1] < 1.05 * peaks[0]


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_in_workers_it_goes_on_whoever_is_killed(
    broker: str, redis_server: Any, request: pytest.FixtureRequest, tmp_path: Any, unique: str
) -> None:
    rows = 1500
    batchers = {
        "filled": {
            "watchers": {"filled.work": {}},
            "backfills": {
                f"all-{broker}": {
                    "watcher": "filled.work",
                    "rows": rows,
                    "pause": 0.001,
                    "chunk": 20,
                    "lease_time": 0.5,
                    "slice": 1.0,
                    "queue": f"fill-{unique}",
                }
            },
        }
    }
    store = f"{redis_server.url[:-1]}4"
    url = store if broker == "redis" else request.getfixturevalue("rabbitmq_url")
    conf = {
        "batcher_key_prefix": f"{unique}:",
        "batcher_store_url": store,
        "task_default_queue": unique,
    }
    with Fleet(tmp_path, broker=url, batchers=batchers, conf=conf) as fleet:
        backfill = fleet.project.batchers["filled"].backfills[f"all-{broker}"]
        fleet.worker(concurrency=2, beat=True, queues=unique)
        fleet.worker(concurrency=1, queues=f"fill-{unique}")
        backfill.task.apply_async(queue=f"fill-{unique}")
        killed: list[str] = []
        for _ in range(2):
            runner = eventually(lambda: _other_runner(backfill, killed), timeout=30)
            os.kill(int(runner.rpartition(":")[2]), signal.SIGKILL)
            killed.append(runner)
        eventually(lambda: backfill.status().phase == "complete", timeout=40)
        fleet.await_settled("filled")

        assert Counter(fleet.journal.numbers("filled.work")) == Counter(range(rows))


def _other_runner(backfill: Backfill, killed: list[str]) -> str:
    """Who runs it now, if that is none of the killed."""
    runner = backfill.status().runner
    return "" if runner is None or runner in killed else runner
