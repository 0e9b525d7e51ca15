"""Results of operations, where a watcher keeps them: on Redis and in a database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery.result import AsyncResult
from redis import Redis

from by_hand import ByHand
from celery_batcher import Batch, ClaimExpiredError, OperationFailedError, Watcher
from celery_batcher.claim import owner
from celery_processes import Fleet
from eventually import eventually

KEPT = {"ignore_result": False, "bisect": False}


def by_hand_on(backend: str, *fixtures: str) -> ByHand:
    conf = {"result_backend": backend, "result_extended": True}
    by_hand = ByHand(*fixtures, conf=conf)
    assert by_hand.app.backend  # imported now: in a flush it would be too late for its batch
    return by_hand


@pytest.fixture(params=["redis", "database"])
def by_hand(
    request: pytest.FixtureRequest, redis_url: str, unique: str, key_prefix: str, tmp_path: Any
) -> Iterator[ByHand]:
    """A batcher whose app has a result backend."""
    backend = redis_url if request.param == "redis" else f"db+sqlite:///{tmp_path}/results.sqlite"
    by_hand = by_hand_on(backend, redis_url, unique, key_prefix)
    yield by_hand
    by_hand.close()


def handle(by_hand: ByHand, handler: Callable[[Batch], Any]) -> None:
    """Let a handler have the next batch."""
    by_hand.handlers["work"] = handler
    (batch,) = eventually(by_hand.flush)
    with suppress(LookupError):
        by_hand.run(batch)


def result(by_hand: ByHand, id: str) -> AsyncResult:
    """An operation's result, as anybody else asks for it."""
    return by_hand.app.AsyncResult(id)


def test_the_result_of_an_operation_is_what_its_handler_gave(by_hand: ByHand) -> None:
    work = by_hand.watcher(**KEPT)
    given, none, failed = (work.enqueue({}) for _ in range(3))

    def handler(batch: Batch) -> None:
        batch.done(batch[0], {"rows": 3})
        batch.fail(batch[2], "no such row")

    handle(by_hand, handler)

    assert result(by_hand, given).get(timeout=5) == {"rows": 3}
    assert (result(by_hand, none).state, result(by_hand, none).get(timeout=5)) == ("SUCCESS", None)
    assert result(by_hand, failed).state == "FAILURE"
    with pytest.raises(OperationFailedError, match="no such row"):
        result(by_hand, failed).get(timeout=5)
    assert result(by_hand, given).name == "work"


def test_an_error_is_tried_again_and_in_the_end_a_failure_with_its_traceback(
    by_hand: ByHand,
) -> None:
    work = by_hand.watcher(max_attempts=2, **KEPT)
    id = work.enqueue({})

    def handler(batch: Batch) -> None:
        raise LookupError("no such table")

    handle(by_hand, handler)
    assert result(by_hand, id).state == "RETRY"
    handle(by_hand, handler)

    ended = result(by_hand, id)
    assert (ended.state, ended.retries) == ("FAILURE", 1)
    assert "in handler" in str(ended.traceback)
    with pytest.raises(LookupError, match="no such table"):
        ended.get(timeout=5)


def test_committed_operations_have_their_results_before_the_handler_ends(by_hand: ByHand) -> None:
    work = by_hand.watcher(**KEPT)
    first, second = work.enqueue({}), work.enqueue({})

    def handler(batch: Batch) -> None:
        batch.done(batch[0], 1)
        batch.commit()
        assert result(by_hand, first).get(timeout=5) == 1
        assert result(by_hand, second).state == "PENDING"

    handle(by_hand, handler)

    assert result(by_hand, second).state == "SUCCESS"


def test_a_late_outcome_leaves_no_result(by_hand: ByHand) -> None:
    work = by_hand.watcher(**KEPT)
    id = work.enqueue({})

    def late(batch: Batch) -> None:
        batch.done(batch[0], "too late")
        by_hand.batcher.store.abandon(batch.id, owner(os.getpid()), "lost")

    with pytest.raises(ClaimExpiredError):
        handle(by_hand, late)

    assert result(by_hand, id).state == "PENDING"


def test_nothing_is_stored_by_default(by_hand: ByHand) -> None:
    id = by_hand.watcher().enqueue({})

    handle(by_hand, lambda batch: batch.done(batch[0], "dropped"))

    assert result(by_hand, id).state == "PENDING"


# Redis


@pytest.fixture
def on_redis(redis_url: str, unique: str, key_prefix: str) -> Iterator[ByHand]:
    by_hand = by_hand_on(redis_url, redis_url, unique, key_prefix)
    yield by_hand
    by_hand.close()


def calls(client: Redis) -> dict[str, int]:
    """How often the server was sent each command."""
    stats: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


def test_the_results_of_a_batch_take_two_round_trips_and_expire(on_redis: ByHand) -> None:
    work: Watcher = on_redis.watcher(**KEPT)
    ids = [f"{on_redis.batcher.name}-{at}" for at in range(50)]
    rows = iter(ids)
    work.enqueue_many(ids, id=lambda row: next(rows))
    before = calls(on_redis.client)

    handle(on_redis, lambda batch: None)

    after = calls(on_redis.client)
    assert after["mget"] - before.get("mget", 0) == 1
    assert after.get("get", 0) == before.get("get", 0)
    assert after["publish"] - before.get("publish", 0) == 50
    assert {result(on_redis, id).state for id in ids} == {"SUCCESS"}
    assert on_redis.client.ttl(f"celery-task-meta-{ids[0]}") > 80_000


def test_a_result_that_cannot_be_stored_is_a_failure_and_the_others_are_kept(
    on_redis: ByHand,
) -> None:
    work = on_redis.watcher(**KEPT)
    bad, good = work.enqueue({}), work.enqueue({})

    def handler(batch: Batch) -> None:
        batch.done(batch[0], object())
        batch.done(batch[1], "good")

    handle(on_redis, handler)

    assert result(on_redis, good).get(timeout=5) == "good"
    with pytest.raises(OperationFailedError, match="cannot be stored"):
        result(on_redis, bad).get(timeout=5)
    assert on_redis.batcher.status().done == 2


def test_whoever_waits_for_a_result_is_woken(on_redis: ByHand) -> None:
    id = on_redis.watcher(**KEPT).enqueue({})
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(result(on_redis, id).get(timeout=30)))
    waiting.start()
    channel = f"celery-task-meta-{id}"
    eventually(lambda: dict(on_redis.client.pubsub_numsub(channel))[channel.encode()] == 1)

    handle(on_redis, lambda batch: batch.done(batch[0], "woken"))

    waiting.join(30)
    assert got == ["woken"]


def test_a_backend_that_is_away_is_logged_and_undoes_nothing(
    redis_url: str, unique: str, key_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    conf = {"result_backend_transport_options": {"retry_policy": {"max_retries": 0}}}
    by_hand = ByHand(
        redis_url, unique, key_prefix, conf={"result_backend": "redis://127.0.0.1:1/0", **conf}
    )
    by_hand.watcher(**KEPT).enqueue({})

    handle(by_hand, lambda batch: None)

    assert by_hand.batcher.status().done == 1
    assert "the results of 1 operations are lost" in caplog.text
    by_hand.close()


# Workers that are killed


@pytest.fixture
def fleet(redis_server: Any, tmp_path: Path) -> Iterator[Fleet]:
    """A worker whose operations have one attempt of a second; the test's process flushes."""
    name, url = f"t{uuid4().hex[:12]}", f"{redis_server.url[:-1]}4"
    conf = {"task_default_queue": name, "batcher_key_prefix": f"{name}:", "result_backend": url}
    watcher = {"max_attempts": 1, "max_operation_time": 1.0, "ignore_result": False}
    batchers = {name: {"options": {"claim_grace": 0.5}, "watchers": {"work": watcher}}}
    with Fleet(tmp_path, broker=url, batchers=batchers, conf=conf) as fleet:
        fleet.project.batchers[name].start()
        fleet.worker(queues=name)
        yield fleet


def test_a_killed_child_leaves_a_failure_to_whoever_waits(fleet: Fleet) -> None:
    id = fleet.project.watchers["work"].enqueue({"n": 1, "do": ["die"]})

    with pytest.raises(OperationFailedError, match="the process of its handler was lost"):
        fleet.project.app.AsyncResult(id).get(timeout=30)


def test_a_killed_worker_leaves_a_failure_when_its_claim_is_over(fleet: Fleet) -> None:
    work, (worker,) = fleet.project.watchers["work"], fleet.processes
    id = work.enqueue({"n": 1, "do": ["stuck"]})
    eventually(lambda: fleet.journal.starts("work"))

    worker.kill()

    with pytest.raises(OperationFailedError, match="did not settle before its deadline"):
        fleet.project.app.AsyncResult(id).get(timeout=30)
    assert [letter.id for letter in work.dead_letters] == [id]
