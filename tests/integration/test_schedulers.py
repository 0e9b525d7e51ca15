"""The other schedulers of beat: django-celery-beat's DatabaseScheduler, and redbeat."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celery_batcher.embedded import EmbeddedServer, GuardedProcess
from eventually import eventually

TESTS = Path(__file__).parents[1]
SHOP = TESTS.parent / "examples" / "django_orders"
ENTRIES = {f"celery_batcher:warehouse:{task}" for task in ("flush", "limit", "audit")}
DATABASE = "django_celery_beat.schedulers:DatabaseScheduler"


class Fleet:
    """The shop with a worker, and beats with the scheduler that a test names."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        self.directory = directory
        self.database = directory / "shop.sqlite3"
        path = [str(SHOP), str(TESTS), os.environ.get("PYTHONPATH", "")]
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "projects.beat_settings",
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "REDIS_URL": redis_url,
            "SHOP_DATABASE": str(self.database),
        }
        self.started: list[GuardedProcess] = []
        self.manage("migrate", "--verbosity=0")

    def manage(self, *args: str) -> None:
        """Run one of Django's commands."""
        subprocess.run(
            [sys.executable, str(SHOP / "manage.py"), *args],
            env=self.env,
            cwd=self.directory,
            check=True,
            timeout=100,
        )

    def start(self, name: str, *args: str) -> GuardedProcess:
        """Start a process of Celery."""
        process = GuardedProcess(
            [sys.executable, "-m", "celery", "-A", "shop", *args, "--loglevel=INFO"],
            directory=self.directory,
            log=self.log(name),
            env=self.env,
        )
        self.started.append(process)
        return process

    def log(self, name: str) -> Path:
        """What a process logged."""
        return self.directory / f"{name}.log"

    def place(self, number: int) -> None:
        """What the shop's page does."""
        self.manage(
            "shell",
            "-c",
            "from orders.models import Order; from orders.batches import book;"
            "made = Order.objects.bulk_create("
            f"Order(customer='Ada', product='pears', quantity=1) for _ in range({number}));"
            "book.enqueue_many({'id': order.id} for order in made)",
        )

    def query(self, text: str) -> list[tuple[object, ...]]:
        """Read the database."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(text).fetchall()

    def await_booked(self, number: int) -> None:
        """Wait until so many orders are booked."""

        def booked() -> None:
            rows = self.query("select count(*) from orders_order where booked_at is not null")
            assert rows == [(number,)], [
                self.log(name).read_text()[-2000:] for name in ("worker", "beat")
            ]

        eventually(booked, timeout=60.0)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with EmbeddedServer() as server:
        fleet = Fleet(tmp_path, server.url)
        fleet.start("worker", "worker", "--concurrency=1")
        yield fleet
        for process in fleet.started:
            process.stop()


def test_batches_flow_with_the_database_scheduler_and_stale_rows_do_no_harm(fleet: Fleet) -> None:
    beat = fleet.start("beat", "beat", "--scheduler", DATABASE)
    fleet.place(120)
    fleet.await_booked(120)
    rows = fleet.query(
        "select name, every, period from django_celery_beat_periodictask "
        "join django_celery_beat_intervalschedule as i on i.id = interval_id"
    )
    assert {name for name, _, _ in rows}.issuperset(ENTRIES)
    assert all(period == "seconds" and int(str(every)) >= 1 for _, every, period in rows)

    beat.stop()
    with closing(sqlite3.connect(fleet.database, timeout=20)) as connection, connection:
        connection.execute(
            "update django_celery_beat_periodictask set name = 'celery_batcher:gone:flush', "
            "args = '[\"gone\"]' where name = 'celery_batcher:warehouse:flush'"
        )
    fleet.start("beat", "beat", "--scheduler", DATABASE)
    fleet.place(30)
    fleet.await_booked(150)
    eventually(lambda: "no batcher 'gone' in this process" in fleet.log("worker").read_text())


def test_batches_flow_with_redbeat_and_with_a_second_one_that_waits(fleet: Fleet) -> None:
    for name in "beat", "spare":
        fleet.start(name, "beat", "--scheduler", "redbeat.RedBeatScheduler")
    fleet.place(120)
    fleet.await_booked(120)
