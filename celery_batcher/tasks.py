"""Celery tasks: the control tasks that beat ticks, and one per watcher."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from celery import Celery, shared_task, signals
from celery.exceptions import Reject
from celery.utils.imports import symbol_by_name
from kombu.exceptions import KombuError

from . import wire
from .apart import apart
from .celery_events import sending
from .costs import PLAIN, spoken
from .errors import BackfillRunningError, BrokerUnavailableError, ConfigurationError, NoBatcherError
from .intakes.base import lane_name
from .store.base import Released
from .worker.children import look_after_children
from .worker.remote import register as register_remote
from .worker.stopping import soft_limited

if TYPE_CHECKING:
    from .backfill import Backfill
    from .batcher import Batcher
    from .watcher import Watcher

logger = logging.getLogger("celery_batcher")

_of_app: WeakKeyDictionary[Celery, dict[str, Batcher]] = WeakKeyDictionary()
_of_any_app: dict[str, Batcher] = {}
_names_of_app: WeakKeyDictionary[Celery, set[str]] = WeakKeyDictionary()
_names_of_any_app: set[str] = set()
_CONTROL: dict[str, Any] = {"ignore_result": True, "expires": 30, "send_events": False}


def add_batcher(app: Celery | None, batcher: Batcher) -> None:
    """Make a batcher known to the control tasks of its app (of every app without one).

    Raises:
        ConfigurationError: another batcher has the name.
    """
    batchers = _of_any_app if app is None else _of_app.setdefault(app, {})
    known = batchers.get(batcher.name)
    if known is not None and known.place != batcher.place:
        raise ConfigurationError(
            f"there is a batcher {batcher.name!r} already, made in "
            f"{known.place[0]}:{known.place[1]}; give this one another name"
        )
    batchers[batcher.name] = batcher


def find_batcher(app: Celery, name: str) -> Batcher | None:
    """The batcher of this name, as this process has it."""
    return _of_app.get(app, {}).get(name) or _of_any_app.get(name)


def the_batcher(app: Celery, name: str) -> Batcher:
    """The batcher of this name, as this process has it.

    Raises:
        NoBatcherError: there is none; it names those that look like it, and all there are.
    """
    if (found := find_batcher(app, name)) is not None:
        return found
    known = sorted(one.name for one in batchers(app))
    near = tuple(difflib.get_close_matches(name, known))
    if not known:
        has = "it has none at all: import the module that makes them (imports=, include=)"
    elif near:
        has = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        has = f"it has {', '.join(known)}"
    raise NoBatcherError(f"the app has no batcher {name!r}: {has}", name=name, near=near)


def batcher_of(app: Celery, watcher: str) -> Batcher | None:
    """The batcher that has a watcher of this name, as this process knows it."""
    return next((one for one in batchers(app) if watcher in one.watchers), None)


def batchers(app: Celery) -> list[Batcher]:
    """All batchers of an app in this process."""
    return [*_of_app.get(app, {}).values(), *_of_any_app.values()]


def _with_batcher(app: Celery, name: str, act: Callable[[Batcher], object]) -> None:
    batcher = find_batcher(app, name)
    if batcher is None:
        logger.warning("no batcher %r in this process: a stale beat entry?", name)
    else:
        act(batcher)


@shared_task(name="celery_batcher.flush", bind=True, **_CONTROL)
def flush(self: Any, name: str) -> None:
    """Keep a batcher flushed until some beats from now; returns at once."""
    _with_batcher(self.app, name, lambda batcher: batcher.tick())


@shared_task(name="celery_batcher.limit", bind=True, **_CONTROL)
def limit(self: Any, name: str) -> None:
    """One step of the limiter."""
    _with_batcher(self.app, name, lambda batcher: batcher.limit())


@shared_task(name="celery_batcher.audit", bind=True, **_CONTROL)
def audit(self: Any, name: str) -> None:
    """One step of the audit."""
    _with_batcher(self.app, name, lambda batcher: batcher.audit())


@shared_task(
    name=wire.RETURN_TASK,
    bind=True,
    acks_late=True,
    reject_on_worker_lost=True,
    ignore_result=True,
    send_events=False,
)
def return_to_lane(self: Any, name: str, watcher: str, data: str) -> None:
    """Run when a worker consumes a lane by mistake: it is told to stop, the message goes back."""
    lane = lane_name(name, watcher)
    logger.error("a worker consumes the lane %s: it is told to stop, the message goes back", lane)
    self.app.control.cancel_consumer(lane, destination=[self.request.hostname])
    raise Reject("a message of a lane is no task", requeue=True)


class _BatchRequest:
    """The attribute ``Request`` of a watcher's task: made of what the app's own tasks have there.

    It is made when a worker asks: nobody else needs it, or a class of requests at all.
    """

    def __get__(self, task: Any, task_class: type) -> type:
        from .worker.request import gives_back

        own: Any = super(task_class, task_class)
        return gives_back(symbol_by_name(own.Request))


def add_watcher(
    app: Celery | None, watcher: Watcher, *, queue: str | None, ignore_result: bool
) -> None:
    """Register the Celery task of a watcher.

    Raises:
        ConfigurationError: a watcher of another batcher of the app has the name.
    """
    name, batcher = watcher.name, watcher.batcher
    for other in _of_any_app.values() if app is None else batchers(app):
        if other.name != batcher.name and name in other.watchers:
            raise ConfigurationError(
                f"batcher {other.name} has a watcher {name} already; give this one another name"
            )
    watcher.keeps_results = not ignore_result
    watcher.queue = queue  # Celery 5.7 warns of queues as attributes of tasks
    registered = _names_of_any_app if app is None else _names_of_app.setdefault(app, set())
    if name in registered:
        return  # by a module that was loaded before
    registered.add(name)

    def handle(task: Any, batch_id: str) -> dict[str, Any]:
        # A module that was loaded again has replaced both, and Celery kept the task.
        current = find_batcher(task.app, batcher.name) or batcher
        return current.run_batch(
            current.watchers.get(name, watcher), batch_id, soft_limited=soft_limited(task.request)
        )

    if watcher.__name__.isidentifier():  # a lambda's is not, and Celery writes code with it
        handle.__name__ = handle.__qualname__ = watcher.__name__
    handle.__module__ = watcher.__module__
    handle.__doc__ = watcher.__doc__
    options: dict[str, Any] = {
        "name": name,
        "bind": True,
        "ignore_result": ignore_result,
        "Request": _BatchRequest(),
    }
    if app is None:
        shared_task(**options)(handle)
    else:
        cast(Any, app).task(shared=False, **options)(handle)


def add_backfill(app: Celery | None, backfill: Backfill) -> None:
    """Register the Celery task of a back-fill."""
    name, batcher = backfill.task_name, backfill.batcher
    registered = _names_of_any_app if app is None else _names_of_app.setdefault(app, set())
    if name in registered:
        return  # by a module that was loaded before
    registered.add(name)

    def work(task: Any, again: bool = True) -> dict[str, Any]:
        # A module that was loaded again has replaced both, and Celery kept the task.
        current = find_batcher(task.app, batcher.name) or batcher
        return _work(task, current.backfills.get(backfill.name, backfill), again=again)

    if backfill.__name__.isidentifier():
        work.__name__ = work.__qualname__ = backfill.__name__
    work.__module__ = backfill.__module__
    work.__doc__ = backfill.__doc__
    # A slice whose worker is lost is done again; it is far shorter than any visibility timeout.
    options: dict[str, Any] = {
        "name": name,
        "bind": True,
        "ignore_result": True,
        "acks_late": True,
        "reject_on_worker_lost": True,
    }
    if app is None:
        shared_task(**options)(work)
    else:
        cast(Any, app).task(shared=False, **options)(work)


def _work(task: Any, backfill: Backfill, *, again: bool) -> dict[str, Any]:
    """A slice of a back-fill; what is left is sent as another task."""
    delivery = task.request.delivery_info or {}
    after: float | None
    try:
        progress, after = backfill.work(again=again)
    except BackfillRunningError as exc:
        # A tick meets a run that goes on by itself. Who goes on a dead one's waits for its lease.
        progress = backfill.status()
        after = None if again and not delivery.get("redelivered") else exc.left + 1
    if after is not None:
        route = {} if backfill.queue is None else {"queue": backfill.queue}
        task.apply_async(kwargs={"again": False}, countdown=after or None, **route)
    return {"phase": progress.phase, "run": progress.run, "rows": progress.rows}


def publish_batches(
    app: Celery, watchers: Mapping[str, Watcher], batches: Sequence[Released]
) -> list[str]:
    """Publish one Celery task per batch, in one pipeline where the broker has them.

    A batch that cannot be published for a reason of its own (a queue that is not configured, a
    router that raises) is logged, and is no hindrance to the others.

    Returns:
        The ids of the batches whose tasks were published.

    Raises:
        BrokerUnavailableError: the broker did not answer; some may have been published.
    """
    published: list[str] = []
    with app.producer_or_acquire() as producer:
        connection: Any = producer.connection
        away = (OSError, KombuError, *connection.connection_errors, *connection.channel_errors)
        pipelined = len(batches) > 1 and getattr(producer, "supports_batch_publish", False)
        try:
            with producer.batch() if pipelined else nullcontext():
                for batch in batches:
                    try:
                        _publish_batch(app, watchers.get(batch.watcher), batch, producer)
                    except away:
                        raise
                    except Exception:
                        logger.exception("a batch of %s cannot be published", batch.watcher)
                    else:
                        published.append(batch.id)
        except away as exc:
            raise BrokerUnavailableError(
                f"the broker at {connection.as_uri()} does not answer ({exc}): is it up?"
            ) from exc
    return published


def _publish_batch(app: Celery, watcher: Watcher | None, batch: Released, producer: Any) -> None:
    dimensions = PLAIN if watcher is None else watcher.batcher.dimensions
    cost = spoken((batch.cost, *batch.further), dimensions)
    noun = "operation" if batch.operations == 1 else "operations"
    options: dict[str, Any] = {
        "task_id": batch.id,
        "producer": producer,
        "argsrepr": f"({batch.operations} {noun}, cost {cost}, "
        f"oldest {batch.oldest_ms / 1000:.1f} s)",
        "kwargsrepr": "{}",
    }
    if watcher is not None:
        grace = watcher.batcher.option("claim_grace")
        options["soft_time_limit"] = watcher.operation_time
        options["time_limit"] = watcher.operation_time + grace
        if watcher.keeps_results:  # but whoever publishes does not wait for that of the batch
            options |= {"ignore_result": True, "headers": {"ignore_result": False}}
        if watcher.queue is not None:
            options["queue"] = watcher.queue
    task = app.tasks.get(batch.watcher)
    if task is None:
        app.send_task(batch.watcher, (batch.id,), **options)
    else:
        task.apply_async((batch.id,), **options)


def _leave_turns(**_: Any) -> None:
    """A worker's process ends: let another have the turn at once, and finish what is done apart."""
    for found in [
        *_of_any_app.values(),
        *(one for own in _of_app.values() for one in own.values()),
    ]:
        found.leave()
    apart.finish()
    sending.finish()


signals.celeryd_init.connect(register_remote, weak=False)
signals.worker_init.connect(register_remote, weak=False)
signals.worker_ready.connect(look_after_children, weak=False)
signals.worker_process_shutdown.connect(_leave_turns, weak=False)
signals.worker_shutdown.connect(_leave_turns, weak=False)
