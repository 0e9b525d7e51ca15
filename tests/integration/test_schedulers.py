"""Schedulers that keep entries elsewhere: django-celery-beat's database, and redbeat's Redis."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from celery_processes import TESTS, Fleet
from eventually import eventually

BATCHERS = {
    "orders": {
        "capacity": 1000,
        "options": {"audit_interval": 0.2, "capacity_interval": 0.1},  # beat's are whole seconds
        "watchers": {"orders.write": {"max_batch_size": 20}},
    }
}
ENTRIES = {f"celery_batcher:orders:{task}" for task in ("flush", "limit", "audit")}
DATABASE_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"


def flows(fleet: Fleet, number: int) -> None:
    """Enqueue operations, and see every one handled."""
    before = len(fleet.journal.numbers("orders.write"))
    fleet.project.watchers["orders.write"].enqueue_many([{"n": n} for n in range(number)])

    def handled() -> None:
        assert len(fleet.journal.numbers("orders.write")) == before + number, fleet.logs()

    eventually(handled, timeout=30.0)
    fleet.await_settled("orders")


class Rows:
    """The schedule in the database, read and changed as its admin does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self._path, timeout=20)) as connection, connection:
            return connection.execute(sql).fetchall()

    def runs(self, name: str) -> int:
        """How often beat says that it has run an entry."""
        ((count,),) = self(
            f"SELECT total_run_count FROM django_celery_beat_periodictask WHERE name = '{name}'"
        )
        return int(count)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """The tables of a Django project, whose settings every process started from now on has."""
    path = tmp_path / "schedule.sqlite3"
    monkeypatch.setenv("SCHEDULED_DATABASE", str(path))
    python_path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity=0"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "projects.scheduled",
            "PYTHONPATH": python_path,
        },
        check=True,
        timeout=60,
    )
    return Rows(path)


def test_batches_flow_with_the_schedule_in_djangos_database(
    redis_url: str,
    key_prefix: str,
    unique: str,
    tmp_path: Path,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conf = {"batcher_key_prefix": key_prefix, "task_default_queue": unique}
    with Fleet(tmp_path, broker=redis_url, batchers=BATCHERS, conf=conf) as fleet:
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "projects.scheduled")  # not for this process
        worker = fleet.worker(queues=unique)
        beat = fleet.beat(f"--scheduler={DATABASE_SCHEDULER}")
        flows(fleet, 50)

        table = "django_celery_beat_periodictask"
        entries = f"SELECT t.name, i.every, i.period FROM {table} t JOIN \
            django_celery_beat_intervalschedule i ON i.id = t.interval_id"
        found = rows(entries)
        assert {name for name, _, _ in found} == ENTRIES
        assert {(every, period) for _, every, period in found} == {(1, "seconds")}
        assert "Cannot add entry" not in beat.log_tail(1000)

        beat.stop()
        fields = ", ".join(
            name
            for _, name, *_ in rows(f"PRAGMA table_info({table})")
            if name not in {"id", "name", "args"}
        )
        rows(
            f"INSERT INTO {table} (name, args, {fields}) SELECT 'celery_batcher:gone:flush', "
            f"'[\"gone\"]', {fields} FROM {table} WHERE name = 'celery_batcher:orders:flush'"
        )
        rows(f"UPDATE {table} SET enabled = 0 WHERE name = 'celery_batcher:orders:audit'")
        before = {name: rows.runs(name) for name in [*ENTRIES, "celery_batcher:gone:flush"]}
        beat.start()
        worker.await_log("no batcher 'gone' in this process: a stale beat entry?")
        flows(fleet, 50)

        assert {name for name, _, _ in rows(entries)} == {*ENTRIES, "celery_batcher:gone:flush"}
        beat.stop()  # it writes its counts down
        assert rows.runs("celery_batcher:orders:flush") > before["celery_batcher:orders:flush"]
        audits = rows.runs("celery_batcher:orders:audit")
        assert audits == before["celery_batcher:orders:audit"]  # who disables an entry means it
        assert "Traceback" not in worker.log_tail(1000)


def test_batches_flow_with_the_schedule_in_redbeats_redis(
    redis_url: str, key_prefix: str, unique: str, tmp_path: Path
) -> None:
    conf = {
        "batcher_key_prefix": key_prefix,
        "task_default_queue": unique,
        "redbeat_redis_url": redis_url,
        "redbeat_redis_options": {},
        "redbeat_key_prefix": f"{key_prefix}redbeat:",
        "redbeat_lock_timeout": 4,  # how long the next beat waits for one that was killed
        "beat_max_loop_interval": 1,
    }
    name = f"{key_prefix}redbeat:celery_batcher"
    with (
        Redis.from_url(redis_url, decode_responses=True) as redis,
        Fleet(tmp_path, broker=redis_url, batchers=BATCHERS, conf=conf) as fleet,
    ):
        fleet.worker(queues=unique)
        beat = fleet.beat("--scheduler=redbeat.RedBeatScheduler")
        flows(fleet, 50)

        statics = f"{key_prefix}redbeat::statics"
        assert redis.smembers(statics) >= ENTRIES
        for task in "flush", "limit", "audit":
            assert '"every": 1.0' in str(redis.hget(f"{name}:orders:{task}", "definition"))

        # What the code had once; then another beat, which waits until this one dies without a word.
        redis.copy(f"{name}:orders:flush", f"{name}:gone:flush")
        redis.sadd(statics, "celery_batcher:gone:flush")
        spare = fleet.beat("--scheduler=redbeat.RedBeatScheduler")
        beat.kill()
        runs = redis.hget(f"{name}:orders:flush", "meta")
        spare.await_log("beat: Acquired lock")
        eventually(lambda: redis.hget(f"{name}:orders:flush", "meta") != runs, timeout=30.0)
        flows(fleet, 50)

        assert not redis.exists(f"{name}:gone:flush")
        assert redis.smembers(statics) & {"celery_batcher:gone:flush", *ENTRIES} == ENTRIES
