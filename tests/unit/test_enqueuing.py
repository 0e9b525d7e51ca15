"""Enqueuing: a refusal leaves no trace, and what is uncertain is made certain or said (G8)."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pytest

from builders import Bench, memory_bench, op
from celery_batcher import (
    BatcherStoppedError,
    BrokerUnavailableError,
    BufferFullError,
    EnqueueUncertainError,
    StoreUnavailableError,
)
from celery_batcher.clock import ManualClock
from celery_batcher.enqueuing import Enqueuer
from celery_batcher.intakes.base import lane_name
from celery_batcher.intakes.memory import MemoryIntake, MemoryLanes
from celery_batcher.publishers.base import Outgoing, UncertainError
from celery_batcher.publishers.memory import MemoryPublisher
from celery_batcher.store.base import Admission


class Failing:
    """A publisher or store that fails before or after the real act, or half-way, as planned."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.plan: dict[str, list[Callable[[Callable[[], Any], Any], Any]]] = {}
        self.calls: list[str] = []

    def __getattr__(self, act: str) -> Any:
        real = getattr(self._real, act)

        def call(*args: Any) -> Any:
            self.calls.append(act)
            steps = self.plan.get(act)
            if not steps:
                return real(*args)
            return steps.pop(0)(lambda: real(*args), args)

        return call


def before(error: Exception) -> Callable[[Callable[[], Any], Any], Any]:
    def step(call: Callable[[], Any], args: Any) -> Any:
        raise error

    return step


def after(error: Exception) -> Callable[[Callable[[], Any], Any], Any]:
    def step(call: Callable[[], Any], args: Any) -> Any:
        call()
        raise error

    return step


BROKEN = UncertainError("connection reset")
AWAY = BrokerUnavailableError("no broker")
STORE_AWAY = StoreUnavailableError("no store")


class Line:
    """An enqueuer between a memory store and memory lanes, all of which can be made to fail."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bench: Bench = memory_bench(self.clock).begin()
        self.lanes = MemoryLanes()
        self.intake = MemoryIntake(self.lanes, "b")
        self.publisher = Failing(MemoryPublisher(self.lanes, "b"))
        self.store = Failing(self.bench.store)
        self.stopped = False
        self.enqueuer = Enqueuer(self.store, self.publisher, self.clock, self.check)

    def check(self) -> None:
        if self.stopped:
            raise BatcherStoppedError("stopped")

    def send(self, *messages: Outgoing, size: int = 100, block: bool = True) -> None:
        self.enqueuer.send(messages, buffer_size=size, block=block, timeout=5.0)

    def in_lane(self) -> list[str]:
        return [one.arrival.id for one in self.lanes.queues[lane_name("b", "w")]]

    def take_in(self) -> None:
        leased = self.intake.take("turn-1", ["w"]).leased
        if leased:
            arrivals = [one.arrival for one in leased]
            self.bench.store.stage("turn-1", arrivals, "")
            self.bench.store.forget([one.id for one in arrivals])


@pytest.fixture
def line() -> Line:
    return Line()


def message(id: str, operations: int = 1, *, registered: bool = True) -> Outgoing:
    entries = [op(f"{id}" if operations == 1 else f"{id}.{n}", registered=registered)
               for n in range(operations)]  # fmt: skip
    return Outgoing(Admission(id, "w", operations, operations), b"".join(entries))


def test_messages_are_admitted_and_published_in_order(line: Line) -> None:
    line.send(message("a"), message("b", 3), message("c"))

    assert line.in_lane() == ["a", "b", "c"]
    assert line.bench.store.counts().admitted == 5


def test_a_full_buffer_refuses_at_once_when_asked_and_leaves_no_trace(line: Line) -> None:
    line.send(message("a", 3))
    state = line.bench.snapshot()

    with pytest.raises(BufferFullError, match="holds 3 of at most 4 operations") as caught:
        line.send(message("b", 2), size=4, block=False)

    assert line.bench.snapshot() == state
    assert line.in_lane() == ["a"]
    error = caught.value
    assert (error.size, error.limit, error.enqueued) == (3, 4, 0)
    assert isinstance(error, queue.Full)
    assert line.clock.monotonic() == 0


def test_a_full_buffer_blocks_until_the_timeout(line: Line) -> None:
    line.send(message("a", 4))

    with pytest.raises(BufferFullError, match=r"for 5.0 s now"):
        line.send(message("b"), size=4)

    assert line.clock.monotonic() == pytest.approx(5.0)


def test_room_that_comes_while_blocked_is_used(line: Line) -> None:
    line.send(message("a", 4))
    waits: list[float] = []
    real = line.clock.wait

    def wait(event: Any, seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            line.take_in()
            line.bench.run()
        return real(event, seconds)

    line.clock.wait = wait  # type: ignore[method-assign]
    line.send(message("b"), message("c"), size=4)

    assert line.in_lane() == ["b", "c"]
    assert waits == sorted(waits)
    assert len(waits) == 3


def test_a_stop_ends_what_blocks_on_a_full_buffer(line: Line) -> None:
    line.send(message("a", 4))
    real = line.clock.wait

    def wait(event: Any, seconds: float) -> bool:
        line.stopped = True
        return real(event, seconds)

    line.clock.wait = wait  # type: ignore[method-assign]
    with pytest.raises(BatcherStoppedError):
        line.send(message("b"), size=4)

    assert line.bench.store.counts().admitted == 4
    assert line.clock.monotonic() < 1


def test_the_error_says_how_much_was_enqueued_before_it(line: Line) -> None:
    with pytest.raises(BufferFullError) as caught:
        line.send(message("a", 2), message("b", 3), message("c", 9), size=6, block=False)

    assert caught.value.enqueued == 5
    assert line.in_lane() == ["a", "b"]


def test_a_broker_that_is_away_leaves_no_trace(line: Line) -> None:
    line.publisher.plan["publish"] = [before(AWAY)]

    with pytest.raises(BrokerUnavailableError) as caught:
        line.send(message("a"), message("b"))

    assert caught.value.enqueued == 0
    after_ = line.bench.store.counts()
    assert (after_.admitted, after_.admitted_cost, after_.admitted_messages) == (0, 0, 0)
    assert line.in_lane() == []


def test_a_store_that_is_away_leaves_no_trace(line: Line) -> None:
    state = line.bench.snapshot()
    line.store.plan["admit"] = [before(STORE_AWAY)]

    with pytest.raises(StoreUnavailableError):
        line.send(message("a"))

    assert line.in_lane() == []
    assert line.bench.snapshot() == state


@pytest.mark.parametrize("when", [before, after])
def test_a_publish_that_broke_off_is_repeated_and_arrives_once(
    line: Line, when: Callable[[Exception], Any]
) -> None:
    line.publisher.plan["publish"] = [when(BROKEN)]

    line.send(message("a"), message("b", 2, registered=False))

    line.take_in()
    counts = line.bench.store.counts()
    assert (counts.waiting, counts.admitted) == (3, 0)
    assert line.bench.drain() == [["a", "b.0", "b.1"]]


@pytest.mark.parametrize("when", [before, after])
def test_a_message_that_was_taken_in_meanwhile_is_not_published_again(
    line: Line, when: Callable[[Exception], Any]
) -> None:
    def step(call: Callable[[], Any], args: Any) -> None:
        call()
        line.take_in()
        raise BROKEN

    line.publisher.plan["publish"] = [step]

    line.send(message("a", 2, registered=False))

    assert line.in_lane() == []
    assert line.bench.store.counts().waiting == 2


def test_a_half_published_portion_is_completed_in_order_and_each_arrives_once(
    line: Line,
) -> None:
    def step(call: Callable[[], Any], args: Any) -> None:
        MemoryPublisher(line.lanes, "b").publish(args[0][:2])
        raise BROKEN

    line.publisher.plan["publish"] = [step]
    names = ["m1", "m2", "m3", "m4"]

    line.send(*(message(name, registered=False) for name in names))
    line.take_in()

    assert line.bench.drain() == [names]


def test_repeating_outlasts_an_outage_of_broker_and_store(line: Line) -> None:
    line.publisher.plan["publish"] = [after(BROKEN), before(AWAY), after(BROKEN)]
    line.store.plan["repeat"] = [before(STORE_AWAY), after(STORE_AWAY)]

    line.send(message("a", 2, registered=False))
    line.take_in()

    assert line.bench.store.counts().waiting == 2


@pytest.mark.parametrize("when", [before, after])
def test_what_stays_uncertain_is_said_with_its_id_and_may_be_enqueued_again(
    line: Line, when: Callable[[Exception], Any]
) -> None:
    line.publisher.plan["publish"] = [when(BROKEN), *[when(BROKEN)] * 1000]

    with pytest.raises(EnqueueUncertainError) as caught:
        line.send(message("a"))
    assert caught.value.id == "a"
    assert isinstance(caught.value, ConnectionError)
    line.publisher.plan.clear()

    line.send(message("a"))
    line.take_in()

    assert line.bench.drain() == [["a"]]
    assert line.bench.store.counts().unsettled_cost == 0


def test_uncertainty_counts_only_what_is_certain(line: Line) -> None:
    line.publisher.plan["publish"] = [lambda call, args: call(), *[before(BROKEN)] * 1000]
    line.send(message("a", 2))

    with pytest.raises(EnqueueUncertainError) as caught:
        line.send(message("b", 2))

    assert caught.value.enqueued == 0
