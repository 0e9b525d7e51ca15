"""Tests of apps that use batchers: in this process, without a server, on a clock moved by hand.

    def test_orders_are_written():
        with cosmos.testing() as t:
            place_order(id=1)                      # calls write_orders.enqueue(...)
            t.assert_enqueued(write_orders, payload={"id": 1})
            t.run_until_done()
            t.assert_done(write_orders, count=1)

See docs/testing.md; `celery_batcher.contrib.pytest` has it as a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.backends.cache import CacheBackend

from . import expecting
from .clock import ManualClock
from .errors import ConfigurationError
from .operation import Operation
from .records import CapturedBatch, Records
from .stand_ins import Place, RehearsalClock, StandIn
from .watcher import Watcher

if TYPE_CHECKING:
    from .batch import Batch
    from .batcher import Batcher

__all__ = ["CapturedBatch", "Rehearsal", "rehearse"]

ANY = expecting.ANY
_LEAST = 0.001
"""Seconds that pass at least between two flushes."""


@contextmanager
def rehearse(*batchers: Batcher) -> Iterator[Rehearsal]:
    """Test with these batchers for the time of a `with` block; `Batcher.testing` for one of them.

    Store, lanes and results are in memory, empty at first and gone afterwards; nothing is sent to
    the broker; batches run when the test says so, in this process and one after the other, as
    Celery tasks do with `apply`. Batchers that share a resource share it here, too.

    Raises:
        ImproperOrderError: one of them is being tested already, or flushes in this process.
        ConfigurationError: there is none, or a later batcher has taken the name of one.
    """
    if not batchers:
        raise ConfigurationError("rehearse() what? Give it the batchers: rehearse(cosmos)")
    rehearsal = Rehearsal(batchers)
    entered: list[StandIn] = []
    apps = {id(one.app): one.app for one in batchers}.values()
    backends = [(app, app.backend) for app in apps]
    try:
        for one in rehearsal._stand_ins:
            entered.append(one)
            one.enter()
        for app in apps:
            _keep_results_here(app)
        yield rehearsal
    finally:
        for one in reversed(entered):
            one.leave()
        for app, backend in backends:
            _set_backend(app, backend)


def _keep_results_here(app: Celery) -> None:
    """Let the app keep results in memory, if it keeps any."""
    if not isinstance(app.backend, DisabledBackend):
        _set_backend(app, CacheBackend(app=app, url="memory://"))


def _set_backend(app: Any, backend: Any) -> None:
    app._backend_cache = None
    app._backend = backend


class Rehearsal:
    """What `rehearse` gives: runs batches, moves time, and tells what happened.

    Attributes:
        clock: the time of the test; ``clock.advance(seconds)`` moves it, and nothing else happens.
    """

    def __init__(self, batchers: Sequence[Batcher]) -> None:
        self.clock: ManualClock = RehearsalClock(self._keep_up, self._meanwhile)
        self._records = Records(self.clock)
        place = Place(self.clock, self._records)
        self._stand_ins = [StandIn(one, place) for one in dict.fromkeys(batchers)]
        self._stepping = False

    @property
    def batches(self) -> list[CapturedBatch]:
        """The batches that ran, in order."""
        return list(self._records.batches)

    @property
    def operations(self) -> list[Operation]:
        """The operations that were enqueued, in order, as their handlers will get them."""
        return list(self._records.operations.values())

    # Running

    def step(self) -> list[CapturedBatch]:
        """Flush once, and run the batches that it released; return those that ran.

        No time passes. What a handler raises is in the batch (``error``), and its operations are
        tried again as in production.
        """
        ran = len(self._records.batches)
        self._step()
        return self._records.batches[ran:]

    def run(self, *, seconds: float) -> list[CapturedBatch]:
        """Let so many seconds pass, flushing and running batches as a worker would."""
        ran, end = len(self._records.batches), self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 0:
            self.clock.advance(min(left, max(_LEAST, self._step())))
        return self._records.batches[ran:]

    def run_until_done(self, *, timeout: float = 600.0) -> list[CapturedBatch]:
        """Run until every operation is done or dead, however long it takes on the test's clock.

        Args:
            timeout: seconds of the test's clock.

        Raises:
            AssertionError: some were neither when the time was over; it says what they wait for.
        """
        ran, end = len(self._records.batches), self.clock.monotonic() + timeout
        while True:
            wait = self._step()
            if not self._unfinished():
                return self._records.batches[ran:]
            if self.clock.monotonic() >= end:
                raise AssertionError(expecting.stuck(self._batchers, timeout))
            self.clock.advance(max(_LEAST, wait))

    def fail_next(self, watcher: str | Watcher, error: BaseException, *, batches: int = 1) -> None:
        """Let the next batches of a watcher raise instead of being handled.

        Args:
            error: ``Throttled(retry_after=2.0)`` for a 429, ``SoftTimeLimitExceeded()`` for a
                time-out, or whatever a client raises.
            batches: how many.
        """
        found = self._watcher(watcher)
        found.handler = _failing(found, found.handler, error, batches)

    def _step(self) -> float:
        """Flush each batcher and run what is due; return the seconds to the next flush."""
        self._stepping = True
        try:
            waits = []
            for one in self._stand_ins:
                waits.append(one.flush())
                while one.due:
                    self._work(one.batcher, one.due.popleft().id)
            return min(waits)
        finally:
            self._stepping = False

    def _work(self, batcher: Batcher, id: str) -> None:
        watcher = self._records.watcher_of(id)
        result = batcher.app.tasks[watcher].apply((id,), task_id=id, throw=False)
        if isinstance(result.result, BaseException):
            self._records.failed(id, result.result)

    def _keep_up(self) -> None:
        """Time passes in a handler: a turn takes back what is late."""
        if self._stepping:
            for one in self._stand_ins:
                one.keep_up()

    def _meanwhile(self) -> None:
        """Somebody waits, in `enqueue` or `drain`: the fleet goes on."""
        if not self._stepping:
            self._step()

    def _unfinished(self) -> int:
        return sum(one.batcher.store.counts().unfinished for one in self._stand_ins)

    @property
    def _batchers(self) -> list[Batcher]:
        return [one.batcher for one in self._stand_ins]

    def _watcher(self, watcher: str | Watcher) -> Watcher:
        return expecting.watcher_among(self._batchers, watcher)

    # Assertions

    def assert_enqueued(
        self,
        watcher: str | Watcher,
        *,
        payload: Any = ANY,
        key: Any = ANY,
        cost: Any = ANY,
        count: int | None = None,
    ) -> None:
        """Such operations were enqueued: at least one, or exactly ``count``.

        Args:
            payload, key, cost: what they have; a payload as it was enqueued, or as its handler
                gets it.
        """
        self._expect("enqueued", watcher, (payload, key, cost), count, None)

    def assert_done(
        self,
        watcher: str | Watcher,
        *,
        payload: Any = ANY,
        key: Any = ANY,
        cost: Any = ANY,
        count: int | None = None,
    ) -> None:
        """Such operations are done: at least one, or exactly ``count``."""
        done = self._records.done
        self._expect("done", watcher, (payload, key, cost), count, done.__contains__)

    def assert_dead(
        self,
        watcher: str | Watcher,
        *,
        payload: Any = ANY,
        key: Any = ANY,
        cost: Any = ANY,
        reason: str = "",
        count: int | None = None,
    ) -> None:
        """Such operations are dead: at least one, or exactly ``count``.

        Args:
            reason: a part of the reason, which ends in the traceback of what the handler raised.
        """
        dead = self._records.dead
        what = f"dead{reason and f' for {reason!r}'}"
        self._expect(
            what,
            watcher,
            (payload, key, cost),
            count,
            lambda one: one in dead and reason in dead[one],
        )

    def assert_never_over_capacity(self) -> None:
        """In every window of every limit, the batches that started in it cost no more than it.

        Raises:
            ConfigurationError: none of the batchers has a ``rate_limiter``.
        """
        if all(one.rate_limiter is None for one in self._batchers):
            raise ConfigurationError("none of these batchers has a rate_limiter: nothing to keep")
        over = expecting.over_capacity(self._records.starts)
        if over:
            raise AssertionError(over)

    def _expect(
        self,
        what: str,
        watcher: str | Watcher,
        wanted: tuple[Any, Any, Any],
        count: int | None,
        state: Callable[[tuple[str, str]], bool] | None,
    ) -> None:
        message = expecting.mismatch(
            self._records, what, self._watcher(watcher), wanted, count, state
        )
        if message:
            raise AssertionError(message)


def _failing(
    watcher: Watcher, handler: Callable[[Batch], Any], error: BaseException, batches: int
) -> Callable[[Batch], Any]:
    left = batches

    def handle(batch: Batch) -> Any:
        nonlocal left
        if left <= 0:
            return handler(batch)
        left -= 1
        raise error

    handle.__module__ = watcher.__module__
    return handle
