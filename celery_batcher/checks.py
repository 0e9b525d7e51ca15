"""Checks of what a batcher runs on: what would lose, delay or repeat work, said before it does.

`Batcher.check` makes all of them; the first turn of a process logs those that ask no worker.
docs/production.md has the table of codes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.exceptions import QueueNotFound
from kombu.exceptions import KombuError
from kombu.utils.url import maybe_sanitize_url

from .clock import Clock
from .config import SETTINGS
from .connections import broker_facts, broker_url
from .errors import BatcherError, BrokerUnavailableError
from .intakes.base import lane_name
from .store.counts import Facts

if TYPE_CHECKING:
    from .batcher import Batcher
    from .watcher import Watcher

logger = logging.getLogger("celery_batcher")

LEVELS = {"E": "error", "W": "warning", "I": "info"}
_NUMBERS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}

_JUMP = 1.0
_APART = 5.0
"""Seconds that clocks may differ: control tasks expire after 30 s, and ages are shown."""
_LEAST_GRACE = 0.5
_VISIBILITY = {
    "redis": 3600,
    "rediss": 3600,
    "redis+socket": 3600,
    "sentinel": 3600,
    "sqs": 1800,
}
"""Seconds after which transports deliver again what is not acknowledged, unless they are told."""
_CONSUMER_TIMEOUT = 1800
_AMQP = frozenset({"amqp", "amqps", "pyamqp"})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a batcher runs on and that is not as it should be.

    Attributes:
        level: ``error`` (work may be lost or stand still), ``warning`` or ``info``.
        code: ``celery_batcher.E001``, ``W...``, ``I...``: stays the same when texts change.
        message: what is wrong, and what to do.
    """

    level: str
    code: str
    message: str


def _problem(code: str, message: str) -> Problem:
    return Problem(LEVELS[code[0]], f"celery_batcher.{code}", message)


class Checker:
    """The checks of one batcher in this process."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._watch = ClockWatch(batcher.clock)
        self._logged_pid = 0

    def all(self, timeout: float) -> list[Problem]:
        """Every check; workers have this many seconds to answer, twice."""
        return [*self.local(), *worker_problems(self._batcher, timeout)]

    def local(self) -> list[Problem]:
        """The checks that ask servers and settings only."""
        batcher = self._batcher
        facts = self._facts()
        problems = [*self._watch.problems(facts.now_ms)]
        problems += server_problems(f"the store at {batcher.store.url}", facts)
        broker = broker_facts(batcher.app, batcher.store)
        if broker is not None:
            problems += server_problems(f"the broker at {broker[0]}", broker[1])
        problems += timing_problems(batcher)
        return problems

    def _facts(self) -> Facts:
        self._watch.ask()
        return self._batcher.store.facts()

    def log_once(self) -> None:
        """Log the problems that are found without workers, once in this process; never fails."""
        if self._logged_pid == os.getpid():
            return
        self._logged_pid = os.getpid()
        try:
            self._log(self.local())
        except BatcherError as exc:
            logger.info("%s could not be checked: %s", self._batcher.name, exc)
        except Exception:
            logger.exception("%s could not be checked", self._batcher.name)

    def watch_clock(self) -> None:
        """Log when the store's clock was moved since the last look.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        self._log(self._watch.jumps(self._facts().now_ms))

    def _log(self, problems: Iterable[Problem]) -> None:
        for one in problems:
            logger.log(
                _NUMBERS[one.level], "%s: %s (%s)", self._batcher.name, one.message, one.code
            )


def server_problems(what: str, facts: Facts) -> Iterator[Problem]:
    """What a Redis server's configuration means for what it keeps."""
    if facts.eviction is None or facts.append_only is None:
        yield _problem(
            "I001",
            f"{what} does not say how it evicts and persists: this could not be checked, "
            "look at it in the console of its provider",
        )
    if facts.eviction is not None and facts.eviction.startswith("allkeys"):
        yield _problem(
            "E001",
            f"{what} evicts keys when its memory is full (maxmemory-policy {facts.eviction}), "
            "and operations with them: set maxmemory-policy noeviction",
        )
    elif facts.eviction not in {None, "noeviction"}:
        yield _problem(
            "W002",
            f"{what} evicts keys that expire when its memory is full (maxmemory-policy "
            f"{facts.eviction}): those of a batcher do not, results do. "
            "Set maxmemory-policy noeviction",
        )
    if facts.append_only is False:
        yield _problem(
            "W001",
            f"{what} writes no append-only file: what it has is lost when it ends, up to its "
            "last snapshot. Set appendonly yes",
        )


class ClockWatch:
    """Notices when the store's clock was moved, as seen from this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asked = 0.0
        self._seen: tuple[int, float] | None = None

    def ask(self) -> None:
        """Called just before the store is asked for its time."""
        self._asked = self._clock.monotonic()

    def problems(self, store_ms: int) -> Iterator[Problem]:
        """What is wrong with the time that the store has just told."""
        yield from self.jumps(store_ms)
        apart = (self._clock.now_ms() - store_ms) / 1000
        if abs(apart) > _APART + self._taken():
            yield _problem(
                "W004",
                f"the clock of this machine is {abs(apart):.1f} s "
                f"{'ahead of' if apart > 0 else 'behind'} the store's: ages are wrong by that, and "
                "beyond 30 s workers drop control tasks as expired. Synchronise both (NTP)",
            )

    def jumps(self, store_ms: int) -> Iterator[Problem]:
        """Whether the store's clock went another way than this process's since the last look."""
        before, at = self._seen, self._clock.monotonic()
        self._seen = store_ms, at
        if before is None:
            return
        passed, told = at - before[1], (store_ms - before[0]) / 1000
        if abs(told - passed) > _JUMP + self._taken():
            step = "back" if told < passed else "forward"
            yield _problem(
                "W003",
                f"the store's clock was stepped {step} by {abs(told - passed):.1f} s: stepped "
                "forward, it may let a window exceed the capacity; stepped back, holds and delays "
                "last longer. Let it be slewed (chrony, ntpd -x)",
            )

    def _taken(self) -> float:
        return self._clock.monotonic() - self._asked


def timing_problems(batcher: Batcher) -> Iterator[Problem]:
    """Time limits and timeouts that do not go together."""
    app, grace = batcher.app, float(batcher.option("claim_grace"))
    scheme = broker_url(app).partition(":")[0]
    watchers = sorted(batcher.watchers.values(), key=lambda one: one.operation_time)
    if grace < _LEAST_GRACE:
        yield _problem(
            "W007",
            f"claim_grace is {grace:g} s: a handler that is stopped at its deadline has no more "
            "to record outcomes, or they are refused and its operations tried again. "
            f"Give it at least {_LEAST_GRACE:g}",
        )
    late = [one for one in watchers if _acks_late(app, one)]
    if late:
        yield from _redeliveries(app, scheme, late[-1], late[-1].operation_time + grace)
    soft_shutdown = float(app.conf.get("worker_soft_shutdown_timeout") or 0)
    if watchers and 0 < soft_shutdown < watchers[-1].operation_time:
        yield _problem(
            "I003",
            f"worker_soft_shutdown_timeout is {soft_shutdown:g} s, and batches of "
            f"{watchers[-1].name} may run {watchers[-1].operation_time:g}: those that run longer "
            "are cut off at a shutdown, and tried again",
        )


def _redeliveries(app: Any, scheme: str, watcher: Watcher, longest: float) -> Iterator[Problem]:
    """Brokers that deliver the task of a batch again while it runs."""
    visible = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    visible = visible or _VISIBILITY.get(scheme)
    if visible is not None and visible < longest:
        yield _problem(
            "W005",
            f"tasks of {watcher.name} are acknowledged late and may run {longest:g} s, but "
            f"visibility_timeout is {visible:g} s: the broker delivers them again while they "
            "run. The copies do nothing; raise visibility_timeout to save their way",
        )
    if scheme in _AMQP and longest > _CONSUMER_TIMEOUT:
        yield _problem(
            "W006",
            f"tasks of {watcher.name} are acknowledged late and may run {longest:g} s, but "
            f"RabbitMQ closes the channel after {_CONSUMER_TIMEOUT} s without acknowledgement "
            "unless told otherwise: raise its consumer_timeout, or set acks_late to False",
        )


def _acks_late(app: Any, watcher: Watcher) -> bool:
    task = app.tasks.get(watcher.name)
    return bool(app.conf.task_acks_late if task is None else task.acks_late)


def worker_problems(batcher: Batcher, timeout: float) -> Iterator[Problem]:
    """What workers say when they are asked by remote control.

    Raises:
        BrokerUnavailableError: the broker does not answer.
    """
    app: Any = batcher.app
    with app.connection_for_write() as connection:
        remote = connection.supports_exchange_type("fanout")
        away = (OSError, KombuError, *connection.connection_errors, *connection.channel_errors)
    if not (remote and app.conf.worker_enable_remote_control):
        yield _problem(
            "I004",
            "the broker or the settings leave no remote control: whether workers consume the "
            "queues is unknown",
        )
        return
    inspect = app.control.inspect(timeout=timeout)
    try:
        answers = inspect.active_queues() or {}
        pools = inspect.stats() or {} if answers else {}
    except away as exc:
        url = maybe_sanitize_url(broker_url(app))
        raise BrokerUnavailableError(
            f"the broker at {url} does not answer, and no worker can be asked ({exc}): "
            "is the server up?"
        ) from exc
    consumed = {queue["name"] for queues in answers.values() for queue in queues or ()}
    yield from queue_problems(batcher, consumed)
    yield from pool_problems(pools)


def queue_problems(batcher: Batcher, consumed: set[str]) -> Iterator[Problem]:
    """Queues that nobody consumes, and lanes that somebody does."""
    app: Any = batcher.app
    control = app.conf.get("batcher_control_queue") or SETTINGS["batcher_control_queue"]
    control = _queue_of(app, "celery_batcher.flush", control)
    if control not in consumed:
        yield _problem(
            "W008",
            f"no worker that answered consumes the control queue {control!r}: nothing is flushed, "
            f"unless start() is called somewhere. Start one with -Q {control}",
        )
    for watcher in batcher.watchers.values():
        queue = _queue_of(app, watcher.name, watcher.queue)
        if queue not in consumed and queue != control:
            yield _problem(
                "W009",
                f"no worker that answered consumes {queue!r}, the queue of {watcher.name}: its "
                f"batches do not run. Start one with -Q {queue}",
            )
        if (lane := lane_name(batcher.name, watcher.name)) in consumed:
            yield _problem(
                "E002",
                f"a worker consumes {lane!r}, which is a lane and no queue of tasks: leave it "
                "out of the worker's -Q and of task_queues",
            )


def _queue_of(app: Any, task: str, queue: str | None) -> str:
    """The queue that a task is sent to."""
    try:
        routed = app.amqp.router.route({"queue": queue} if queue else {}, task).get("queue")
    except QueueNotFound:
        return str(queue)
    return str(getattr(routed, "name", routed) or app.conf.task_default_queue)


def pool_problems(stats: dict[str, Any]) -> Iterator[Problem]:
    """Workers whose pool cannot interrupt a handler."""
    for worker, answer in sorted(stats.items()):
        implementation = str((answer.get("pool") or {}).get("implementation") or "prefork")
        if "prefork" not in implementation:
            yield _problem(
                "I002",
                f"worker {worker} runs {implementation}, which interrupts no handler: at the "
                "deadline its operations go to others while it runs on. Let handlers look at "
                "batch.remaining",
            )
