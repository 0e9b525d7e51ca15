"""Both stores behind one fixture: what holds for one holds for the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from builders import Bench, memory_bench, redis_bench
from celery_batcher.clock import ManualClock


@pytest.fixture(scope="session")
def redis_client(redis_server: object) -> Iterator[Redis]:
    """One client of the session's private server for all contract tests."""
    with Redis.from_url(redis_server.url) as client:  # type: ignore[attr-defined]
        yield client


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest, unique: str) -> Bench:
    """A store of each kind, empty, on a manual clock."""
    clock = ManualClock()
    if request.param == "memory":
        return memory_bench(clock)
    return redis_bench(clock, request.getfixturevalue("redis_client"), f"{unique}:")
