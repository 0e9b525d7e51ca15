"""What operations really cost: handlers say so, and the fleet settles at the capacity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import START_MS, Bench, MicroClock, memory_bench, op
from celery_batcher import (
    Batch,
    ClaimExpiredError,
    InvalidCostError,
    Operation,
    OutcomeError,
    ProvisionedResource,
    StoreUnavailableError,
)
from celery_batcher.charges import Charges
from celery_batcher.claim import Claimant
from celery_batcher.costs import PLAIN, spoken
from celery_batcher.events import Listeners
from celery_batcher.store.base import Charge
from celery_batcher.store.options import Limit, Limits, ResourceOptions, WatcherOptions
from fleet import Fleet
from in_memory import InMemory

pytestmark = pytest.mark.long

SECOND, MS = 1_000_000, 1000
VECTOR = ("requests", "tokens")


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    app = Celery("charges", broker="memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def bench() -> Bench:
    bench = memory_bench(MicroClock())
    return bench.begin(WatcherOptions("w", max_batch_size=3), capacity=1000, flush_ms=1000)


@pytest.fixture
def run(app: Celery, bench: Bench) -> Callable[..., dict[str, Any]]:
    """Release the next batch and run it with a handler."""

    def run(handler: Callable[[Batch], Any], **options: Any) -> dict[str, Any]:
        claimant = Claimant(
            app=app,
            store=bench.store,
            clock=bench.clock,
            limits=bench.limits,
            operation_time=30.0,
            watcher="w",
            handler=handler,
            listeners=Listeners(),
            emit_batch=False,
        )
        return replace(claimant, **options).run(bench.released().id)

    return run


class Troubled:
    """A store whose charges meet what a test plans, after they were recorded."""

    def __init__(self, store: Any, *troubles: BaseException) -> None:
        self._store, self.troubles = store, list(troubles)
        self.charges: list[tuple[int, Charge]] = []

    def __getattr__(self, act: str) -> Any:
        return getattr(self._store, act)

    def charge(self, id: str, nonce: str, number: int, charge: Charge) -> bool:
        self.charges.append((number, charge))
        answer = self._store.charge(id, nonce, number, charge)
        if self.troubles:
            raise self.troubles.pop(0)
        return bool(answer)


def standing(bench: Bench) -> tuple[int, int]:
    limit = bench.store.counts().limits[0]
    return limit.held, limit.debt


# What a handler says


def test_less_is_free_at_once_and_more_is_owed(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100), op("b", cost=100), op("c", cost=100))
    seen: list[tuple[int, int]] = []

    def handle(batch: Batch) -> None:
        batch.charge(batch[0], 30)
        seen.append(standing(bench))
        batch.charge(batch[1], 500)
        seen.append(standing(bench))

    answer = run(handle)

    assert seen == [(230, 0), (230, 400)]
    assert answer == {"done": 3, "cost": 300, "charged": 630}


def test_many_are_charged_in_one_call_and_the_newest_counts(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100), op("b", cost=100))
    store = Troubled(bench.store)

    def handle(batch: Batch) -> None:
        batch.charge_many((one, 500) for one in batch)
        batch.charge_many([(batch[0], 700), (batch[0], 90)])
        batch.charge_many([])

    answer = run(handle, store=store)

    assert [(number, one.differences) for number, one in store.charges] == [
        (1, (800,)),
        (2, (390,)),
    ]
    assert standing(bench) == (200, 390)
    assert answer["charged"] == 590


def test_a_charge_decides_nothing_and_may_follow_a_commit(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100), op("b", cost=100))

    def handle(batch: Batch) -> None:
        batch.fail(batch[0], "no")
        batch.commit()
        batch.charge(batch[0], 40)
        batch.charge(batch[1], 50)

    assert run(handle) == {"done": 1, "failed": 1, "cost": 200, "charged": 90}
    assert standing(bench) == (90, 0)


@pytest.mark.parametrize("cost", [-1, 1.5, True, None, "1", {"tokens": 1}, 2**53])
def test_what_is_no_cost_is_refused_and_nothing_counts(bench: Bench, run: Any, cost: Any) -> None:
    bench.put(op("a", cost=100), op("b", cost=100))

    def handle(batch: Batch) -> None:
        with pytest.raises(InvalidCostError):
            batch.charge_many([(batch[0], 5), (batch[1], cost)])

    assert "charged" not in run(handle)
    assert standing(bench) == (200, 0)


def test_an_operation_of_another_batch_is_refused(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100))

    def handle(batch: Batch) -> None:
        with pytest.raises(OutcomeError, match="operation z is not of this batch"):
            batch.charge(batch[0]._replace(id="z"), 5)

    run(handle)
    assert standing(bench) == (100, 0)


def test_a_batch_made_by_hand_checks_costs_and_charges_nothing() -> None:
    operation = Operation("a", "w", 5, None)
    batch = Batch("b", "w", (operation,), 1.0, MicroClock())

    batch.charge(operation, 7)
    with pytest.raises(InvalidCostError):
        batch.charge(operation, -7)


def test_a_charge_is_sent_until_the_store_has_it_and_counts_once(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100))
    store = Troubled(bench.store, *[StoreUnavailableError("away")] * 3)

    run(lambda batch: batch.charge(batch[0], 500), store=store)

    assert [number for number, _ in store.charges] == [1] * 4
    assert standing(bench) == (100, 400)


def test_a_soft_limit_that_comes_meanwhile_is_raised_once_it_is_recorded(
    bench: Bench, run: Any
) -> None:
    bench.put(op("a", cost=100))
    store = Troubled(bench.store, SoftTimeLimitExceeded())

    with pytest.raises(SoftTimeLimitExceeded):
        run(lambda batch: batch.charge(batch[0], 500), store=store)

    assert standing(bench) == (100, 400)


def test_a_charge_that_never_arrived_is_made_good_by_the_next(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100), op("b", cost=100))

    class Lossy(Troubled):
        def charge(self, id: str, nonce: str, number: int, charge: Charge) -> bool:
            if number == 1:
                raise ValueError("lost before it was sent")
            return super().charge(id, nonce, number, charge)

    def handle(batch: Batch) -> None:
        with pytest.raises(ValueError, match="lost"):
            batch.charge(batch[0], 300)
        batch.charge(batch[1], 50)

    run(handle, store=Lossy(bench.store))

    assert standing(bench) == (200, 150)


def test_a_claim_that_has_ended_is_charged_nothing(bench: Bench, run: Any) -> None:
    bench.put(op("a", cost=100))

    def handle(batch: Batch) -> None:
        bench.clock.advance(60)
        bench.store.expire(bench.token, bench.limits, "late", 9)
        batch.charge(batch[0], 500)

    with pytest.raises(ClaimExpiredError):
        run(handle)

    assert bench.store.counts().limits[0].debt == 0


def test_dimensions_are_charged_each(bench: Bench, run: Any) -> None:
    vectors = bench.reopen("b", "vectors")  # type: ignore[misc]
    vectors.begin(
        capacity=10,
        others=(Limit(2, 1000, 1000),),
        resource=ResourceOptions(dimensions=VECTOR),
        flush_ms=1000,
    )
    vectors.put(op("a", cost=1, further=[400]))
    batch = vectors.released()

    def handle(batch: Batch) -> None:
        assert batch.cost == {"requests": 1, "tokens": 400}
        with pytest.raises(InvalidCostError, match="one number"):
            batch.charge(batch[0], 812)
        batch.charge(batch[0], {"tokens": 812, "requests": 1})

    bench.released = lambda: batch  # type: ignore[method-assign]
    answer = run(handle, store=vectors.store, limits=vectors.limits, dimensions=VECTOR)

    assert answer == {
        "done": 1,
        "cost": {"requests": 1, "tokens": 400},
        "charged": {"requests": 1, "tokens": 812},
    }
    assert (batch.cost, batch.further) == (1, (400,))
    assert [(one.held, one.debt) for one in vectors.store.counts().limits] == [(1, 0), (400, 412)]


def test_without_a_resource_a_charge_changes_nothing(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(lambda batch: batch.charge(batch[0], 500))
    write.enqueue(1)
    site.tick(batcher)

    assert site.results == [{"done": 1, "cost": 1, "charged": 500}]


@given(
    said=st.lists(st.integers(0, 1000), min_size=1, max_size=5),
    actual=st.lists(st.dictionaries(st.integers(0, 4), st.integers(0, 5000)), max_size=10),
)
def test_the_differences_are_those_of_the_newest_charges(
    said: list[int], actual: list[dict[int, int]]
) -> None:
    charges, newest = Charges(said, PLAIN), dict(enumerate(said))
    for one in actual:
        of_batch = {at: cost for at, cost in one.items() if at < len(said)}
        newest |= of_batch

        differences = charges.add({at: (cost,) for at, cost in of_batch.items()})

        assert differences == (sum(newest.values()) - sum(said),)
        assert charges.total() == sum(newest.values())
        assert differences[0] >= -sum(said)


def test_costs_read_well_in_flower(site: InMemory) -> None:
    batcher = site.batcher(
        flush_mode="tick",
        rate_limiter=ProvisionedResource({"requests": 10, "tokens": 9000}),
    )
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue_many([1, 2], cost={"requests": 1, "tokens": 400})
    batcher.tick()

    ((_, _, headers),) = site.tasks()

    assert headers["argsrepr"] == "(2 operations, cost 2 requests, 800 tokens, oldest 0.0 s)"
    assert spoken((5,), PLAIN) == "5"
    assert spoken((5, 6), PLAIN) == "5, 6"


# What comes of it


def test_a_turn_flushes_again_soon_while_operations_cost_less_than_was_said(
    site: InMemory,
) -> None:
    batcher = site.batcher(flush_interval=0.5, rate_limiter=ProvisionedResource(1000))
    started: list[float] = []

    def handle(batch: Batch) -> None:
        started.append(site.clock.monotonic())
        batch.charge(batch[0], 1)

    write = batcher.watcher(name="write", max_batch_size=1)(handle)
    write.enqueue_many(range(20), cost=900)
    batcher.store.want(1500)
    real = site.clock.wait

    def wait(event: Any, seconds: float) -> bool:
        site.work()
        return real(event, max(0.001, seconds))

    site.clock.wait = wait  # type: ignore[method-assign]

    batcher._turn._run()

    assert len(started) >= 10
    gaps = sorted(later - earlier for earlier, later in pairwise(started))
    assert gaps[len(gaps) // 2] == pytest.approx(0.01, abs=0.005)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    capacity=st.integers(50, 1000),
    flush_ms=st.sampled_from([30, 100, 250]),
    lag_ms=st.sampled_from([0, 10, 400]),
    work_ms=st.sampled_from([1, 50, 2000]),
    batchers=st.integers(1, 2),
)
def test_g3_while_nothing_costs_more_than_was_said_no_window_has_more_than_the_capacity(
    seed: int, capacity: int, flush_ms: int, lag_ms: int, work_ms: int, batchers: int
) -> None:
    fleet = Fleet(
        seed,
        Limits(capacity=capacity, flush_ms=flush_ms),
        request_us=(0, 300),
        reply_us=(0, 900),
        lag_us=(0, lag_ms * MS),
        work_us=(0, work_ms * MS),
        prompt=0.5,
        twice=0.5,
    )
    fleet.real = lambda one: fleet.random.randint(0, int(one.cost))  # type: ignore[call-overload]
    for number in range(batchers):
        member = fleet.member(f"batcher{number}", WatcherOptions("w", max_batch_size=20))
        most = max(1, capacity // 3)
        member.put([fleet.random.randint(0, most) for _ in range(300)])
        member.tick(flush_ms, START_MS * MS + 4 * SECOND)

    fleet.advance(4 * SECOND)

    assert fleet.starts
    assert fleet.overshoots() == []


def charged(fleet: Fleet, seconds: int) -> list[int]:
    """What was really used, by second."""
    sums = [0] * seconds
    for one in fleet.starts:
        second = (one.start - START_MS * MS) // SECOND
        if second < seconds:
            sums[second] += one.real[0]
    return sums


@pytest.mark.parametrize("size", [1, 20, 500])
@pytest.mark.parametrize(
    ("said", "real", "capacity", "least"), [(100, 500, 10_000, 0.98), (500, 100, 20_000, 0.9)]
)
def test_a_wrong_cost_settles_at_the_capacity(
    said: int, real: int, capacity: int, least: float, size: int
) -> None:
    seconds = 8
    fleet = Fleet(
        1,
        Limits(capacity=capacity),
        request_us=(0, 300),
        reply_us=(0, 900),
        lag_us=(0, 2 * MS),
        work_us=(5 * MS, 20 * MS),
        real=lambda _: real,
        twice=0.3,
    )
    member = fleet.member("one", WatcherOptions("w", max_batch_size=size))
    member.put([said] * (seconds * capacity // min(said, real) + size))
    member.tick(100, START_MS * MS + seconds * SECOND)

    fleet.advance(seconds * SECOND)

    used = charged(fleet, seconds)[1:]
    assert max(used) <= 1.05 * capacity, used
    assert sum(used) >= least * capacity * len(used), used


def test_slow_handlers_that_cost_five_times_what_was_said_use_the_capacity_on_average() -> None:
    seconds, capacity = 60, 10_000
    fleet = Fleet(
        1,
        Limits(capacity=capacity),
        work_us=(500 * MS, 2 * SECOND),
        real=lambda _: 500,
    )
    member = fleet.member("one", WatcherOptions("w", max_batch_size=20))
    member.put([100] * (seconds * capacity // 100))
    member.tick(100, START_MS * MS + seconds * SECOND)

    fleet.advance(seconds * SECOND)

    used = charged(fleet, seconds)[1:]
    assert 0.95 * capacity <= sum(used) / len(used) <= 1.05 * capacity, used
