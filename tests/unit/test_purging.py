"""Looking into the buffer and emptying it, lanes included, whoever has the turn."""

from __future__ import annotations

from typing import Any

import pytest

from celery_batcher import (
    Batch,
    Batcher,
    ConfigurationError,
    MemoryLeaseManager,
    NoWatcherError,
    ProvisionedResource,
    SharedResource,
)
from celery_batcher.store.base import Admission, Arrival
from in_memory import InMemory, collecting


@pytest.fixture
def batcher(site: InMemory) -> Batcher:
    return site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(10))


def test_what_is_next_is_seen_with_its_payload(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    other = batcher.watcher(name="other")(collecting([]))
    write.enqueue_many([{"n": 1}, {"n": 2}], cost=10)
    write.enqueue({"n": 0}, cost=10, key="k", priority="high", id="mine", batchable=False)
    other.enqueue({"n": 9}, cost=10)
    assert batcher.peek() == []  # it is all in lanes
    batcher.pause(None)
    site.tick(batcher)

    (first, *rest) = batcher.peek("write")
    assert (first.id, first.payload, first.cost, first.key) == ("mine", {"n": 0}, 10, "k")
    assert (first.watcher, first.priority, first.batchable) == ("write", "high", False)
    assert [one.payload["n"] for one in rest] == [1, 2]
    assert [one.batchable for one in rest] == [True, True]
    assert [one.payload["n"] for one in batcher.peek()] == [9, 0, 1, 2]
    assert [one.payload["n"] for one in batcher.peek(most=2)] == [9, 0]
    assert [one.payload["n"] for one in batcher.peek(other)] == [9]


def test_a_payload_that_cannot_be_read_is_none(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    site.app.conf.batcher_serializer = "pickle"
    site.app.conf.accept_content = ["json", "pickle"]
    write.enqueue({"n": 1})
    site.app.conf.accept_content = ["json"]
    batcher.pause(None)
    site.tick(batcher)

    assert [one.payload for one in batcher.peek()] == [None]


@pytest.mark.parametrize("most", [0, 1001, "3", True])
def test_a_wrong_number_is_refused(batcher: Batcher, most: Any) -> None:
    with pytest.raises(ConfigurationError, match="peek: most="):
        batcher.peek(most=most)


def test_an_unknown_watcher_is_refused_with_a_near_name(site: InMemory, batcher: Batcher) -> None:
    batcher.watcher(name="write")(collecting([]))
    foreign = site.batcher("other").watcher(name="foreign")(collecting([]))

    for act in (batcher.peek, batcher.purge):
        with pytest.raises(NoWatcherError, match="no watcher 'wrote': did you mean 'write'"):
            act("wrote")
        with pytest.raises(NoWatcherError, match="it has write"):
            act("\x1b")
        with pytest.raises(NoWatcherError, match="not one of batcher b"):
            act(foreign)


def test_everything_in_the_buffer_goes_and_what_runs_stays(
    site: InMemory, batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ran: list[Any] = []

    @batcher.watcher(name="write", max_batch_size=2)
    def write(batch: Batch) -> None:
        ran.append([op.payload for op in batch])
        for op in batch:
            batch.retry(op, after=60)

    write.enqueue_many([1, 2], cost=5)
    site.tick(batcher)  # now delayed
    write.enqueue_many([3, 4], cost=5)
    site.clock.advance(2)
    batcher.tick()  # released
    write.enqueue_many([5, 6], cost=5)
    batcher.tick()  # waiting
    write.enqueue_many([7, 8, 9], cost=1)  # in the lane
    status = batcher.status()
    assert (status.delayed, status.released, status.waiting, status.admitted) == (2, 2, 2, 3)

    assert batcher.purge() == 7

    assert (batcher.operations_in_buffer(), batcher.needs_capacity()) == (0, 10)
    assert site.in_lane(batcher, "write") == 0
    assert batcher.status().phase == "idle"  # the turn was given back
    assert "b: 7 operations were purged" in caplog.text
    assert batcher.purge() == 0
    site.work()
    assert ran == [[1, 2], [3, 4]]


def test_one_watcher_only(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    other = batcher.watcher(name="other")(collecting([]))
    batcher.pause(None)
    write.enqueue_many(range(5))
    other.enqueue_many(range(5))
    site.tick(batcher)
    write.enqueue_many(range(5))
    other.enqueue_many(range(5))

    assert batcher.purge(write) == 10
    assert {row.name: row.waiting for row in batcher.status().watchers} == {"write": 0, "other": 5}
    assert site.in_lane(batcher, "other") > 0


def test_a_purge_in_many_steps_leaves_nothing(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    write.enqueue_many(range(2600), key=lambda n: f"k{n % 7}")

    assert batcher.purge("write") == 2600
    assert batcher.operations_in_buffer() == 0


def test_what_was_removed_is_no_duplicate(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    batcher.pause(None)
    for _ in range(2):
        write.enqueue(1, dedupe_key="one", dedupe_for=3600)
        site.tick(batcher)
        assert batcher.purge() == 1


def test_who_has_the_turn_empties_the_lanes(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    write.enqueue_many(range(3))
    batcher.store.take_turn("holder", 10**9)
    real = site.clock.wait

    def wait(event: Any, seconds: float) -> bool:
        """Meanwhile the holder takes in what came, as its wake-up asks it to."""
        if site.in_lane(batcher, "write"):
            flusher = batcher._duties.flusher("holder")
            flusher.take_in(["write"], 100, 0.0)
        return real(event, seconds)

    site.clock.wait = wait  # type: ignore[method-assign]

    assert batcher.purge() == 3
    assert batcher.store.take_turn("holder", 10, keep=True).wakes > 0


def test_a_message_that_never_comes_holds_a_purge_up_for_two_seconds(
    site: InMemory, batcher: Batcher
) -> None:
    batcher.watcher(name="write")(collecting([]))
    batcher.store.admit([Admission("m", "write", 1, 1)], 99)
    batcher.store.take_turn("holder", 10**9)

    assert batcher.purge() == 0

    assert 2.0 <= site.clock.monotonic() <= 2.2
    batcher.store.leave_turn("holder")
    assert batcher.purge() == 0
    assert site.clock.monotonic() <= 2.2


def test_a_turn_that_falls_silent_is_taken_over(site: InMemory, batcher: Batcher) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    write.enqueue(1)
    batcher.store.take_turn("holder", 500)

    assert batcher.purge() == 1
    assert site.clock.monotonic() <= 1.0


def test_a_turn_lost_on_the_way_is_another_s_business(
    site: InMemory, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = batcher.watcher(name="write")(collecting([]))
    write.enqueue(1)
    real, stolen = batcher.store.stage, []

    def stage(token: str, arrivals: list[Arrival], leases: str) -> Any:
        if not stolen:
            stolen.append(token)
            batcher.store.leave_turn(token)
            batcher.store.take_turn("thief", 300)
        return real(token, arrivals, leases)

    monkeypatch.setattr(type(batcher.store), "stage", lambda self, *args: stage(*args))

    assert batcher.purge() == 1


def test_leases_are_told_with_what_they_are_worth(site: InMemory) -> None:
    resource = SharedResource(
        250, factor=100, lease_manager=MemoryLeaseManager(clock=site.clock), clock=site.clock
    )
    batcher = site.batcher(rate_limiter=resource)
    write = batcher.watcher(name="write")(collecting([]))
    assert batcher.leases() == ()
    write.enqueue_many(range(3), cost=80)

    batcher.limit()

    leases = batcher.leases()
    assert leases
    assert all(one.capacity == (50 if one.partition == 2 else 100) for one in leases)
    assert all(0 < one.left <= 4.0 for one in leases)
    assert site.batcher("plain").leases() == ()
