"""Why operations wait, as users are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celery_batcher import (
    Batcher,
    ConfigurationError,
    Explanation,
    NoWatcherError,
    ProvisionedResource,
    Throttled,
    Watcher,
)
from in_memory import InMemory

TURN_MS = 60_000


@pytest.fixture
def app() -> Iterator[InMemory]:
    app = InMemory()
    yield app
    app.close()


def watched(app: InMemory, capacity: Any = 10, **options: Any) -> tuple[Batcher, Watcher]:
    """A batcher and a watcher whose handler does nothing."""
    own = {"flush_interval": 0.1, "flush_mode": "turn"} | options.pop("batcher", {})
    resource = None if capacity is None else ProvisionedResource(capacity)
    batcher = app.batcher(rate_limiter=resource, **own)

    @batcher.watcher(name="write", **options)
    def write(batch: Any) -> None: ...

    return batcher, write


def flush(app: InMemory, batcher: Batcher, *, hold: bool = True) -> None:
    """Flush once; ``hold``: and hold the turn on, as beat would let it."""
    batcher.store.leave_turn("t")
    batcher._options["flush_mode"] = "tick"
    batcher.tick()
    batcher._options["flush_mode"] = "turn"
    if hold:
        assert batcher.store.take_turn("t", TURN_MS).mine


def codes(explanation: Explanation) -> list[str]:
    return [reason.code for reason in explanation.reasons]


def test_an_operation_that_found_no_room_says_who_has_it(app: InMemory) -> None:
    batcher, write = watched(app, max_batch_size=1, batcher={"flush_interval": 1.0})
    write.enqueue(1, cost=6)
    id = write.enqueue(2, cost=5, key="k")
    flush(app, batcher)
    app.work()

    why = batcher.explain(id)

    assert (why.state, why.watcher, why.operation, why.cost) == ("waiting", "write", id, 5)
    assert (why.key, why.priority, why.attempt, why.ahead, why.at_most) == ("k", "normal", 1, 0, 0)
    assert why.reasons[0].code == "capacity"
    assert why.earliest == pytest.approx(1.01)
    assert str(why).splitlines()[2] == (
        "  because: the capacity of 10 per 1 s has no room for 5: 6 started within the last 1 s"
    )


def test_a_watcher_is_explained_by_its_next_operation(app: InMemory) -> None:
    batcher, write = watched(app)
    id = write.enqueue(1, cost=3)
    flush(app, batcher, hold=False)
    other = write.enqueue(2)

    assert batcher.explain(id).state == "released"
    assert codes(batcher.explain(write)) == ["no-turn", "in-lanes"]
    assert batcher.explain(other).state == "unknown"
    assert "in a lane" in str(batcher.explain(other))
    assert str(batcher.explain("write")).startswith("watcher write has no operation that waits")


def test_nobody_flushes_when_no_turn_is_held_but_in_tick_mode(app: InMemory) -> None:
    batcher, write = watched(app)
    batcher.pause(5)
    id = write.enqueue(1)
    flush(app, batcher, hold=False)

    assert codes(batcher.explain(id)) == ["no-turn", "paused"]
    assert batcher.explain(id).earliest is None
    batcher._options["flush_mode"] = "tick"
    assert codes(batcher.explain(id)) == ["paused"]
    assert batcher.explain(id).earliest == 5


def test_a_pause_without_end_and_a_429(app: InMemory) -> None:
    batcher, write = watched(app)
    id = write.enqueue(1)
    batcher.pause(None)
    flush(app, batcher)
    batcher.store.shut(700)

    why = batcher.explain(id)

    assert codes(why) == ["paused", "closed"]
    assert why.earliest is None
    assert "can run: unknown" in str(why)
    batcher.store.pause(0)
    assert batcher.explain(id).earliest == 0.7


def test_an_operation_dearer_than_the_capacity_of_now(app: InMemory) -> None:
    batcher, write = watched(app, 10)
    batcher.pause(None)
    id = write.enqueue(1, cost=9)
    flush(app, batcher)
    batcher.store.pause(0)
    assert batcher.rate_limiter
    batcher.store.set_capacity([5])

    why = batcher.explain(id)

    assert codes(why) == ["too-dear"]
    assert "more than the capacity of 5 per 1 s (the code says 10)" in str(why)
    assert why.earliest is None


def test_credit_is_told_in_the_units_of_the_capacity(app: InMemory) -> None:
    batcher, write = watched(app, {"calls": 100, "tokens": 1000}, max_batch_size=1)
    batcher.pause(None)
    write.enqueue(1, cost={"calls": 1, "tokens": 100})
    id = write.enqueue(2, cost={"calls": 1, "tokens": 500})
    flush(app, batcher)
    batcher.store.pause(0)
    batcher.store.release("t", "batch", batcher.limits())

    why = batcher.explain(id)

    assert why.cost == {"calls": 1, "tokens": 500}
    assert codes(why) == ["credit"]
    assert "the capacity of 1000 tokens per 1 s is given out evenly: 0 of 500" in str(why)
    assert why.reasons[-1].wait == pytest.approx(0.5)


def test_its_place_and_the_windows_before_it(app: InMemory) -> None:
    batcher, write = watched(app, 10)
    batcher.pause(None)
    write.enqueue_many(range(4), cost=10, key="k")
    write.enqueue(5, priority="high")
    id = write.enqueue(6, cost=10, key="k")
    flush(app, batcher)
    batcher.store.pause(0)

    why = batcher.explain(id)

    assert (why.ahead, why.at_most) == (4, 5)
    assert why.earliest is not None
    assert why.earliest >= 4
    assert "before it: 4 in its queue, at most 5 of its watcher" in str(why)


def test_a_tenant_at_its_cap_says_what_of_it_is_held_and_until_when(app: InMemory) -> None:
    batcher, write = watched(app, 1000, key_capacity=90, key_window=2.0)
    write.enqueue_many(range(4), cost=40, key="a")
    last = write.enqueue(5, cost=40, key="a")
    flush(app, batcher)
    app.work()
    app.clock.advance(0.5)
    flush(app, batcher)

    why = batcher.explain(last)

    assert (why.key, why.ahead, codes(why)) == ("a", 2, ["key-capacity", "all-keys"])
    assert why.earliest == 2.0  # 80 are before it, which is more than one window
    assert why.reasons[0].wait == 1.51
    assert why.reasons[0].text == (
        "the key_capacity of 90 per 2 s has no room for 40: 80 started within the last 2 s"
    )
    assert "also: all keys of its watcher that have operations are at their caps" in str(
        batcher.explain(write)
    )


def test_the_other_tenants_of_a_watcher_go_on(app: InMemory) -> None:
    batcher, write = watched(app, None, key_concurrency=1, max_batch_size=1)
    write.enqueue_many(range(2), key="a")
    flush(app, batcher)
    batcher.pause(None)
    other = write.enqueue(3, key="b")
    flush(app, batcher)

    assert batcher.explain(write).operation == other
    assert codes(batcher.explain(write)) == ["paused"]


def test_concurrency_is_the_batchers_and_the_watchers(app: InMemory) -> None:
    batcher, write = watched(
        app,
        None,
        max_batch_size=1,
        max_concurrent_batches=1,
        batcher={"max_open_batches": 1, "max_concurrent_batches": 1},
    )
    first, second = write.enqueue(1), write.enqueue(2)
    flush(app, batcher)

    assert codes(batcher.explain(first)) == ["unclaimed"]
    assert codes(batcher.explain(second)) == [
        "max-open-batches",
        "max-concurrent-batches",
        "watcher-concurrency",
    ]


def test_a_watcher_on_probe(app: InMemory) -> None:
    batcher, write = watched(app, 10, max_batch_size=1)
    write.enqueue(1)
    flush(app, batcher)
    batcher.store.probe("t", 0, 10)
    id = write.enqueue(2)
    app.clock.advance(1)
    flush(app, batcher)

    assert "probe" in codes(batcher.explain(id))
    assert "on probe" in str(batcher.explain(write))


def test_what_runs_is_delayed_or_dead(app: InMemory) -> None:
    batcher = app.batcher(rate_limiter=ProvisionedResource(10), flush_mode="turn")
    seen = []

    @batcher.watcher(name="write", max_attempts=2)
    def write(batch: Any) -> None:
        seen.append(batcher.explain(batch[0].id))
        if batch[0].payload == "retry":
            batch.retry(batch[0], after=3.0)
        elif batch[0].payload == "throttle":
            raise Throttled(2.0)
        else:
            batch.fail(batch[0], "no such row")

    retried = write.enqueue("retry")
    flush(app, batcher, hold=False)
    app.work()
    dead = write.enqueue("fail")
    app.clock.advance(1)
    flush(app, batcher)
    app.work()

    assert [one.state for one in seen] == ["running", "running"]
    assert seen[0].batch
    why = batcher.explain(retried)
    assert (why.state, codes(why), why.earliest) == ("delayed", ["delayed"], 2.0)
    assert codes(batcher.explain(write)) == ["delayed"]
    why = batcher.explain(dead)
    assert (why.state, codes(why), why.earliest) == ("dead", ["dead"], None)
    assert "no such row" in str(why)


def test_the_search_ends_where_it_is_told_to(app: InMemory) -> None:
    batcher, write = watched(app)
    batcher.pause(None)
    write.enqueue_many(range(50))
    flush(app, batcher)

    why = batcher.explain("none", most=50)
    assert why.state == "unknown"
    assert "not among the first" in str(why)
    assert "is done, or was never enqueued" in str(batcher.explain("none"))


def test_what_it_is_asked_of(app: InMemory) -> None:
    batcher, _ = watched(app)
    foreign = app.batcher("foreign")

    @foreign.watcher(name="theirs")
    def theirs(batch: Any) -> None: ...

    with pytest.raises(NoWatcherError):
        batcher.explain(theirs)
    with pytest.raises(ConfigurationError):
        batcher.explain("")
    with pytest.raises(ConfigurationError):
        batcher.explain(3)  # type: ignore[arg-type]


def test_the_eta_is_cost_less_credit_at_the_present_capacity(app: InMemory) -> None:
    batcher, write = watched(app, 10)
    assert batcher.eta() == 0.0
    write.enqueue_many(range(40), cost=1)
    assert batcher.eta() is None  # nobody flushes

    batcher.pause(2.0)
    flush(app, batcher)
    assert batcher.eta() == pytest.approx(2 + (40 - 1) / 10)

    batcher.pause(None)
    assert batcher.eta() is None
    batcher.store.pause(0)
    batcher.store.set_capacity([0])
    assert batcher.eta() is None


def test_the_eta_counts_batchers_in_need_by_their_weights(app: InMemory) -> None:
    resource = {"rate_limiter": ProvisionedResource(10, name="r"), "flush_mode": "turn"}
    rival = app.batcher("rival", **resource)
    batcher = app.batcher(
        "mine", rate_limiter=ProvisionedResource(10, name="r"), flush_mode="turn", weight=3
    )

    @rival.watcher(name="theirs", max_batch_size=1)
    def theirs(batch: Any) -> None: ...

    @batcher.watcher(name="write")
    def write(batch: Any) -> None: ...

    batcher.pause(None)
    write.enqueue_many(range(30))
    flush(app, batcher)
    batcher.store.pause(0)
    alone = batcher.eta()
    theirs.enqueue_many(range(5), cost=9)
    flush(app, rival)

    assert alone == pytest.approx((30 - 1) / 10, abs=0.2)
    assert batcher.eta() == pytest.approx(alone * 4 / 3, rel=0.1)


def test_the_eta_is_no_less_than_the_longest_delay(app: InMemory) -> None:
    batcher = app.batcher(rate_limiter=ProvisionedResource(10), flush_mode="turn")

    @batcher.watcher(name="write")
    def write(batch: Any) -> None:
        batch.retry(batch[0], after=60.0)

    write.enqueue(1)
    flush(app, batcher)
    app.work()

    assert batcher.eta() == 60.0


def test_without_a_resource_nobody_knows_an_eta(app: InMemory) -> None:
    batcher, write = watched(app, None)
    batcher.pause(None)
    write.enqueue(1)
    flush(app, batcher)
    batcher.store.pause(0)

    assert batcher.eta() is None
    assert "nothing keeps it but its place" in str(batcher.explain(write))
