"""G10: the work per operation grows neither with the backlog nor with watchers and keys.

Work is counted, not timed: the commands that a Redis server runs, inside of scripts too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from builders import Bench, op, redis_bench
from celery_batcher.clock import ManualClock
from celery_batcher.store.base import Admission, Arrival, Released
from celery_batcher.store.options import WatcherOptions


class Meter:
    """Counts what a server is asked to do."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def commands(self, act: Callable[[], Any]) -> int:
        """Commands that the server runs during an act, those of scripts included."""
        before = self._total()
        act()
        return self._total() - before

    def _total(self) -> int:
        stats: dict[str, dict[str, int]] = self._client.info("commandstats")  # type: ignore[assignment]
        return sum(one["calls"] for name, one in stats.items() if name not in {"cmdstat_info"})


@pytest.fixture
def meter(redis_client: Redis) -> Meter:
    return Meter(redis_client)


@pytest.fixture
def make(redis_client: Redis, unique: str) -> Callable[[int, int, int], Bench]:
    """A bench with so many operations of so many watchers and keys waiting."""
    made: list[Bench] = []
    scratch = redis_bench(ManualClock(), redis_client, f"{unique}:scratch:")
    scratch.begin(WatcherOptions("w000", max_batch_size=10)).put_many("x" * 100, watcher="w000")
    flush(scratch)()  # the server has the scripts now
    intake(scratch)()

    def bench(waiting: int, watchers: int = 1, keys: int = 1) -> Bench:
        names = [f"w{at:03}" for at in range(watchers)]
        bench = redis_bench(ManualClock(), redis_client, f"{unique}:{len(made)}:")
        made.append(bench)
        bench.begin(*(WatcherOptions(name, max_batch_size=10) for name in names))
        for name in names:
            entries = [op(f"o{at:05}", key=f"k{at % keys:03}") for at in range(waiting // watchers)]
            for at in range(0, len(entries), 1000):
                bench.put(*entries[at : at + 1000], watcher=name)
        return bench

    return bench


def flush(bench: Bench) -> Callable[[], None]:
    """Ten batches of ten operations through release, publication, claim and settlement."""

    def act() -> None:
        for _ in range(10):
            batch = bench.release()
            assert isinstance(batch, Released)
            assert batch.operations == 10
            bench.store.published([batch.id])
            bench.claim(batch)
            bench.settle(batch)
        bench.store.expire(bench.token, bench.limits, "late", 256)
        bench.store.probe(bench.token, 1000, 256)
        bench.store.offer(bench.token, 256)

    return act


def intake(bench: Bench) -> Callable[[], None]:
    """Ten messages of a hundred operations from admission into the index."""

    def act() -> None:
        messages = [Admission(f"new{at}", "w000", 100, 100) for at in range(10)]
        bench.store.admit(messages, 10**9)
        entries = b"".join(op(f"n{at}") for at in range(100))
        arrivals = [Arrival(one.id, "w000", entries) for one in messages]
        bench.store.stage(bench.token, arrivals, "")
        bench.store.forget([one.id for one in messages])
        bench.store.take_turn(bench.token, 60_000, keep=True)

    return act


@pytest.mark.parametrize("act", [flush, intake])
def test_g10_the_work_does_not_grow_with_the_backlog(
    make: Callable[..., Bench], meter: Meter, act: Callable[[Bench], Callable[[], None]]
) -> None:
    few, many = (meter.commands(act(make(waiting))) for waiting in (1_000, 20_000))

    assert many == few


@pytest.mark.parametrize("act", [flush, intake])
def test_g10_the_work_does_not_grow_with_the_number_of_watchers(
    make: Callable[..., Bench], meter: Meter, act: Callable[[Bench], Callable[[], None]]
) -> None:
    few, many = (meter.commands(act(make(2_000, watchers))) for watchers in (2, 100))

    assert many <= few


@pytest.mark.parametrize("act", [flush, intake])
def test_g10_the_work_does_not_grow_with_the_number_of_keys(
    make: Callable[..., Bench], meter: Meter, act: Callable[[Bench], Callable[[], None]]
) -> None:
    few, many = (meter.commands(act(make(2_000, 1, keys))) for keys in (2, 100))

    assert many <= few


def test_g10_a_batch_of_many_keys_costs_a_few_commands_per_run_at_most(
    make: Callable[..., Bench], meter: Meter
) -> None:
    one, many = (meter.commands(flush(make(2_000, 1, keys))) for keys in (1, 100))

    assert many <= 2 * one


def test_g10_settling_what_is_done_never_reads_the_operations(
    make: Callable[..., Bench], meter: Meter
) -> None:
    bench = make(2_000)
    small, large = [], []
    for size, counted in ((10, small), (500, large)):
        bench.store.configure(bench.limits, [WatcherOptions("w000", max_batch_size=size)])
        batch = bench.released()
        bench.claim(batch)
        counted.append(meter.commands(lambda batch=batch: bench.settle(batch)))

    assert small == large


def test_g10_operations_move_in_blocks_and_not_one_by_one(
    make: Callable[..., Bench], meter: Meter
) -> None:
    bench = make(2_000)
    counted = []
    for size in (100, 500):
        bench.store.configure(bench.limits, [WatcherOptions("w000", max_batch_size=size)])
        counted.append(meter.commands(lambda: bench.claim(bench.released())))

    assert counted[1] - counted[0] == 4 * 3  # two to find a block, one to move it; four more


def test_g10_each_act_of_a_flush_is_one_round_trip(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(1_000)
    client = bench.store.client  # type: ignore[attr-defined]
    sent: list[str] = []
    real = client.execute_command

    def execute(*args: Any, **options: Any) -> Any:
        sent.append(args[0])
        return real(*args, **options)

    monkeypatch.setattr(client, "execute_command", execute)
    flush(bench)()

    assert sent == ["EVALSHA"] * 43


def test_a_store_says_its_time_and_whether_it_keeps_what_it_has(bench: Bench) -> None:
    facts = bench.store.facts()

    assert facts.now_ms == bench.clock.now_ms()
    assert (facts.eviction, facts.append_only) == ("noeviction", True)
