"""Results of single operations in Celery's result backend, for watchers that keep them.

Results are stored after the outcomes: no result says what the store has refused, and a result that
cannot be stored is logged and undoes nothing. So a worker that is killed between the two, for as
long as one round trip takes, leaves an operation that is done and has no result: whoever waits for
results gives `get` a timeout. What dies with its worker has no result either, but a dead letter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery, current_task, states
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import EncodeError

from .errors import OperationFailedError
from .operation import Operation
from .outcomes import Outcome

logger = logging.getLogger("celery_batcher")

_TOLD = "xrah"


@dataclass(frozen=True, slots=True)
class Result:
    """What the backend is told of an operation: for failures ``value`` is the error."""

    operation: Operation
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
    if outcome.kind == "d":
        return Result(operation, states.SUCCESS, outcome.result)
    used_up = outcome.kind in "ra" and 0 < max_attempts <= operation.attempt
    if outcome.kind not in _TOLD:
        return None
    state: str = states.FAILURE if outcome.kind == "x" or used_up else states.RETRY
    if error is None:
        return Result(operation, state, OperationFailedError(outcome.reason))
    return Result(operation, state, error, outcome.reason)


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

    def _store(self, results: Sequence[Result]) -> None:
        from celery.backends.redis import RedisBackend

        backend: Any = self.app.backend
        try:
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
        keys = [backend.get_key_for_task(result.operation.id) for result in results]
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
        operation = result.operation
        task: Any = current_task
        batch = task.request if task else None
        context = Context(
            id=operation.id,
            task=self.watcher,
            args=(),
            kwargs={},
            retries=operation.attempt - 1,
            hostname=getattr(batch, "hostname", None),
            delivery_info=getattr(batch, "delivery_info", None) or {},
        )
        arguments: dict[str, Any] = {"traceback": result.traceback, "request": context}
        try:
            backend.store_result(operation.id, result.value, result.state, **arguments)
        except SoftTimeLimitExceeded:
            raise
        except (EncodeError, TypeError, ValueError) as exc:  # it fails, as Celery's tasks do
            logger.error("%s: no result of %s can be stored: %r", self.watcher, operation.id, exc)
            failed = OperationFailedError(f"its result cannot be stored: {exc!r}")
            backend.store_result(operation.id, failed, states.FAILURE, **arguments)


def _send(backend: Any, made: Sequence[tuple[Any, Any, Any]]) -> None:
    """What Celery does to set one result and to wake who waits for it, for all of them."""
    with backend.client.pipeline(transaction=False) as pipe:
        for key, value, own in made:
            expires = backend.expires if own is None else own
            pipe.set(key, value, ex=expires or None)
            pipe.publish(key, value)
        pipe.execute()
