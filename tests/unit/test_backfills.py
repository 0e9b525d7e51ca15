"""Back-fills in one process, on a store in memory and a clock moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from celery_batcher import (
    Backfill,
    BackfillProgress,
    BackfillRunningError,
    Batcher,
    BatcherStoppedError,
    ConfigurationError,
    InvalidNameError,
    PayloadError,
    Row,
    StoreUnavailableError,
    Watcher,
)
from celery_batcher.clock import SystemClock
from celery_batcher.store import memory
from eventually import eventually
from in_memory import InMemory


@pytest.fixture
def app() -> Iterator[InMemory]:
    one = InMemory()
    yield one
    one.close()


@pytest.fixture
def batcher(app: InMemory) -> Batcher:
    return app.batcher(flush_mode="tick")


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def write(batcher: Batcher, seen: list[Any]) -> Watcher:
    return batcher.watcher(name="write", max_batch_size=1000)(
        lambda batch: seen.extend(op.payload for op in batch)
    )


def numbered(most: int, calls: list[Any] | None = None) -> Any:
    """A source of the numbers below ``most``, each its own checkpoint."""

    def rows(checkpoint: Any) -> Iterator[Row]:
        if calls is not None:
            calls.append(checkpoint)
        for n in range(0 if checkpoint is None else checkpoint + 1, most):
            yield Row(n, checkpoint=n)

    return rows


def drain(app: InMemory, batcher: Batcher) -> None:
    while batcher.status().waiting or batcher.inflight():
        app.tick(batcher)


def test_every_row_is_handled_once(
    app: InMemory, batcher: Batcher, write: Watcher, seen: list[Any]
) -> None:
    backfill = write.backfill("all", chunk=10)(numbered(95))

    done = backfill.run()
    drain(app, batcher)

    assert sorted(seen) == list(range(95))
    assert (done.phase, done.rows, done.run, done.checkpoint) == ("complete", 95, 1, 94)
    assert done == backfill.status()


def test_rows_carry_what_operations_have(app: InMemory, batcher: Batcher) -> None:
    found: list[Any] = []
    watcher = batcher.watcher(name="all")(found.extend)

    @watcher.backfill("all")
    def rows(checkpoint: Any) -> Iterable[Any]:
        yield Row({"n": 1}, checkpoint=[1, "a"], cost=3, key="k", priority="high", id="mine")
        yield {"n": 2}
        yield Row({"n": 3}, dedupe_key="d", dedupe_for=5)
        yield Row({"n": 4}, dedupe_key="d", dedupe_for=5)
        yield Row({"n": 5}, id="mine")

    assert rows.run().rows == 5
    drain(app, batcher)

    told = {op.payload["n"]: (op.cost, op.key, op.priority) for op in found}
    assert told == {
        1: (3, "k", "high"),
        2: (1, None, "backfill"),
        3: (1, None, "backfill"),
    }
    assert batcher.status().duplicates == 2
    assert "mine" in [op.id for op in found]


def test_a_complete_one_stays_complete_and_runs_again_only_when_told_so(write: Watcher) -> None:
    calls: list[Any] = []
    backfill = write.backfill("all")(numbered(5, calls))
    backfill.run()

    assert backfill.run().run == 1
    assert calls == [None]
    again = backfill.run(again=True)

    assert (again.run, again.rows, again.phase, calls) == (2, 5, "complete", [None, None])
    assert write.batcher.operations_in_buffer() == 10


def test_a_run_that_was_ended_goes_on_behind_its_last_chunk(write: Watcher) -> None:
    calls: list[Any] = []
    backfill = write.backfill("all", chunk=10)(numbered(25, calls))
    steps = backfill.steps()
    assert next(steps).rows == 10
    steps.close()

    assert (backfill.status().phase, backfill.status().checkpoint) == ("interrupted", 9)
    assert backfill.run().rows == 25
    assert calls == [None, 9]
    assert write.batcher.operations_in_buffer() == 25


def test_rows_without_a_checkpoint_are_passed_over(
    app: InMemory, batcher: Batcher, write: Watcher, seen: list[Any]
) -> None:
    calls: list[Any] = []

    @write.backfill("pages", chunk=4)
    def pages(checkpoint: Any) -> Iterator[Any]:
        calls.append(checkpoint)
        for page in range(checkpoint or 0, 3):
            yield from range(page * 5, page * 5 + 4)
            yield Row(page * 5 + 4, checkpoint=page + 1)

    for taken in (4, 8):
        steps = pages.steps()
        assert next(steps).rows == taken
        steps.close()
    assert pages.run().rows == 15
    drain(app, batcher)

    assert calls == [None, None, 1]
    assert sorted(seen) == list(range(15))


def test_one_of_a_name_runs_at_a_time_and_a_dead_ones_right_ends_by_itself(
    app: InMemory, write: Watcher
) -> None:
    backfill = write.backfill("all", chunk=10, lease_time=30.0)(numbered(25))
    steps = backfill.steps()
    next(steps)
    app.clock.advance(29)

    with pytest.raises(BackfillRunningError, match=r"back-fill all is run by .*:[0-9]+ since") as e:
        backfill.run()
    assert (e.value.left, e.value.name) == (1.0, "all")
    with pytest.raises(BackfillRunningError):
        backfill.reset()
    assert backfill.status().runner == e.value.owner

    app.clock.advance(1)
    assert backfill.status().phase == "interrupted"
    assert backfill.run().rows == 25
    with pytest.raises(BackfillRunningError):
        next(steps)  # the first comes back: its right is another's
    assert write.batcher.operations_in_buffer() == 25


def test_the_right_to_run_is_kept_however_long_a_row_takes(app: InMemory) -> None:
    batcher = Batcher("real", app=app.app)
    memory.server(app.url).clock = SystemClock()
    go_on = threading.Event()

    @batcher.watcher(name="w")
    def handle(batch: Any) -> None: ...

    @handle.backfill("slow", lease_time=0.1)
    def slow(checkpoint: Any) -> Iterator[int]:
        go_on.wait(30)
        yield 1

    running = threading.Thread(target=slow.run)
    running.start()
    try:
        eventually(lambda: slow.state().until_ms - slow.state().since_ms > 500)
        with pytest.raises(BackfillRunningError):
            slow.run()
    finally:
        go_on.set()
        running.join()
    assert slow.status().phase == "complete"
    assert not [one for one in threading.enumerate() if one.name == "backfill-slow"]


def test_it_waits_while_enough_operations_wait(
    app: InMemory, batcher: Batcher, write: Watcher
) -> None:
    backfill = write.backfill("all", chunk=10, max_waiting=20)(numbered(35))
    waits: list[str] = []

    for one in backfill.steps():
        waits.append(one.waits_for)
        assert batcher.operations_in_buffer() <= 20
        if one.waits_for:
            app.tick(batcher, every=0)

    assert waits[:3] == ["", "", "buffer"]
    assert backfill.status().rows == 35


def test_it_waits_longer_and_longer_and_never_more_than_a_second(
    app: InMemory, batcher: Batcher, write: Watcher
) -> None:
    backfill = write.backfill("all", chunk=10, max_waiting=10)(numbered(35))
    began = app.clock.monotonic()

    waiting = [one for one in backfill.steps(max_time=60) if one.waits_for]

    assert app.clock.monotonic() - began == pytest.approx(60)
    assert len(waiting) < 80
    assert backfill.status().phase == "interrupted"


@pytest.mark.parametrize(
    ("stop", "go_on", "said"),
    [
        (lambda b, f: b.pause(None), lambda b, f: b.resume(), "batcher"),
        (lambda b, f: b.store.drain(), lambda b, f: b.resume(), "drain"),
        (lambda b, f: f.pause(), lambda b, f: f.resume(), "pause"),
    ],
)
def test_it_waits_while_it_or_the_batcher_is_paused_or_drained(
    batcher: Batcher, write: Watcher, stop: Any, go_on: Any, said: str
) -> None:
    backfill = write.backfill("all", chunk=10)(numbered(25))
    steps = backfill.steps()
    next(steps)
    stop(batcher, backfill)

    assert [next(steps).waits_for for _ in range(3)] == [said] * 3
    assert backfill.status().rows == 10
    go_on(batcher, backfill)
    assert next(steps).rows == 20
    list(steps)
    assert backfill.status().phase == "complete"


def test_one_that_was_paused_before_it_ran_takes_nothing(write: Watcher) -> None:
    backfill = write.backfill("all")(numbered(5))
    backfill.pause()
    assert backfill.status().phase == "paused"
    assert backfill.run(max_time=3).rows == 0
    assert backfill.status().phase == "paused"
    backfill.resume()
    assert backfill.run().phase == "complete"


def test_reset_begins_at_the_beginning(write: Watcher) -> None:
    calls: list[Any] = []
    backfill = write.backfill("all")(numbered(5, calls))
    backfill.run()
    backfill.reset()

    assert backfill.status().phase == "new"
    assert backfill.run().run == 1
    assert calls == [None, None]


def test_an_error_of_the_source_comes_behind_the_rows_before_it(write: Watcher) -> None:
    broken = True

    def rows(checkpoint: Any) -> Iterator[Row]:
        for row in numbered(25)(checkpoint):
            if broken and row.payload == 13:
                raise OSError("the API is away")
            yield row

    backfill = write.backfill("all", chunk=10)(rows)
    with pytest.raises(OSError, match="away"):
        backfill.run()

    failed = backfill.status()
    assert (failed.phase, failed.rows, failed.error) == ("failed", 13, "OSError: the API is away")
    assert failed.runner is None
    broken = False
    done = backfill.run()
    assert (done.phase, done.rows, done.error) == ("complete", 25, "")
    assert write.batcher.operations_in_buffer() == 25


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (Row(object(), checkpoint=1), PayloadError),
        (Row(1, checkpoint=object()), ConfigurationError),
        (Row(1, checkpoint=float("nan")), ConfigurationError),
        (Row(1, checkpoint="x" * 20_000), ConfigurationError),
        (Row(1, priority="urgent"), ConfigurationError),
    ],
)
def test_a_row_that_can_never_run_is_an_error_behind_the_rows_before_it(
    write: Watcher, row: Row, error: type[Exception]
) -> None:
    backfill = write.backfill("all")(lambda checkpoint: [Row(0, checkpoint=0), row])

    with pytest.raises(error):
        backfill.run()

    assert (backfill.status().rows, backfill.status().checkpoint) == (1, 0)


def test_a_checkpoint_that_is_changed_later_is_as_it_was_yielded(write: Watcher) -> None:
    def rows(checkpoint: Any) -> Iterator[Row]:
        at = {"page": 0}
        for n in range(3):
            at["page"] += 1
            yield Row(n, checkpoint=at)
        at["page"] = 99

    assert write.backfill("all")(rows).run().checkpoint == {"page": 3}


def test_rate_and_eta_follow_from_the_total(app: InMemory, write: Watcher) -> None:
    def rows(checkpoint: Any) -> Iterator[Row]:
        for row in numbered(40)(checkpoint):
            app.clock.advance(0.1)
            yield row

    backfill = write.backfill("all", chunk=10, total=lambda: 40)(rows)
    steps = backfill.steps()
    first = next(steps)

    assert (first.total, first.rows, first.fraction) == (40, 10, 0.25)
    assert (first.rate, first.eta) == (pytest.approx(10.0), pytest.approx(3.0))
    assert backfill.status().rate == pytest.approx(10.0)
    list(steps)
    assert (backfill.status().fraction, backfill.status().eta) == (1.0, None)


def test_a_slow_sources_rows_do_not_wait_for_a_full_chunk(app: InMemory, write: Watcher) -> None:
    def rows(checkpoint: Any) -> Iterator[Row]:
        for row in numbered(4)(checkpoint):
            app.clock.advance(0.6)
            yield row

    assert [one.rows for one in write.backfill("all")(rows).steps()] == [2, 4]


def test_large_rows_make_small_chunks(write: Watcher) -> None:
    backfill = write.backfill("all")(
        lambda checkpoint: (Row("x" * 100_000, checkpoint=n) for n in range(5))
    )

    assert [one.rows for one in backfill.steps()] == [2, 4, 5]


def test_a_batcher_that_was_stopped_here_takes_no_rows(batcher: Batcher, write: Watcher) -> None:
    backfill = write.backfill("all")(numbered(5))
    batcher.stop()

    with pytest.raises(BatcherStoppedError):
        backfill.run()


def test_a_run_ends_when_the_batcher_is_stopped_here(batcher: Batcher, write: Watcher) -> None:
    backfill = write.backfill("all", chunk=10)(numbered(25))
    steps = backfill.steps()
    next(steps)
    batcher.stop()

    with pytest.raises(BatcherStoppedError):
        next(steps)
    assert (backfill.status().rows, backfill.status().runner) == (10, None)


def test_progress_is_told_to_callbacks_and_signals(write: Watcher) -> None:
    from celery_batcher.signals import backfill_progress, operations_enqueued

    told: list[Any] = []

    def listen(sender: Any, backfill: str, progress: BackfillProgress, **_: Any) -> None:
        told.append((backfill, progress.rows))

    def count(sender: Any, operations: int, **_: Any) -> None:
        told.append(operations)

    backfill_progress.connect(listen)
    operations_enqueued.connect(count)
    called: list[int] = []
    write.backfill("all", chunk=3)(numbered(5)).run(lambda one: called.append(one.rows))
    backfill_progress.disconnect(listen)
    operations_enqueued.disconnect(count)

    assert called == [3, 5]
    assert told == [3, ("all", 3), 2, ("all", 5)]


def test_names_and_options_are_checked(write: Watcher) -> None:
    with pytest.raises(InvalidNameError):
        write.backfill("orders 2024")(numbered(1))
    with pytest.raises(ConfigurationError, match="has no option"):
        write.backfill("all", chunks=5)
    with pytest.raises(ConfigurationError, match="chunk=0"):
        write.backfill("all", chunk=0)
    write.backfill("all")(_one)
    assert write.backfill("all")(_one).name == "all"
    with pytest.raises(ConfigurationError, match="has a back-fill all already"):
        write.backfill("all")(_other)
    with pytest.raises(ConfigurationError, match="total='many'"):
        write.backfill("some", total="many")(_one).run()  # type: ignore[arg-type]


def _one(checkpoint: Any) -> Iterable[Any]:
    return [1]


def _other(checkpoint: Any) -> Iterable[Any]:
    return [2]


def test_all_of_a_batcher_are_known_by_name(batcher: Batcher, write: Watcher) -> None:
    one = write.backfill("one")(_one)
    write.backfill("two")(_other)
    one.run()

    assert isinstance(batcher.backfills["one"], Backfill)
    assert [(p.name, p.phase) for p in batcher.backfill_progress()] == [
        ("one", "complete"),
        ("two", "new"),
    ]
    assert list(one(None)) == [1]


class Failing:
    """A store that fails before or after one of its calls."""

    def __init__(self, real: Any, at: int, after: bool) -> None:
        self._real, self._left, self._after = real, at, after

    def __get__(self, batcher: Any, kind: type) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._real, name)
        if not callable(act):
            return act

        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise StoreUnavailableError("before")
            answer = act(*args, **kwargs)
            if self._left == 0:
                raise StoreUnavailableError("after")
            return answer

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_breaks_off_at_any_call_of_the_store_loses_and_doubles_nothing(
    app: InMemory, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = 0
    for at in range(1, 30):
        batcher = app.batcher(f"b{at}", flush_mode="tick")
        seen: list[Any] = []
        watcher = batcher.watcher(name=f"w{at}")(
            lambda batch, seen=seen: seen.extend(op.payload for op in batch)
        )
        backfill = watcher.backfill("all", chunk=3)(numbered(20))
        failing = Failing(batcher.store, at, after)
        with monkeypatch.context() as patched:
            patched.setattr(type(batcher), "store", failing)
            try:
                backfill.run()
            except StoreUnavailableError:
                broken += 1
        app.clock.advance(31)  # a lease that could not be given back
        backfill.run()
        drain(app, batcher)
        assert sorted(seen) == list(range(20)), at
    assert broken >= 8


# As a Celery task


def slices(app: InMemory, backfill: Backfill, **kwargs: Any) -> list[dict[str, Any]]:
    """Run its task, and those that it sends, until none is left; what each returned."""
    results = [backfill.task.apply(kwargs=kwargs).result]
    while sent := [one for one in app.tasks() if one[0] == backfill.task_name]:
        assert [one[2]["kwargsrepr"] for one in sent] == ["{'again': False}"]
        results.append(backfill.task.apply(kwargs={"again": False}).result)
    return results


def test_its_task_goes_on_in_slices_until_it_is_complete(app: InMemory, write: Watcher) -> None:
    def rows(checkpoint: Any) -> Iterator[Row]:
        for row in numbered(60)(checkpoint):
            app.clock.advance(0.1)
            yield row

    backfill = write.backfill("all", chunk=10, slice=2.0)(rows)
    results = slices(app, backfill)

    assert [one["rows"] for one in results] == [20, 40, 60, 60]
    assert [one["phase"] for one in results] == ["interrupted"] * 3 + ["complete"]
    assert slices(app, backfill, again=False)[0] == {"phase": "complete", "run": 1, "rows": 60}
    assert slices(app, backfill)[-1] == {"phase": "complete", "run": 2, "rows": 60}


def test_functions_of_one_name_have_tasks_of_their_own(app: InMemory, write: Watcher) -> None:
    one, two = write.backfill("one")(numbered(5)), write.backfill("two")(numbered(7))

    assert (one.task_name, two.task_name) == (f"{__name__}.b.one", f"{__name__}.b.two")
    assert [slices(app, each)[-1]["rows"] for each in (one, two)] == [5, 7]


def test_a_tick_while_it_runs_does_nothing(app: InMemory, write: Watcher) -> None:
    backfill = write.backfill("all", chunk=10)(numbered(25))
    steps = backfill.steps()
    next(steps)

    assert backfill.task.apply().result == {"phase": "running", "run": 1, "rows": 10}
    assert app.tasks() == []
    list(steps)
    assert backfill.status().rows == 25


def test_what_goes_on_after_a_killed_slice_waits_for_its_lease(
    app: InMemory, write: Watcher
) -> None:
    backfill = write.backfill("all", chunk=10, lease_time=30.0)(numbered(25))
    steps = backfill.steps()
    next(steps)

    backfill.task.apply(kwargs={"again": False})

    ((_, _, headers),) = app.tasks()
    assert headers["eta"] is not None


def test_a_tick_that_the_broker_gives_again_goes_on_where_its_worker_was_lost(
    app: InMemory, write: Watcher
) -> None:
    backfill = write.backfill("all", chunk=10)(numbered(25))
    steps = backfill.steps()
    next(steps)

    backfill.task.push_request(delivery_info={"redelivered": True})
    backfill.task.run()
    backfill.task.pop_request()

    ((name, _, headers),) = app.tasks()
    assert (name, headers["eta"] is not None) == (backfill.task_name, True)


def test_its_task_does_not_wait_while_it_is_paused_but_looks_again(
    app: InMemory, write: Watcher
) -> None:
    backfill = write.backfill("all", chunk=10)(numbered(25))
    backfill.pause()
    began = app.clock.monotonic()

    assert backfill.task.apply().result["phase"] == "paused"

    assert app.clock.monotonic() - began < 1
    ((name, _, headers),) = app.tasks()
    assert (name, headers["eta"] is not None) == (backfill.task_name, True)
    backfill.resume()
    assert backfill.task.apply(kwargs={"again": False}).result["phase"] == "complete"


def test_an_error_ends_its_task_and_the_next_tick_goes_on(app: InMemory, write: Watcher) -> None:
    broken = True

    def rows(checkpoint: Any) -> Iterator[Row]:
        yield from numbered(5)(checkpoint)
        if broken:
            raise OSError("away")

    backfill = write.backfill("all")(rows)
    assert isinstance(backfill.task.apply().result, OSError)
    assert app.tasks() == []
    broken = False
    assert slices(app, backfill) == [{"phase": "complete", "run": 1, "rows": 5}]


def test_beat_is_told_when_it_begins(app: InMemory, write: Watcher) -> None:
    from celery.schedules import crontab

    nightly = crontab(hour="2", minute="0")
    backfill = write.backfill("all", queue="slow")(_one).schedule(nightly)

    app.app.finalize()
    entry = app.app.conf.beat_schedule["celery_batcher:b:backfill:all"]
    assert entry == {
        "task": backfill.task_name,
        "schedule": nightly,
        "options": {"queue": "slow"},
    }
    assert backfill.task.acks_late
    assert backfill.task.reject_on_worker_lost


def test_in_eager_mode_handlers_run_inside_of_it() -> None:
    app = InMemory(task_always_eager=True, task_eager_propagates=True)
    batcher, seen = app.batcher(), list[int]()

    @batcher.watcher(name="eager")
    def handle(batch: Any) -> None:
        seen.extend(op.payload for op in batch)

    backfill = handle.backfill("all", chunk=10)(numbered(25))
    steps = backfill.steps()
    assert (next(steps).rows, seen) == (10, list(range(10)))
    steps.close()

    assert backfill.run().rows == 25
    assert seen == list(range(25))
    app.close()
