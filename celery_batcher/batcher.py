"""The batcher: one per capacity-limited store."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, cast

from celery import Celery, current_app
from celery.local import Proxy

from . import beat, tasks
from .batch import Batch
from .checks import Checker, Problem
from .claim import Claimant
from .clock import Clock, SystemClock
from .config import (
    BATCHER_OPTIONS,
    DELAY,
    SETTINGS,
    WATCHER_OPTIONS,
    Unset,
    check_name,
    check_value,
    check_watcher_name,
    checked,
    milliseconds,
    seconds,
)
from .connections import Connections, connections
from .costs import PLAIN, Cost, check_cost, costs_of
from .duties import Duties
from .enqueuing import Enqueuer, Patience
from .errors import (
    BatcherStoppedError,
    ConfigurationError,
    EnqueueUncertainError,
    ImproperOrderError,
)
from .events import Listener, Listeners, logger
from .explaining import MOST, Explanation, eta, explain
from .operation import Operation, new_id
from .packing import Encoder
from .publishers.base import Outgoing
from .registry import Registry, name_of
from .resources.base import Resource
from .results import results_for
from .status import Status, status_of
from .store.base import Admission, Store
from .store.options import Limits
from .turn import TurnThread, one_flush
from .watcher import Watcher

_SILENT = 0.75
"""A turn with less than this part of its time left was not lengthened lately: its holder is dead
or stands still, and who sees that stays ready to take it."""


class Batcher:
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
        self.name = check_name(name, "batcher")
        self._options = checked(BATCHER_OPTIONS, options, "Batcher")
        if rate_limiter is not None and not isinstance(rate_limiter, Resource):
            raise ConfigurationError(
                f"rate_limiter={rate_limiter!r}, but it is a resource: ProvisionedResource(...)"
            )
        self.rate_limiter = rate_limiter
        if rate_limiter is not None:
            rate_limiter.bind(self)
        self.clock: Clock = clock or SystemClock()
        real: Any = app
        self._app = app = real._get_current_object() if isinstance(real, Proxy) else app
        self._registry = Registry(self.name)
        self._listeners = Listeners()
        self._connections: Connections | None = None
        self._lock = threading.RLock()
        self._checker = Checker(self)
        self._duties = Duties(self, self._listeners, self._checker)
        self._turn = TurnThread(self.name, self._duties)
        self._started = self._stopped = False
        caller = sys._getframe(1)
        self.place = (caller.f_code.co_filename, caller.f_lineno)
        tasks.add_batcher(app, self)
        beat.schedule(app, self)

    def __repr__(self) -> str:
        return f"Batcher({self.name!r}, rate_limiter={self.rate_limiter!r})"

    # Configuration

    @property
    def app(self) -> Celery:
        """The Celery app: the one it was made with, else the current app."""
        return self._app or cast(Any, current_app)._get_current_object()

    def option(self, name: str) -> Any:
        """The value of an option: the constructor's, else the app's setting, else the default."""
        if name in self._options:
            return self._options[name]
        option = BATCHER_OPTIONS[name]
        value = self.app.conf.get(f"batcher_{name}")
        if value is None:
            return option.default
        return check_value(option, f"batcher_{name}", value, "settings")

    def serializer(self) -> str:
        """The name of the serializer of payloads."""
        return str(self.app.conf.get("batcher_serializer") or SETTINGS["batcher_serializer"])

    @property
    def watchers(self) -> dict[str, Watcher]:
        """The watchers registered in this process, by name."""
        return self._registry.all()

    def limits(self) -> Limits:
        """What bounds the batches, in the units of the store."""
        return self._duties.limits()

    @property
    def connections(self) -> Connections:
        """The store and the lanes of this batcher, connected when first used."""
        with self._lock:
            if self._connections is None:
                self._connections = connections(
                    self.app, batcher=self.name, resource=self.resource_name
                )
            return self._connections

    @property
    def resource_name(self) -> str:
        """The name of its resource in the store."""
        resource = self.rate_limiter
        return (resource and resource.name) or self.name

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of what costs are made of; ``("",)`` where they are plain numbers."""
        return PLAIN if self.rate_limiter is None else self.rate_limiter.dimensions

    def max_costs(self) -> tuple[int, ...] | None:
        """The most that an operation may cost, by dimension; None without a limit."""
        resource = self.rate_limiter
        return None if resource is None else costs_of(resource.max_capacity(), self.dimensions)

    @property
    def store(self) -> Store:
        """Where the shared state lives."""
        return self.connections.store

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
        self._check_running()
        publisher = self.connections.publisher
        Enqueuer(self.store, publisher, self.clock, self._check_running).send(
            messages,
            buffer_size=self.option("buffer_size"),
            block=not self.option("error_on_full_buffer"),
            timeout=self.option("enqueue_timeout"),
        )

    def _check_running(self) -> None:
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

    # The fleet

    def pause(self, pause_time: float | timedelta | Unset | None = Unset.option) -> None:
        """Stop releasing and starting batches in the whole fleet.

        Args:
            pause_time: seconds; None: until `resume`; without it the option ``pause_time``. Of
                two pauses the later end wins.
        """
        given = self.option("pause_time") if pause_time is Unset.option else pause_time
        try:
            ms = -1 if given is None else milliseconds(seconds(given))
        except ValueError as exc:
            raise ConfigurationError(f"pause({given!r}): seconds above 0, or None") from exc
        if self.store.pause(ms):
            self._listeners.emit("pause", ms)

    def drain(self, timeout: float | timedelta | None = None) -> bool:
        """Take no more operations, in the whole fleet, and wait until all there are have ended.

        Whoever enqueues gets `BatcherStoppedError`, until `resume`. What is in lanes, waits, is
        delayed or runs is finished as always, within the capacity, by the workers of the fleet. A
        process that dies in here leaves the batcher drained.

        Args:
            timeout: seconds; None: as long as it takes. A batcher that is paused, or that nobody
                flushes, does not end.

        Returns:
            True when nothing is left but dead letters; False when the time was over first.
        """
        given = None if timeout is None else check_value(DELAY, "timeout", timeout, "drain")
        deadline = self.clock.monotonic() + (math.inf if given is None else given)
        if self.store.drain():
            self._listeners.emit("drain", self.store.counts().unfinished)
        patience = Patience(self.clock, deadline)
        self.flush()
        while self.store.counts().unfinished:
            if patience.over():
                return False
        return True

    def resume(self) -> None:
        """End a pause or a drain, in the whole fleet."""
        if self.store.pause(0):
            self._listeners.emit("resume")
        self.flush()

    def flush(self) -> None:
        """Flush as soon as possible, wherever the turn is held. It brings no extra capacity."""
        self._want(wake=True)
        self._turn.wake()

    def set_capacities(self, capacities: Sequence[int], reserved: int | None = None) -> None:
        """Change what the resource may give, by limit; what its `set_capacity` ends in.

        Raises:
            ConfigurationError: the resource has other dimensions or windows in the store.
        """
        self._duties.check_shape()
        self.store.set_capacity(capacities, reserved)
        self._listeners.emit("capacity", capacities[0])
        self.flush()

    def operations_in_buffer(self) -> int:
        """Operations not yet released, those in lanes included."""
        return self.store.counts().buffered

    def needs_capacity(self) -> int:
        """The cost of all operations that are neither done nor dead, in the first dimension."""
        return self.store.counts().unsettled_cost

    def inflight(self) -> int:
        """Batches that are released and not settled."""
        counts = self.store.counts()
        return counts.open_batches + counts.running_batches

    def status(self) -> Status:
        """The state of the batcher, all of one moment."""
        counts = self.store.counts()
        set_aside = tuple(self.store.set_asides(10)) if counts.set_aside else ()
        dimensions = None if self.rate_limiter is None else self.dimensions
        return status_of(
            self.name, counts, set_aside, self._duties.last_flush, dimensions=dimensions
        )

    def explain(self, what: str | Watcher, *, most: int = MOST) -> Explanation:
        """Why an operation waits, what it waits for, and since when; print it to read it.

        It reads the store in small steps and changes nothing.

        Args:
            what: a watcher or its name, for its operation next in turn; else an operation's id.
            most: operations to look at before the search for an id ends without success.

        Raises:
            NoWatcherError: the watcher is another batcher's.
            ConfigurationError: it is neither.
        """
        return explain(self, what, most)

    def eta(self) -> float | None:
        """Seconds until all that is in the buffer is released, lanes included, as it looks now.

        The longest of (cost - credit) x window / (usable capacity x share), over the windows of
        the first dimension, after a pause or a 429; and no less than the longest delay. Share: its
        weight among the batchers in need now. Further dimensions, and workers that are too few,
        are not counted.

        Returns:
            0.0 when the buffer is empty; None when nobody knows: paused until resumed, nobody
            flushes, no capacity, or no resource.
        """
        return eta(self)

    def check(self, timeout: float | timedelta = 1.0) -> list[Problem]:
        """What is wrong with the store, the broker, the settings and the workers; best: nothing.

        The first turn of each process logs what is found without asking workers.

        Args:
            timeout: seconds in which workers must answer.

        Raises:
            StoreUnavailableError, BrokerUnavailableError: a server does not answer.
        """
        return self._checker.all(check_value(DELAY, "timeout", timeout, "check"))

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

    def _want(self, *, wake: bool = False) -> int:
        return self.store.want(beat.wanted_ms(self.option("beat_interval")), wake=wake)

    def limit(self) -> None:
        """One step of the limiter: say what is needed, and lease it where capacity is leased."""
        self._duties.limiter.step()

    def audit(self) -> None:
        """Some steps of the audit.

        It forgets what needs no remembering, voids what never came, and compares counters with
        the data: listeners hear ``audit-pass``, ``audit-fail`` and ``audit-skip``.
        """
        self._duties.audit()

    def run_batch(
        self, watcher: Watcher, batch_id: str, *, soft_limited: bool = False
    ) -> dict[str, Any]:
        """What a watcher's task does in a worker. ``soft_limited``: Celery ends it in time."""
        return Claimant(
            app=self.app,
            store=self.store,
            clock=self.clock,
            limits=self.limits(),
            operation_time=watcher.operation_time,
            watcher=watcher.name,
            handler=watcher.handler,
            policy=watcher.retry_policy,
            listeners=self._listeners,
            emit_batch=self.option("emit_batch"),
            soft_limited=soft_limited,
            results=results_for(self.app, watcher),
            dimensions=self.dimensions,
            cost_key=None if watcher.estimates is None else watcher.estimates.key_of,
            caps_keys=watcher.caps_keys,
        ).run(batch_id)
