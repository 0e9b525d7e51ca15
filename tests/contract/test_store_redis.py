"""What only a real server can do to the store: be restarted, forget its scripts, tell the time."""

from __future__ import annotations

from uuid import uuid4

import pytest
from redis import Redis

from builders import Bench, look_at, op
from celery_batcher.errors import StoreUnavailableError
from celery_batcher.store.base import Admission, Arrival, Charge, Refused, Released, Settlement
from celery_batcher.store.options import WatcherOptions
from celery_batcher.store.redis import RedisStore
from celery_batcher.wire import open_blocks


@pytest.fixture
def bench(redis_client: Redis, unique: str) -> Bench:
    """A store on the server's own clock."""
    prefix = f"{unique}:"
    store = RedisStore(redis_client, url="redis://", batcher="b", resource="r", prefix=prefix)
    bench = Bench(store, None, lambda: look_at(redis_client, prefix))
    return bench.begin(WatcherOptions("w", max_batch_size=1), capacity=10, flush_ms=1000)


def settled(bench: Bench) -> Bench:
    """A store whose server is known and older than a hold."""
    client, res = bench.store.client, bench.store.keys.fixed[0]  # type: ignore[attr-defined]
    bench.put(op("first"), op("second"))
    bench.release("unused")
    client.hset(res, mapping={"guard_until": 0})
    return bench


def test_a_server_that_was_restarted_starts_nothing_for_a_hold(bench: Bench) -> None:
    settled(bench)
    batch = bench.released()
    client, res = bench.store.client, bench.store.keys.fixed[0]  # type: ignore[attr-defined]
    client.hset(res, "run_id", "anothers")  # as after a restart from a file

    answer = bench.release()

    assert isinstance(answer, Refused)
    assert answer.reason == "guard"
    assert 0 < answer.wait_ms <= bench.limits.hold_ms
    assert bench.claim(batch).state == "wait"
    assert bench.store.counts().open_batches >= 1


def test_a_server_that_was_restarted_starts_nothing_of_a_capped_key_for_a_hold(
    bench: Bench,
) -> None:
    bench.begin(WatcherOptions("w", key_capacity=10, key_window_ms=2000), capacity=None)
    client, meta = bench.store.client, bench.store.keys["meta"]  # type: ignore[attr-defined]
    bench.put(op("first", key="first"))
    bench.release("unused")
    client.hset(meta, mapping={"restarted_ms": 0})  # known from then on, and old
    bench.put(op("a", key="k"))
    batch = bench.released()
    bench.put(op("b", key="k"))
    client.hset(meta, "run_id", "anothers")

    assert bench.claim(batch).state == "wait"
    answer = bench.release()

    assert isinstance(answer, Refused)
    assert 0 < answer.wait_ms <= 2010
    bench.put(op("c"))
    assert bench.released().operations == 1  # it has no key


def test_nothing_is_guarded_on_a_server_that_runs_on(bench: Bench) -> None:
    settled(bench)

    batch = bench.release()

    assert isinstance(batch, Released)
    assert bench.claim(batch).state == "claimed"


def test_times_are_the_servers(bench: Bench) -> None:
    seconds, _ = bench.store.client.time()  # type: ignore[attr-defined]

    assert abs(bench.store.counts().now_ms / 1000 - seconds) < 60


def test_a_server_that_forgot_its_scripts_is_given_them_again(bench: Bench) -> None:
    settled(bench)
    bench.store.client.script_flush()  # type: ignore[attr-defined]

    assert isinstance(bench.release(), Released)


def test_outcomes_are_recorded_on_a_server_whose_memory_is_full(bench: Bench) -> None:
    settled(bench).put(op("third"))
    batch, other = bench.released(), bench.released()
    bench.claim(batch)
    bench.claim(other)
    waiting = bench.store.counts().waiting
    client = bench.store.client  # type: ignore[attr-defined]
    limit = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            bench.store.admit([Admission("m", "w", 1, 1)], 100)
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            bench.store.expire(bench.token, bench.limits, "late", 9)
        assert bench.store.charge(batch.id, "n", 1, Charge((5,), (("", (6,)),)))
        assert bench.store.commit(batch.id, "n", 1, Settlement("x"))
        assert bench.settle(batch)
        assert bench.settle(other, "r")
    finally:
        client.config_set("maxmemory", limit)

    counts = bench.store.counts()
    assert (counts.running, counts.dead, counts.waiting) == (0, 1, waiting + 1)


def test_no_key_lies_outside_of_the_prefix_and_the_tag_of_the_resource(
    bench: Bench, redis_client: Redis, unique: str
) -> None:
    before = {key for key in redis_client.keys("*") if not key.startswith(unique.encode())}
    settled(bench)
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "x")

    after = {key for key in redis_client.keys("*") if not key.startswith(unique.encode())}
    assert after == before
    assert all("{r}" in key for key in bench.snapshot())


def test_nothing_but_books_is_left_when_all_is_done(bench: Bench) -> None:
    settled(bench)
    if bench.claim("unused").state == "claimed":
        bench.settle("unused")
    bench.drain()

    assert bench.store.counts().done == 2
    while not bench.store.audit(uuid4().hex, 0).over:  # it forgets names of keys that are empty
        pass
    kinds = {key.split(":b:")[-1].split(":")[0] for key in bench.snapshot()}
    queues, ledger = {"q", "r", "t", "k", "n"}, {"batch", "blocks", "open", "claimed", "offers"}
    assert not kinds & (queues | ledger | {"ids"})


def leased(bench: Bench, *raw: str) -> str:
    """Messages under lease, numbered from 1; the key of their leases."""
    client = bench.store.client  # type: ignore[attr-defined]
    leases: str = bench.store.keys["leases"]  # type: ignore[attr-defined]
    client.hset(leases, mapping={"head": 1, "last": len(raw)})
    client.rpush(f"{leases}:messages", *raw)
    return leases


def test_leased_messages_are_staged_once_and_their_leases_go_with_them(bench: Bench) -> None:
    leases = leased(bench, "raw 1", "raw 2", "raw 3")
    arrivals = [Arrival("m1", "w", op("a"), "1"), Arrival("m2", "w", op("b"), "2")]

    for staged in (2, 0):
        assert bench.store.stage(bench.token, arrivals, leases).operations == staged
        assert bench.store.client.lrange(f"{leases}:messages", 0, -1) == [b"raw 3"]  # type: ignore[attr-defined]
    third = [Arrival("m3", "w", op("c"), "3")]
    assert bench.store.stage(bench.token, third, leases).operations == 1
    assert bench.store.forget([]) == 0
    assert bench.store.counts().waiting == 3


@pytest.mark.parametrize("numbers", ["2", "13"])
def test_leased_messages_are_staged_from_the_oldest_on_or_not_at_all(
    bench: Bench, numbers: str
) -> None:
    leases = leased(bench, "raw 1", "raw 2", "raw 3")
    arrivals = [Arrival(f"m{number}", "w", op("a"), number) for number in numbers]
    before = bench.snapshot()

    with pytest.raises(StoreUnavailableError, match="from the oldest on"):
        bench.store.stage(bench.token, arrivals, leases)

    assert bench.snapshot() == before


def test_an_id_that_is_no_text_is_free_again_once_it_is_done(bench: Bench) -> None:
    strange = op("a?b", registered=True).replace(b"a?b", b"a\xffb")
    bench.put(strange)
    bench.begin(capacity=None)
    batch = bench.released()
    opened = open_blocks(bench.claim(batch).blocks, "w", frozenset(["application/json"]))
    bench.settle(batch, forget=list(opened.registered.values()))

    assert bench.put(strange).duplicates == 0
