"""Checks on real servers and workers: what they are told is what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from celery_batcher import Batcher, StoreUnavailableError
from celery_batcher.embedded import EmbeddedServer
from celery_processes import Fleet
from connected import close


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server whose configuration the tests change, and put back."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedServer) -> Iterator[Any]:
    """Its administrator; policy and persistence are as they should be after each test."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        yield client
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")


def found(batcher: Batcher) -> dict[str, str]:
    """Codes and messages of what the checks find that ask no worker."""
    problems = batcher._checker.local()
    return {one.code.removeprefix("celery_batcher."): one.message for one in problems}


@pytest.fixture
def make(unique: str) -> Iterator[Any]:
    """Makes batchers on a broker and store."""
    made: list[Batcher] = []

    def batcher(broker: str, **conf: Any) -> Batcher:
        app = Celery(unique, broker=broker, set_as_current=False)
        app.conf.update(conf)
        made.append(Batcher(f"{unique}{len(made)}", app=app))
        return made[-1]

    yield batcher
    for one in made:
        close(one.connections)
        one.app.close()


def test_a_server_as_it_should_be_has_no_problems(
    server: EmbeddedServer, admin: Any, make: Any
) -> None:
    assert found(make(server.url)) == {}


def test_a_server_that_evicts_and_does_not_persist_is_named(
    server: EmbeddedServer, admin: Any, make: Any
) -> None:
    batcher = make(server.url)
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("appendonly", "no")

    problems = found(batcher)

    assert sorted(problems) == ["E001", "W001"]
    assert "the store at redis://" in problems["E001"]
    assert "allkeys-lru" in problems["E001"]


def test_a_broker_of_its_own_is_checked_too(
    server: EmbeddedServer, admin: Any, make: Any, unique: str
) -> None:
    admin.config_set("maxmemory-policy", "volatile-ttl")

    problems = found(make(server.url, batcher_store_url=f"memory://{unique}"))

    assert sorted(problems) == ["W002"]
    assert "the broker at redis://" in problems["W002"]


def test_a_server_that_may_not_be_asked_is_unknown_and_no_error(
    server: EmbeddedServer, admin: Any, make: Any
) -> None:
    admin.execute_command(
        "ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-info", "-config"
    )
    url = server.url.replace("redis://", "redis://limited:pw@")

    problems = found(make(url))

    assert sorted(problems) == ["I001"]
    assert "pw" not in problems["I001"]


def test_checks_of_a_store_that_is_away_say_so(make: Any) -> None:
    batcher = make("redis://127.0.0.1:1/0")

    with pytest.raises(StoreUnavailableError):
        batcher.check()


def test_what_workers_consume_and_run_is_asked_of_them(
    server: EmbeddedServer, admin: Any, unique: str, tmp_path: Path
) -> None:
    batchers = {unique: {"watchers": {"fast": {}, "slow": {"queue": "slow"}}}}
    conf = {"batcher_control_queue": "control"}
    with Fleet(tmp_path, broker=server.url, batchers=batchers, conf=conf) as fleet:
        lane = f"celery_batcher.{unique}.fast"
        fleet.worker(pool="threads", queues=f"celery,{lane}")
        problems = fleet.project.batchers[unique].check(timeout=2.0)

    messages = {one.code.removeprefix("celery_batcher."): one.message for one in problems}
    assert sorted(messages) == ["E002", "I002", "W008", "W009"]
    assert "'control'" in messages["W008"]
    assert "'slow'" in messages["W009"]
    assert lane in messages["E002"]
