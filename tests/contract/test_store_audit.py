"""The audit: counters that have drifted are found, told, and set right; and no others."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from redis import Redis

from builders import BACKFILL, HIGH, NORMAL, Bench, op, redis_bench
from celery_batcher.clock import ManualClock
from celery_batcher.store.base import Admission, Arrival, Released, Settlement
from celery_batcher.store.counts import AuditStep, Difference
from celery_batcher.store.memory import MemoryStore
from celery_batcher.store.options import WatcherOptions
from celery_batcher.store.redis import RedisStore

Found = list[tuple[str, str]]

OF_WATCHER = {
    "waiting": "n",
    "waiting_cost": "cost",
    "waiting_high": "n0",
    "waiting_normal": "n1",
    "waiting_backfill": "n2",
    "open_batches": "on",
    "open_cost": "oc",
    "running_batches": "cn",
    "admitted_messages": "admitted",
}
TOGETHER = {"waiting_together": "ns"}
OF_RESOURCE = {"held": "held", "held_open": "open"}
OF_BATCHER = [
    "admitted",
    "admitted_cost",
    "waiting",
    "waiting_cost",
    "delayed",
    "delayed_cost",
    "open",
    "open_cost",
    "open_batches",
    "running",
    "running_cost",
    "running_batches",
]
"""Those that the memory store works out when asked."""

_ids = count()


def audit(bench: Bench, every_ms: int = 0) -> AuditStep:
    """One step."""
    return bench.store.audit(f"step{next(_ids)}", every_ms)


def one_pass(bench: Bench) -> list[Difference]:
    """A whole pass, or the rest of one."""
    found: list[Difference] = []
    while True:
        step = audit(bench)
        found += step.differences
        if step.over:
            return found


def drift(bench: Bench, name: str, watcher: str, by: int) -> None:
    """Let a counter be wrong."""
    store = bench.store
    if isinstance(store, RedisStore):
        res, meta = store.keys.fixed[0], store.keys["meta"]
        field = (OF_WATCHER | TOGETHER).get(name, name) if watcher else OF_RESOURCE.get(name, name)
        if name == "held_open_share":
            field = f"open:{store.keys.base}"
        key = store.keys[f"w:{watcher}"] if watcher else res if name.startswith("held") else meta
        store.client.hincrby(key, field, by)
        return
    assert isinstance(store, MemoryStore)
    owner: Any = store._state.watcher(watcher) if watcher else store._resource
    if name in ("waiting_high", "waiting_normal", "waiting_backfill"):
        owner.by_priority[list(OF_WATCHER).index(name) - 2] += by
        return
    if name in OF_RESOURCE:
        if name == "held":
            owner.limits[0].held += by
        else:
            owner.open[1] += by
        return
    own = {"open_batches": "open", "running_batches": "claimed", "admitted_messages": "admitted"}
    attribute = own.get(name, name)
    setattr(owner, attribute, getattr(owner, attribute) + by)


def busy(bench: Bench) -> Bench:
    """A store with something in every state."""
    bench.begin(WatcherOptions("w", max_batch_size=3), capacity=100, flush_ms=10_000)
    for priority in (HIGH, NORMAL, BACKFILL):
        for key in (None, "a", "b"):
            names = [f"{priority}{key}{at}" for at in range(4)]
            bench.put(*[op(name, cost=2, key=key, priority=priority) for name in names])
    for outcomes in ("rrd", "ggg"):
        bench.run(outcomes)
    bench.claim(halved := bench.released())
    assert bench.settle(halved, "h", delays={0: 7000})
    delayed = bench.released()
    bench.claim(delayed)
    assert bench.settle(delayed, "r", delays={0: 5000, 1: 6000})
    bench.claim(bench.released())
    bench.released()
    bench.run("hhh")
    bench.store.admit([Admission("m1", "w", 3, 5), Admission("m2", "v", 1, 1)], 1000)
    return bench


def tiny(bench: Bench, entries: int = 2, size: int = 10**6) -> Bench:
    """Let a step look at very little."""
    if isinstance(bench.store, RedisStore):
        bench.store.audit_bounds = (entries, size, 100)
    return bench


@pytest.fixture
def on_redis(redis_client: Redis, unique: str) -> Bench:
    return redis_bench(ManualClock(), redis_client, f"{unique}:")


def check_drift_is_found_and_repaired(bench: Bench, name: str, watcher: str) -> None:
    assert one_pass(bench) == []
    before = bench.store.counts()
    drift(bench, name, watcher, 3)

    for repaired in (False, False, True):
        (found,) = one_pass(bench)
        assert (found.name, found.watcher, found.repaired) == (name, watcher, repaired)
        assert found.counted == found.recorded + 3

    assert one_pass(bench) == []
    counts = bench.store.counts()
    assert counts.repaired == 1
    assert (counts.unsettled_cost, counts.buffered) == (before.unsettled_cost, before.buffered)
    assert counts.watchers == before.watchers
    assert counts.held == before.held


@pytest.mark.parametrize("name", OF_WATCHER)
def test_a_wrong_counter_of_a_watcher_is_found_twice_and_then_repaired(
    bench: Bench, name: str
) -> None:
    check_drift_is_found_and_repaired(tiny(busy(bench)), name, "w")


@pytest.mark.parametrize("name", OF_RESOURCE)
def test_a_wrong_sum_of_holds_is_found_twice_and_then_repaired(bench: Bench, name: str) -> None:
    check_drift_is_found_and_repaired(tiny(busy(bench)), name, "")


@pytest.mark.parametrize("name", [*OF_BATCHER, "held_open_share"])
def test_a_wrong_counter_of_the_batcher_is_found_twice_and_then_repaired(
    on_redis: Bench, name: str
) -> None:
    check_drift_is_found_and_repaired(tiny(busy(on_redis)), name, "")


@pytest.mark.parametrize("name", ["delayed", "waiting_together"])
def test_a_wrong_counter_that_memory_does_not_have_is_repaired_as_well(
    on_redis: Bench, name: str
) -> None:
    check_drift_is_found_and_repaired(tiny(busy(on_redis)), name, "w")


def test_every_kind_of_server_walks_alike(flavour_url: str) -> None:
    with Redis.from_url(flavour_url) as client:
        bench = tiny(busy(redis_bench(ManualClock(), client, "audit:")))
        drift(bench, "waiting", "w", 2)
        found = [one for _ in range(4) for one in one_pass(bench)]

    assert [(one.name, one.repaired) for one in found] == [
        ("waiting", False),
        ("waiting", False),
        ("waiting", True),
    ]


def test_a_difference_that_changes_or_goes_away_is_not_repaired(bench: Bench) -> None:
    busy(bench)
    for by in (3, 0, 1, 0, -4, 3, 0, 1):  # never the same difference in three passes on end
        drift(bench, "waiting_cost", "w", by)
        assert not any(found.repaired for found in one_pass(bench))

    assert bench.store.counts().repaired == 0


def test_wrong_counters_that_hid_operations_show_them_once_they_are_repaired(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2))
    bench.put(op("a"), op("b"), op("c", key="k"), op("d", key="k"))
    drift(bench, "waiting", "w", -2)
    drift(bench, "waiting_normal", "w", -2)
    bench.released()
    assert bench.refused() == "empty"

    for _ in range(3):
        one_pass(bench)

    assert bench.released().operations == 2


def test_a_pass_begins_no_sooner_than_it_is_wanted(bench: Bench) -> None:
    busy(bench)
    drift(bench, "waiting", "w", 1)
    step = audit(bench, 1000)
    while not step.over:
        assert step.wait_ms == 0
        step = audit(bench, 1000)
    assert step.wait_ms == 1000
    assert step.wrong == 1

    bench.clock.advance(0.4)
    waiting = audit(bench, 1000)
    assert (waiting.wait_ms, waiting.over, waiting.differences) == (600, False, ())

    bench.clock.advance(0.6)
    assert audit(bench, 1000).compared > 0


def test_a_step_looks_at_a_bounded_number_of_entries_and_bytes(on_redis: Bench) -> None:
    bench = on_redis.begin()
    bench.put_many([f"o{at}" for at in range(10_000)])  # 100 blocks, each of some 5 kB

    for bounds, least in (((10, 10**6, 100), 10), ((1000, 50_000, 100), 8)):
        bench.store.audit_bounds = bounds  # type: ignore[attr-defined]
        steps = 1
        while not audit(bench).over:
            steps += 1
        assert least <= steps <= 4 * least


def test_more_batches_or_holds_than_one_look_may_take_are_left_out_and_that_is_said(
    on_redis: Bench,
) -> None:
    bench = busy(on_redis)
    for name in ("open", "held"):
        drift(bench, name, "", 1)
    bench.store.audit_bounds = (100, 10**6, 0)  # type: ignore[attr-defined]

    step = audit(bench)

    assert step.skipped == (
        "more batches than one look may take",
        "more holds than one look may take",
    )
    assert step.differences == ()


def test_operations_that_come_back_about_the_place_of_the_walk_are_counted_once(
    on_redis: Bench,
) -> None:
    bench = tiny(on_redis.begin(WatcherOptions("w", max_batch_size=3)), 1)
    bench.put(*[op(f"o{at}", cost=2**at) for at in range(9)])
    first, second, third = (bench.released() for _ in range(3))
    for batch in (first, second, third):
        bench.claim(batch)
    bench.settle(second, "g")
    walk = bench.store.keys["walk"]  # type: ignore[attr-defined]
    client = bench.store.client  # type: ignore[attr-defined]
    while client.hmget(walk, "region", "at") != [b"r", b"2"]:
        assert not audit(bench).over

    bench.settle(first, "g")
    bench.settle(third, "g")

    assert one_pass(bench) == []
    assert bench.store.counts().waiting == 9


def test_groups_that_come_and_go_about_the_place_of_the_walk_are_counted_once(
    on_redis: Bench,
) -> None:
    bench = tiny(on_redis.begin(WatcherOptions("w", max_batch_size=4)), 1)
    bench.put(*[op(f"o{at}", cost=2**at) for at in range(12)])
    first, second, third = (bench.released() for _ in range(3))
    for batch in (first, second, third):
        bench.claim(batch)
    bench.settle(second, "h")
    walk = bench.store.keys["walk"]  # type: ignore[attr-defined]
    client = bench.store.client  # type: ignore[attr-defined]
    while client.hmget(walk, "region", "at") != [b"s", b"1"]:
        assert not audit(bench).over

    bench.settle(first, "h")
    bench.settle(third, "h")
    bench.released()

    assert one_pass(bench) == []
    assert bench.store.counts().waiting == 10


U, V = "u" * 70, "v" * 70  # so long that the server does not give their books in one piece


class Load:
    """Everything that can happen to a store, at random."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.chance = bench, random.Random(seed)
        self.store = bench.store
        self.numbers = count()
        self.batches: list[str] = []
        self.claims: list[tuple[str, int]] = []
        self.messages: list[tuple[str, str, bytes]] = []
        self.options = [
            WatcherOptions(U, max_batch_size=7, max_attempts=3),
            WatcherOptions(V, max_batch_size=3, batch_by_key=True),
        ]
        bench.begin(*self.options, capacity=200, flush_ms=10_000, max_open_batches=6)
        self.acts: list[Callable[[], Any]] = [
            *[self.admit, self.stage] * 3,
            *[self.release] * 4,
            *[self.claim, self.settle] * 3,
            *[self.work, self.commit, self.expire, self.probe, self.redrive, self.purge],
            *[self.advance] * 3,
        ]

    def act(self) -> None:
        self.chance.choice(self.acts)()

    def admit(self) -> None:
        watcher, id = self.chance.choice([U, V]), f"m{next(self.numbers)}"
        entries = [
            op(
                f"o{next(self.numbers)}",
                cost=self.chance.choice([0, 1, 3, 40]),
                key=self.chance.choice([None, "a", "b", "ab", "é", "z"]),
                priority=self.chance.randrange(3),
                batchable=self.chance.random() < 0.9,
            )
            for _ in range(self.chance.choice([1, 2, 30]))
        ]
        self.store.admit([Admission(id, watcher, len(entries), self.chance.randrange(50))], 10**6)
        self.messages.append((id, watcher, b"".join(entries)))

    def stage(self) -> None:
        if not self.messages:
            return
        at = self.chance.randrange(len(self.messages))
        id, watcher, entries = self.messages.pop(at)
        if self.chance.random() < 0.1:
            self.store.withdraw([id])
        else:
            self.store.stage("turn-1", [Arrival(id, watcher, entries)], "")

    def release(self) -> None:
        answer = self.bench.release()
        if isinstance(answer, Released):
            self.batches.append(answer.id)

    def claim(self) -> None:
        if not self.batches:
            return
        id = self.chance.choice(self.batches)
        claim = self.bench.claim(id, ms=self.chance.choice([100, 60_000]))
        if claim.state != "wait":
            self.batches.remove(id)
        if claim.state == "claimed":
            (n,) = [
                one.operations
                for one in [self.store.release("turn-1", id, self.bench.limits)]
                if isinstance(one, Released)
            ]
            self.claims.append((id, n))

    def _outcomes(self, letters: str) -> tuple[str, int, Settlement] | None:
        if not self.claims:
            return None
        id, n = self.claims.pop(self.chance.randrange(len(self.claims)))
        delays = {at: self.chance.choice([1, 50, 3000]) for at in range(0, n, 2)}
        outcomes = "".join(self.chance.choice(letters) for _ in range(n))
        return id, n, Settlement(outcomes, "why", delays=delays)

    def settle(self) -> None:
        if chosen := self._outcomes(self.chance.choice(["ddrgxh", "g", "r", "h", "hg", "a"])):
            self.store.settle(chosen[0], "n", chosen[2])

    def work(self) -> None:
        """A batch on its whole way, which chance seldom finds."""
        before = len(self.batches)
        self.release()
        if len(self.batches) > before:
            self.claim()
            self.settle()

    def commit(self) -> None:
        if chosen := self._outcomes("drgxh---"):
            id, _, settlement = chosen
            if self.store.commit(id, "n", next(self.numbers) + 1, settlement):
                left = settlement.outcomes.count("-")
                self.claims.append((id, left))

    def expire(self) -> None:
        self.store.expire("turn-1", self.bench.limits, "late", 2)

    def probe(self) -> None:
        self.store.probe("turn-1", 500, 2)

    def redrive(self) -> None:
        self.store.redrive(U, [one.number for one in self.store.dead(U, 5)])

    def purge(self) -> None:
        self.store.purge(V, [one.number for one in self.store.dead(V, 5)])

    def advance(self) -> None:
        self.bench.clock.advance(self.chance.choice([0.001, 0.05, 1.1]))


@pytest.mark.parametrize("seed", range(4))
def test_no_difference_is_found_where_none_is_whatever_goes_on_meanwhile(
    bench: Bench, seed: int
) -> None:
    load, passes = Load(bench, seed), 0
    for _ in range(700):
        tiny(bench, load.chance.choice([1, 2, 5, 40]), load.chance.choice([50, 10**6]))
        load.act()
        step = audit(bench)
        assert step.differences == ()
        passes += step.over

    assert passes >= 5
    assert bench.store.counts().dead or bench.store.counts().done


@pytest.mark.parametrize(
    ("name", "watcher"),
    [("waiting", U), ("waiting_cost", V), ("waiting_high", U), ("admitted_messages", V)],
)
def test_one_wrong_counter_is_found_and_no_other_whatever_goes_on_meanwhile(
    bench: Bench, name: str, watcher: str
) -> None:
    load = Load(bench, 9)
    for _ in range(300):
        load.act()
    tiny(bench, 3)
    one_pass(bench)
    found: Found = []
    drift(bench, name, watcher, 5)
    repaired = False
    for _ in range(2000):
        load.act()
        step = audit(bench)
        assert all(one.counted == one.recorded + 5 for one in step.differences)
        found += [(one.name, one.watcher) for one in step.differences]
        repaired = repaired or any(one.repaired for one in step.differences)
        if repaired:
            break

    assert repaired
    assert found == [(name, watcher)] * 3
    assert one_pass(bench) == []
