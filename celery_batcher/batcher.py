"""The batcher: one per capacity-limited store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from celery import Celery

from . import beat, eager, tasks
from .announcing import Announcer
from .backfill import Backfill, BackfillProgress
from .batch import Batch
from .checks import Checker
from .claim import Claimant
from .clock import Clock, SystemClock
from .config import WATCHER_OPTIONS, check_watcher_name, checked
from .controls import Controls
from .costs import Cost, check_cost
from .duties import Duties
from .enqueuing import Enqueuer
from .errors import (
    BatcherStoppedError,
    ConfigurationError,
    EnqueueError,
    EnqueueUncertainError,
    ImproperOrderError,
)
from .events import Listener, Listeners, logger
from .operation import Operation, new_id
from .packing import Encoder
from .publishers.base import Outgoing
from .registry import name_of
from .resources.base import Resource
from .results import results_for
from .store.base import Admission, TakenBack
from .turn import TurnThread, one_flush
from .watcher import Watcher

if TYPE_CHECKING:
    from .testing import Rehearsal

_SILENT = 0.75
"""A turn with less than this part of its time left was not lengthened lately: its holder is dead
or stands still, and who sees that stays ready to take it."""


class Batcher(Controls):
    """Takes operations for one capacity-limited store and gives them to watchers as batches.

    A batcher holds no state of its own: it is the same wherever its module is imported. What
    waits, runs and is held is in the store, and shared by the whole fleet.

    Args:
        name: letters, digits, ``_`` and ``-``.
        app: the Celery app; without one, the current app when it is needed.
        rate_limiter: the resource that bounds the batches; without one there is no limit.
        options: see the reference; seconds are numbers or timedeltas.

    Raises:
        InvalidNameError: a broker or a key could not carry the name.
        ConfigurationError: an option is unknown or wrong, or another batcher has the name.

    Example::

        app = Celery("proj", broker="redis://localhost:6379/0")
        cosmos = Batcher("cosmos", app=app, rate_limiter=ProvisionedResource(20_000))

        @cosmos.watcher(max_batch_size=100)
        def write_orders(batch):
            container.bulk_write([op.payload for op in batch])

        write_orders.enqueue({"id": 1}, cost=10)
    """

    def __init__(
        self,
        name: str,
        *,
        app: Celery | None = None,
        rate_limiter: Resource | None = None,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, app, rate_limiter, options)
        if rate_limiter is not None:
            rate_limiter.bind(self)
        self.clock = clock or SystemClock()
        self._listeners = Listeners()
        self._announcer = Announcer(self)
        self._checker = Checker(self)
        self._duties = Duties(self, self._listeners, self._announcer, self._checker)
        self._turn = TurnThread(self.name, self._duties)
        self._started = self._stopped = False
        caller = sys._getframe(1)
        self.place = (caller.f_code.co_filename, caller.f_lineno)
        tasks.add_batcher(self._app, self)
        beat.schedule(self._app, self)

    def __repr__(self) -> str:
        return f"Batcher({self.name!r}, rate_limiter={self.rate_limiter!r})"

    # Watchers

    def watcher(
        self,
        *,
        name: str | None = None,
        cost: Cost | Callable[[Any], Cost] = 1,
        queue: str | None = None,
        ignore_result: bool = True,
        **options: Any,
    ) -> Callable[[Callable[[Batch], Any]], Watcher]:
        """Decorate a function that handles batches; it becomes a watcher and a Celery task.

        Args:
            name: the watcher's and the task's; by default the function's dotted name.
            cost: of operations that are enqueued without one; a number or a function of the
                payload.
            queue: the Celery queue of its batches; by default Celery's routing.
            ignore_result: False keeps results in Celery's result backend: of each operation, under
                its id, and of the batch.
            options: ``max_batch_size`` (500), ``max_attempts`` (3, 0: no limit),
                ``max_operation_time`` (the batcher's), ``max_concurrent_batches``, ``weight``
                (1), ``batch_by_key`` (False), caps of each key (docs/keys.md): ``key_capacity``
                per ``key_window`` (1.0) and ``key_concurrency``; ``max_dead_letters`` (10,000: the
                oldest go); and as for tasks of Celery ``retry_backoff`` (False),
                ``retry_backoff_max`` (600), ``retry_jitter`` (True), ``autoretry_for`` (every
                ``Exception``), ``dont_autoretry_for``: what neither retries is dead; and ``bisect``
                (True): a batch of more than one that fails is tried again in halves, and no attempt
                counts until an operation is alone; ``estimate`` (False): what operations cost that
                are enqueued without one is learned from what the handler charges (`Batch.charge`),
                and ``cost`` counts until then; ``cost_key``: a function of the payload to a text,
                for an estimate by key.

        Raises:
            ConfigurationError: an option is unknown or wrong, or another function has the name.
        """
        values = {key: option.default for key, option in WATCHER_OPTIONS.items()}
        values |= checked(WATCHER_OPTIONS, options, "watcher")
        if not callable(cost):
            check_cost(cost)
        if values["cost_key"] is not None and not values["estimate"]:
            raise ConfigurationError("watcher: cost_key=... says nothing without estimate=True")

        def register(handler: Callable[[Batch], Any]) -> Watcher:
            watcher_name = check_watcher_name(name or name_of(handler, lambda: self.app))
            watcher = Watcher(self, handler, watcher_name, cost, values)
            self._registry.check(watcher_name, handler)
            tasks.add_watcher(self._app, watcher, queue=queue, ignore_result=ignore_result)
            self._registry.add(watcher)
            return watcher

        return register

    def add_backfill(self, backfill: Backfill) -> Backfill:
        """Register a back-fill that `Watcher.backfill` made, and its Celery task.

        Raises:
            ConfigurationError: another function has its name.
        """
        self._registry.add_backfill(backfill)
        tasks.add_backfill(self._app, backfill)
        return backfill

    # Enqueuing

    def enqueue(self, operation: Operation) -> str:
        """Enqueue one operation made by `Watcher.operation`; return its id.

        Raises:
            NoOperationError: it is not an operation.
            NoWatcherError: its watcher is not registered here.
            TooManyAttemptsError: it has used its attempts.
            And everything that `Watcher.enqueue` raises.
        """
        watcher = self._registry.watcher_of(operation)
        encoder = self.encoder(watcher)
        cost, *_ = encoder.check(operation.cost)
        entry = encoder.one(operation)
        # The message has an id of its own: its operation's may come again, once that is done.
        try:
            self.send([Outgoing(Admission(new_id(), watcher.name, 1, cost), entry)])
        except EnqueueUncertainError as exc:
            exc.id = operation.id
            raise
        return operation.id

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Bring encoded messages into lanes; what `enqueue` and `enqueue_many` end in."""
        self.check_running()
        connected = self.connections
        if connected.eager:
            self._announcer.enqueued(messages)
            eager.run(self, messages)
            return
        enqueuer = Enqueuer(connected.store, connected.publisher, self.clock, self.check_running)
        try:
            enqueuer.send(
                messages,
                buffer_size=self.option("buffer_size"),
                block=not self.option("error_on_full_buffer"),
                timeout=self.option("enqueue_timeout"),
            )
        except EnqueueError as exc:
            self._announcer.enqueued(messages, exc.enqueued)
            raise
        self._announcer.enqueued(messages)

    def announce_rows(self, message: Outgoing) -> None:
        """Tell that rows of a back-fill are in the index."""
        self._announcer.enqueued([message])

    def announce_backfill(self, progress: BackfillProgress) -> None:
        """Tell how far a back-fill is."""
        self._announcer.backfill(progress.name, progress)

    def check_running(self) -> None:
        """
        Raises:
            BatcherStoppedError: this process enqueues no more.
        """
        if self._stopped:
            raise BatcherStoppedError(
                f"batcher {self.name} was stopped in this process and takes no more operations"
            )

    def encoder(self, watcher: Watcher) -> Encoder:
        """What encodes the operations of a watcher."""
        return Encoder(
            watcher.name,
            self.serializer(),
            self.max_costs(),
            self.clock,
            self.dimensions,
            watcher.key_capacity,
        )

    # This process

    def start(self) -> None:
        """Flush in this process, without beat, until `stop`.

        Raises:
            ImproperOrderError: it was started or stopped before.
            ConfigurationError: there is no store.
        """
        connected = self.connections
        with self._lock:
            if self._started or self._stopped:
                was = "stopped" if self._stopped else "started"
                raise ImproperOrderError(f"batcher {self.name} was {was} in this process before")
            self._started = True
        logger.debug("%s flushes in this process, store %s", self.name, connected.store.url)
        self._turn.ensure(unasked=True)

    def stop(self) -> None:
        """Flush and enqueue no more in this process. The fleet goes on; nothing is dropped."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self._turn.stop()
        self._listeners.emit("shutdown")

    def testing(self, *others: Batcher) -> AbstractContextManager[Rehearsal]:
        """Test what uses it, for the time of a ``with`` block: in this process, without a server.

        Operations wait until the test runs them, on a clock that the test moves
        (`celery_batcher.testing.rehearse`, docs/testing.md).

        Args:
            others: further batchers, for example of the same resource.

        Raises:
            ImproperOrderError: one of them is being tested already, or flushes in this process.
        """
        from .testing import rehearse

        return rehearse(self, *others)

    def add_listener(self, listener: Listener) -> int:
        """Call ``listener(event, val, msg, metadata)`` on events of this process; return its id."""
        return self._listeners.add(listener)

    def remove_listener(self, listener_id: int) -> None:
        """Call a listener no more."""
        self._listeners.remove(listener_id)

    # What beat ticks

    def tick(self) -> None:
        """What a tick of the flush task does in this process; it returns at once."""
        if self._stopped:
            return
        if self.option("flush_mode") == "tick":
            one_flush(self._duties)
            return
        left_ms = self._want()
        if left_ms < _SILENT * self._duties.rhythm().lasts_ms:
            self._turn.ensure(after=left_ms / 1000)

    def leave(self) -> None:
        """Give the turn back because the worker ends; one that `start` began goes on."""
        if not self._started:
            self._turn.stop()

    def limit(self) -> None:
        """One step of the limiter: say what is needed, and lease it where capacity is leased."""
        self._duties.limiter.step()

    def audit(self) -> None:
        """Some steps of the audit.

        It forgets what needs no remembering, voids what never came, and compares counters with
        the data: listeners hear ``audit-pass``, ``audit-fail`` and ``audit-skip``.
        """
        self._duties.audit()

    def taken_back(self, taken: TakenBack, reason: str) -> None:
        """What is told of a batch that was taken back from a child that was lost."""
        self._duties.on_taken_back(taken, reason)

    def run_batch(
        self, watcher: Watcher, batch_id: str, *, soft_limited: bool = False
    ) -> dict[str, Any]:
        """What a watcher's task does in a worker. ``soft_limited``: Celery ends it in time."""
        claimant = Claimant(
            app=self.app,
            store=self.store,
            clock=self.clock,
            limits=self.limits(),
            operation_time=watcher.operation_time,
            watcher=watcher.name,
            handler=watcher.handler,
            policy=watcher.retry_policy,
            max_attempts=watcher.max_attempts,
            listeners=self._listeners,
            announcer=self._announcer,
            emit_batch=self.option("emit_batch"),
            soft_limited=soft_limited,
            results=results_for(self.app, watcher),
            dimensions=self.dimensions,
            cost_key=None if watcher.estimates is None else watcher.estimates.key_of,
            caps_keys=watcher.caps_keys,
        )
        return eager.fitted(claimant, batch_id).run(batch_id)
