"""Turns on a manual clock: who flushes, when, for how long, and what breaks a turn off."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from builders import op
from celery_batcher import Batcher, BrokerUnavailableError, ProvisionedResource
from celery_batcher.flusher import TurnLostError
from celery_batcher.store.base import Admission, Arrival
from celery_batcher.turn import Turn, one_flush
from in_memory import InMemory, collecting


def run_turn(batcher: Batcher) -> None:
    """What the background thread does, in this thread: until flushing is no longer wanted."""
    batcher._turn._run()


class Waits:
    """Notes how long a turn sleeps, and acts in its sleep."""

    def __init__(self, site: InMemory) -> None:
        self.site = site
        self.seconds: list[float] = []
        self.acts: dict[int, Callable[[], Any]] = {}
        self._real = site.clock.wait
        site.clock.wait = self  # type: ignore[method-assign, assignment]

    def __call__(self, event: threading.Event, seconds: float) -> bool:
        self.seconds.append(seconds)
        self.site.work()
        self.acts.pop(len(self.seconds), lambda: None)()
        if event.is_set():
            return True
        return self._real(event, max(0.001, seconds))  # no real sleep is shorter


def test_a_turn_flushes_on_ticks_and_ends_when_nobody_wants_it(site: InMemory) -> None:
    batcher = site.batcher(flush_interval=0.1)
    batcher.store.want(2500)
    waits = Waits(site)

    run_turn(batcher)

    assert 2.5 <= site.clock.monotonic() <= 2.65
    assert 25 <= sum(seconds > 0.05 for seconds in waits.seconds) <= 27
    assert batcher.store.counts().turn_ms == 0


def test_what_is_enqueued_while_a_turn_runs_is_released_at_the_next_tick(site: InMemory) -> None:
    batcher = site.batcher()
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    batcher.store.want(1000)
    waits = Waits(site)
    waits.acts = {2: lambda: write.enqueue(1, id="a"), 5: lambda: write.enqueue(1, id="b")}

    run_turn(batcher)

    assert batches == [["a"], ["b"]]


def test_a_turn_wakes_for_the_end_of_a_hold_that_something_waits_for(site: InMemory) -> None:
    batcher = site.batcher(
        flush_interval=0.4, rate_limiter=ProvisionedResource(10), start_grace=0.01
    )
    released: list[float] = []
    write = batcher.watcher(name="write")(lambda batch: released.append(site.clock.monotonic()))
    for _ in range(3):
        write.enqueue(1, cost=10)
    batcher.store.want(6000)
    Waits(site)

    run_turn(batcher)

    assert len(released) == 3
    gaps = [later - earlier for earlier, later in pairwise(released)]
    assert all(gap == pytest.approx(1.01, abs=0.002) for gap in gaps), released


def test_flush_wakes_the_turn_wherever_it_is_held(site: InMemory) -> None:
    batcher = site.batcher(flush_interval=5.0)
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    batcher.store.want(4000)
    waits = Waits(site)

    def enqueue_and_flush() -> None:
        write.enqueue(1, id="a")
        batcher.flush()

    waits.acts = {2: enqueue_and_flush}
    run_turn(batcher)

    assert batches == [["a"]]


def test_only_one_process_has_the_turn(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    batcher.watcher(name="write")(collecting(batches)).enqueue(1, id="a")
    assert batcher.store.take_turn("another", 1000).mine

    assert one_flush(batcher._duties) is False
    site.tick(batcher, 5)
    assert batches == []

    site.tick(batcher, 10)
    assert batches == [["a"]]


def test_in_tick_mode_each_tick_is_a_whole_turn_in_the_task(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    batcher.watcher(name="write")(collecting(batches)).enqueue(1, id="a")

    batcher.tick()

    assert batcher.store.counts().turn_ms == 0
    assert not batcher._turn.alive
    site.work()
    assert batches == [["a"]]


def test_doubled_and_stacked_ticks_change_nothing(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(100))
    done: list[int] = []
    write = batcher.watcher(name="write")(lambda batch: done.append(len(batch)))
    write.enqueue_many(range(500))
    for _ in range(20):
        batcher.tick()
        site.work()

    assert sum(done) == 100  # what one beat earns


def test_a_turn_that_was_lost_stops_before_it_publishes_anything(site: InMemory) -> None:
    batcher = site.batcher()
    batcher.watcher(name="write")(lambda batch: None).enqueue(1)
    duties = batcher._duties
    turn = Turn(duties, "mine")
    assert turn.take()
    flusher = duties.flusher("mine")
    site.clock.advance(100)
    assert batcher.store.take_turn("another", 1000).mine

    with pytest.raises(TurnLostError):
        turn.wanted(duties.rhythm())
    with pytest.raises(TurnLostError):
        flusher.take_in(["write"], 100, 1e9)
    with pytest.raises(TurnLostError):
        flusher.flush(duties.limits())
    flusher.upkeep(duties.limits())
    flusher.close()

    assert site.tasks() == []
    assert batcher.store.counts().turn_ms == 1000
    assert site.in_lane(batcher, "write") == 1


def test_ticks_sweep_lanes_that_nobody_marked(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", audit_interval=10.0)
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    write.enqueue(1, id="a")
    batcher.store.withdraw(list(batcher.store._state.admitted))  # type: ignore[attr-defined]
    batcher.store.idle(["write"])

    site.tick(batcher, 10, every=1.0)

    assert batches == [["a"]]
    assert site.in_lane(batcher, "write") == 0


def test_a_new_turn_adopts_what_a_dead_one_had_leased(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    for id in "abc":
        write.enqueue(1, id=id)
    batcher.store.take_turn("dead", 10)
    batcher.connections.intake().take("dead", ["write"])
    assert site.in_lane(batcher, "write") == 0
    site.clock.advance(1)

    site.tick(batcher)

    assert batches == [["a", "b", "c"]]


def test_a_broker_that_fails_breaks_the_turn_off_and_the_next_one_publishes(
    site: InMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher()
    batches: list[Any] = []
    heard: list[tuple[Any, ...]] = []
    batcher.watcher(name="write")(collecting(batches)).enqueue(1, id="a")
    batcher.add_listener(lambda *event: heard.append(event))
    batcher.store.want(1000)
    Waits(site)

    def away(batches: Any) -> None:
        raise BrokerUnavailableError("no broker")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "celery_batcher"):
        patch.setattr(batcher._duties, "publish", away)
        run_turn(batcher)
    assert "the turn was broken off: no broker" in caplog.text
    assert ("error", 1, "no broker", None) in heard
    assert batcher.store.counts().turn_ms == 0
    assert batcher.inflight() == 1

    run_turn(batcher)

    assert batches == [["a"]]


def test_a_turn_logs_what_it_set_aside_and_goes_on(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    write = batcher.watcher(name="write")(collecting(batches))
    lanes = site.lanes(batcher)
    write.enqueue(1, id="a")
    lanes.put(f"celery_batcher.{batcher.name}.write", Arrival("bad", "write", b"\x00"), 1)
    write.enqueue(1, id="b")

    with caplog.at_level(logging.ERROR, "celery_batcher"):
        site.tick(batcher)

    assert batches == [["a", "b"]]
    assert "1 messages could not be read and were set aside" in caplog.text
    status = batcher.status()
    assert status.set_aside == 1
    assert [(one.watcher, one.reason) for one in status.set_aside_messages] == [
        ("write", "truncated entry")
    ]


def test_intake_stops_at_its_limit_and_the_backlog_stays_in_the_lane(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", intake_limit=1000)
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue_many(range(2000), pack=1)
    batcher.pause(None)
    for _ in range(10):
        batcher.tick()

    assert 1000 <= batcher.status().waiting < 2000
    assert site.in_lane(batcher, "write") >= 500


def test_the_stores_capacity_counts_and_a_warning_names_both(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    def load(capacity: int) -> Batcher:
        return site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(capacity))

    load(100).tick()
    with caplog.at_level(logging.WARNING, "celery_batcher"):
        load(50).tick()

    assert "is 100 per 1 s in the store and 50 per 1 s in the code" in caplog.text
    assert load(50).status().capacity == 100


def test_an_admission_that_never_came_is_void_and_others_are_not(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher(flush_mode="tick", enqueue_timeout=1.0, audit_interval=0.1)
    write = batcher.watcher(name="write")(lambda batch: None)
    batcher.store.admit([Admission("lost", "write", 5, 50)], 100)
    assert batcher.needs_capacity() == 50
    with caplog.at_level(logging.WARNING, "celery_batcher"):
        for _ in range(70):
            write.enqueue(1)
            site.tick(batcher, every=1.0)

    assert batcher.needs_capacity() == 0
    assert "1 admissions were void" in caplog.text


def test_batches_of_a_watcher_that_is_not_registered_here_are_published_by_name(
    site: InMemory,
) -> None:
    batcher = site.batcher(flush_mode="tick")
    batcher.store.take_turn("old", 100)
    batcher.store.stage("old", [Arrival("m", "elsewhere", op("a"))], "")
    site.clock.advance(1)

    batcher.tick()

    assert [name for name, _, _ in site.tasks()] == ["elsewhere"]


def test_start_flushes_in_this_process_until_stop(site: InMemory) -> None:
    batcher = site.batcher()
    flushed = threading.Event()
    batcher.add_listener(lambda event, *rest: flushed.set() if event == "flush-done" else None)
    batcher.start()
    try:
        assert flushed.wait(10)
        assert batcher._turn.alive
    finally:
        batcher.stop()

    assert not batcher._turn.alive
    assert batcher.store.counts().turn_ms == 0


def test_a_tick_starts_one_thread_and_a_process_that_ends_gives_the_turn_back(
    site: InMemory,
) -> None:
    batcher = site.batcher()
    began = threading.Event()
    batcher.add_listener(lambda event, *rest: began.set() if event == "flush-start" else None)
    # Time stands still for the thread, so that the turn stays wanted.
    site.clock.wait = lambda event, seconds: event.wait(seconds)  # type: ignore[method-assign]
    batcher.tick()
    assert began.wait(10)
    thread = batcher._turn._thread
    batcher.tick()
    assert batcher._turn._thread is thread

    batcher.leave()

    assert not batcher._turn.alive
    assert batcher.store.counts().turn_ms == 0


def test_a_tick_that_finds_the_turn_not_lengthened_waits_for_its_end_and_takes_it(
    site: InMemory,
) -> None:
    batcher = site.batcher()
    flushed: list[float] = []
    batcher.add_listener(
        lambda event, *rest: flushed.append(site.clock.now_ms()) if event == "flush-start" else None
    )
    assert batcher.store.take_turn("silent", 1000).mine
    site.clock.advance(0.4)
    dies_at = site.clock.now_ms() + 600

    batcher.tick()
    thread = batcher._turn._thread
    assert thread is not None
    thread.join(10)

    assert flushed[0] == dies_at


def test_a_tick_leaves_a_turn_alone_that_was_just_lengthened(site: InMemory) -> None:
    batcher = site.batcher()
    assert batcher.store.take_turn("lively", 1000).mine
    site.clock.advance(0.1)

    batcher.tick()

    assert batcher._turn._thread is None
