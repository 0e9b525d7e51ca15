"""Back-fills: rows of a source become operations, each once, however often their run is killed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from . import beat
from .backfilling import Run
from .errors import BackfillRunningError
from .registry import name_of
from .rows import Place
from .store.backfills import BackfillState

if TYPE_CHECKING:
    from celery.schedules import BaseSchedule

    from .watcher import Watcher

Progressed = Callable[["BackfillProgress"], object]
_AGAIN_LATER = 10.0
"""Seconds after which the task of a back-fill looks again whether it may go on."""


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How far a back-fill is.

    Attributes:
        phase: ``new`` (no run began), ``running``, ``paused``, ``interrupted`` (nobody runs it, and
            it is not complete: the next run goes on), ``failed`` (the same, after an error) or
            ``complete``.
        run: number of the newest run, from 1.
        rows: taken in this run.
        total: rows of this run, as the option ``total`` has it; None: unknown.
        rate: rows per second since somebody runs it, waiting included; 0.0 when nobody does.
        eta: seconds until all rows are taken at this rate; None: unknown.
        checkpoint: where the next run would go on.
        waits_for: why rows are not taken now: ``buffer`` (enough operations wait), ``batcher`` (it
            is paused), ``drain``, ``pause`` (the back-fill is paused); "": nothing known.
        runner: host and process that run it; None: nobody.
        runner_since: since when.
        began_at, ended_at: of this run.
        error: what ended the run before; "" if no error did.
    """

    name: str
    watcher: str
    phase: str
    run: int = 0
    rows: int = 0
    total: int | None = None
    rate: float = 0.0
    eta: float | None = None
    checkpoint: Any = None
    waits_for: str = ""
    runner: str | None = None
    runner_since: datetime | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""

    @property
    def fraction(self) -> float | None:
        """The part of the rows that is taken, 0 to 1; None: unknown."""
        if self.phase == "complete":
            return 1.0
        return min(1.0, self.rows / self.total) if self.total else None


class Backfill:
    """Enqueues the rows of a source, each once; made by `Watcher.backfill`.

    Rows and checkpoint change in one step of the store, so that a run that is killed at any
    instruction goes on where it was. At most one process of the fleet runs it at a time. Calling it
    calls the function, for tests of one's own.

    Example::

        @write_orders.backfill("orders-2024", total=Order.objects.count)
        def orders(checkpoint):
            for order in Order.objects.filter(id__gt=checkpoint or 0).order_by("id").iterator():
                yield Row({"id": order.id}, checkpoint=order.id)

        orders.run()
    """

    def __init__(
        self, watcher: Watcher, name: str, rows: Callable[[Any], Iterable[Any]], **options: Any
    ) -> None:
        self.watcher = watcher
        self.batcher = watcher.batcher
        self.name = name
        self.rows = rows
        self.total: int | Callable[[], int] | None = options["total"]
        self.priority: str = options["priority"]
        self.max_waiting: int = options["max_waiting"]
        self.chunk: int = options["chunk"]
        self.lease_time: float = options["lease_time"]
        self.slice: float = options["slice"]
        self.queue: str | None = options["queue"]
        module, _, _ = name_of(rows, lambda: self.batcher.app).rpartition(".")
        self.task_name = f"{module}.{self.batcher.name}.{name}"
        self.__doc__ = rows.__doc__
        self.__name__ = getattr(rows, "__name__", name)
        self.__module__ = rows.__module__

    def __repr__(self) -> str:
        return f"<Backfill {self.name} of {self.watcher.name}>"

    def __call__(self, checkpoint: Any = None) -> Iterable[Any]:
        return self.rows(checkpoint)

    def run(
        self,
        progress: Progressed | None = None,
        *,
        again: bool = False,
        max_time: float | timedelta | None = None,
    ) -> BackfillProgress:
        """Enqueue all rows, from where the run before ended; return how far it is then.

        A run that is complete stays so: nothing is enqueued, unless ``again``.

        Args:
            progress: called with a `BackfillProgress` after each chunk, and while it waits.
            again: begin a new run, from the beginning, if the one before is complete.
            max_time: seconds after which to stop; the next run goes on.

        Raises:
            BackfillRunningError: another process runs it.
            BatcherStoppedError: the batcher was stopped in this process.
            StoreUnavailableError: the store does not answer.
            Whatever the function raises, or a row that can never run: rows before it are taken.
        """
        for one in self.steps(again=again, max_time=max_time):
            if progress is not None:
                progress(one)
        return self.status()

    def steps(
        self, *, again: bool = False, max_time: float | timedelta | None = None
    ) -> Generator[BackfillProgress, None, None]:
        """As `run`, progress after progress. To close the iterator ends the run."""
        run = Run(self, again=again, max_time=max_time)
        if not run.begin():
            state = self.state()
            if state.runs:
                raise running(state)
            return
        with closing(run.feed()) as states:
            for state, waits_for in states:
                progress = progress_of(state, waits_for)
                self.batcher.announce_backfill(progress)
                yield progress

    def status(self) -> BackfillProgress:
        """How far it is, from the store, wherever it runs."""
        return progress_of(replace(self.state(), watcher=self.watcher.name))

    def state(self) -> BackfillState:
        """What the store has of it."""
        return self.batcher.store.backfills(self.name)[0]

    def pause(self) -> None:
        """Let it take no more rows, wherever it runs, until `resume`."""
        self.batcher.store.hold_backfill(self.name, self.watcher.name, hold=True)

    def resume(self) -> None:
        """End a pause. Who runs it goes on; nobody is made to run it."""
        self.batcher.store.hold_backfill(self.name, self.watcher.name, hold=False)

    def reset(self) -> None:
        """Forget how far it was: the next run starts at the beginning. What was taken, stays.

        Raises:
            BackfillRunningError: somebody runs it; end that first.
        """
        if not self.batcher.store.reset_backfill(self.name):
            raise running(self.state())

    # As a Celery task

    @property
    def task(self) -> Any:
        """Its Celery task: runs it in slices, each a task of up to ``slice`` seconds."""
        return self.batcher.app.tasks[self.task_name]

    def schedule(self, when: BaseSchedule | float | timedelta) -> Backfill:
        """Let beat begin it: a crontab, or seconds. While it runs, a tick does nothing.

        A tick begins a new run when the one before is complete, and else goes on with it.
        """
        beat.schedule_backfill(self, when)
        return self

    def work(self, *, again: bool) -> tuple[BackfillProgress, float | None]:
        """One slice; how far it is then, and after how many seconds the next is due, if one is."""
        waits_for = ""
        with closing(self.steps(again=again, max_time=self.slice)) as steps:
            for one in steps:
                waits_for = one.waits_for
                if waits_for not in {"", "buffer"}:
                    break
        progress = self.status()
        if progress.phase in {"complete", "failed"}:
            return progress, None
        return progress, _AGAIN_LATER if waits_for else 0.0


def running(state: BackfillState) -> BackfillRunningError:
    """Another runs it."""
    since = _moment(state.since_ms)
    left = max(0, state.until_ms - state.now_ms) / 1000
    owner = state.owner or "nobody"
    return BackfillRunningError(
        f"back-fill {state.name} is run by {owner} since {since}: one process of the fleet runs "
        f"it at a time. If that one is dead, it is free in {left:.0f} s",
        name=state.name,
        owner=owner,
        since=since,
        left=left,
    )


def progress_of(state: BackfillState, waits_for: str = "") -> BackfillProgress:
    """What a state amounts to."""
    seconds = (state.now_ms - state.since_ms) / 1000
    rate = (state.rows - state.since_rows) / seconds if state.runs and seconds > 0 else 0.0
    left = None if state.total is None else max(0, state.total - state.rows)
    phase = _phase(state)
    return BackfillProgress(
        name=state.name,
        watcher=state.watcher,
        phase=phase,
        run=state.run,
        rows=state.rows,
        total=state.total,
        rate=rate,
        eta=None if left is None or not rate or phase != "running" else left / rate,
        checkpoint=Place(checkpoint=state.checkpoint).value,
        waits_for=waits_for or ("pause" if state.paused and state.runs else ""),
        runner=state.owner if state.runs else None,
        runner_since=_moment(state.since_ms) if state.runs else None,
        began_at=_moment(state.began_ms),
        ended_at=_moment(state.ended_ms),
        error=state.error,
    )


def _phase(state: BackfillState) -> str:
    if state.done:
        return "complete"
    if state.paused:
        return "paused"
    if state.runs:
        return "running"
    if not state.run:
        return "new"
    return "failed" if state.error else "interrupted"


def _moment(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, timezone.utc) if ms else None
