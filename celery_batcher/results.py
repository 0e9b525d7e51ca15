"""Results of single operations in Celery's result backend, for watchers that keep them.

Results are stored after the outcomes: no result says what the store has refused, and a result that
cannot be stored is logged and undoes nothing. So a worker that is killed between the two, for as
long as one round trip takes, leaves an operation that is done and has no result.

What dies with its worker is told by whoever takes it back, the turn or the worker's main process,
if that process knows the watcher. The store says once what died: a dead letter whose result was
lost on the way (no answer, a process that ended, a backend that is away) never gets one. So whoever
waits for results gives `get` a timeout.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import Celery, current_task, states
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import EncodeError

from .apart import apart
from .errors import OperationFailedError
from .operation import Operation
from .outcomes import Outcome, is_final
from .store.base import Died

if TYPE_CHECKING:
    from .watcher import Watcher

logger = logging.getLogger("celery_batcher")

_TOLD = "xrah"


@dataclass(frozen=True, slots=True)
class Result:
    """What the backend is told of an operation: for failures ``value`` is the error."""

    id: str
    attempt: int
    state: str
    value: Any
    traceback: str | None = None


def result_of(
    operation: Operation, outcome: Outcome, max_attempts: int, error: BaseException | None
) -> Result | None:
    """The result that an outcome amounts to; None when there is nothing to tell.

    Args:
        operation: as its handler had it.
        outcome: what was recorded of it.
        max_attempts: after so many it is dead, whatever the outcome says; 0: no limit.
        error: what the handler raised, if the outcome follows from that.
    """
    id, attempt = operation.id, operation.attempt
    if outcome.kind == "d":
        return Result(id, attempt, states.SUCCESS, outcome.result)
    if outcome.kind not in _TOLD:
        return None
    state: str = states.FAILURE if is_final(operation, outcome, max_attempts) else states.RETRY
    if error is None:
        return Result(id, attempt, state, OperationFailedError(outcome.reason))
    return Result(id, attempt, state, error, outcome.reason)


@dataclass(frozen=True, slots=True)
class Results:
    """Stores the results of one watcher's operations under their ids."""

    app: Celery
    watcher: str
    max_attempts: int

    def store(
        self,
        outcomes: Sequence[tuple[Operation, Outcome]],
        error: BaseException | None = None,
        reason: str = "",
    ) -> SoftTimeLimitExceeded | None:
        """Store what outcomes amount to; what fails is logged.

        Args:
            outcomes: recorded ones, with their operations.
            error: what the handler raised; ``reason`` is that of the outcomes that follow from it.

        Returns:
            The soft limit that came meanwhile, if any.
        """
        results = [
            result
            for operation, outcome in outcomes
            if (
                result := result_of(
                    operation,
                    outcome,
                    self.max_attempts,
                    error if outcome.reason == reason else None,
                )
            )
        ]
        try:
            self._store(results)
        except SoftTimeLimitExceeded as exc:  # it comes once
            self._store(results)
            return exc
        return None

    def store_died(self, died: Sequence[Died], reason: str) -> None:
        """Store in a thread that these died with their worker, for this reason."""
        if not died:
            return
        error = OperationFailedError(reason)
        results = [Result(one.id, one.attempt, states.FAILURE, error) for one in died]
        if not apart.add(lambda: self._store(results)):
            logger.error(
                "%s: the results of %d operations are lost, too many wait to be stored",
                self.watcher,
                len(results),
            )

    def _store(self, results: Sequence[Result]) -> None:
        from celery.backends.redis import RedisBackend

        try:
            backend: Any = self.app.backend
            if isinstance(backend, RedisBackend):
                self._pipelined(backend, results)
            else:
                for result in results:
                    self._one(backend, result)
        except SoftTimeLimitExceeded:
            raise
        except Exception:
            logger.exception(
                "%s: the results of %d operations are lost", self.watcher, len(results)
            )

    def _pipelined(self, backend: Any, results: Sequence[Result]) -> None:
        """Let Celery make each result, and send all together: two round trips, not two for each."""
        keys = [backend.get_key_for_task(result.id) for result in results]
        if not keys:
            return
        made: list[tuple[Any, Any, Any]] = []
        collecting: Any = object.__new__(type(backend))
        vars(collecting).update(vars(backend))
        collecting.get = dict(zip(keys, backend.ensure(backend.mget, (keys,)), strict=True)).get
        collecting.set = lambda key, value, expires=None: made.append((key, value, expires))
        for result in results:
            self._one(collecting, result)
        backend.ensure(_send, (backend, made))

    def _one(self, backend: Any, result: Result) -> None:
        task: Any = current_task
        batch = task.request if task else None
        context = Context(
            id=result.id,
            task=self.watcher,
            args=(),
            kwargs={},
            retries=result.attempt - 1,
            hostname=getattr(batch, "hostname", None),
            delivery_info=getattr(batch, "delivery_info", None) or {},
        )
        arguments: dict[str, Any] = {"traceback": result.traceback, "request": context}
        try:
            backend.store_result(result.id, result.value, result.state, **arguments)
        except SoftTimeLimitExceeded:
            raise
        except (EncodeError, TypeError, ValueError) as exc:  # it fails, as Celery's tasks do
            logger.error("%s: no result of %s can be stored: %r", self.watcher, result.id, exc)
            failed = OperationFailedError(f"its result cannot be stored: {exc!r}")
            backend.store_result(result.id, failed, states.FAILURE, **arguments)


def results_for(app: Celery, watcher: Watcher | None) -> Results | None:
    """What stores the results of a watcher; None: it keeps none, or is not known here."""
    if watcher is None or not watcher.keeps_results:
        return None
    return Results(app, watcher.name, watcher.max_attempts)


def _send(backend: Any, made: Sequence[tuple[Any, Any, Any]]) -> None:
    """What Celery does to set one result and to wake who waits for it, for all of them."""
    with backend.client.pipeline(transaction=False) as pipe:
        for key, value, own in made:
            expires = backend.expires if own is None else own
            pipe.set(key, value, ex=expires or None)
            pipe.publish(key, value)
        pipe.execute()
