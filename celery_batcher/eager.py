"""Eager mode (Celery's ``task_always_eager``): handlers run inside `enqueue`, and nothing is sent.

What is enqueued goes through the serializer and comes to its handler in batches of up to the
watcher's ``max_batch_size``, through ``task.apply()``. There is no store and no limit, and nothing
waits: what is to be tried again is tried again at once. See docs/testing.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery.utils import uuid

from .clock import ManualClock
from .errors import OperationFailedError
from .operation import new_id
from .publishers.base import Outgoing
from .store.base import Arrival, Refused
from .store.memory import MemoryServer, MemoryStore
from .store.options import Limits
from .wire import MAX_OPERATIONS

if TYPE_CHECKING:
    from .batcher import Batcher
    from .claim import Claimant
    from .watcher import Watcher

logger = logging.getLogger("celery_batcher")

_TRIES = 3
"""Tries of an operation where the watcher has no limit: nobody would end them here."""
_FOREVER_MS = 2**40

_running: dict[str, _Eager] = {}


def fitted(claimant: Claimant, batch_id: str) -> Claimant:
    """What runs a batch: the same, but for one that runs eagerly."""
    eager = _running.get(batch_id)
    return claimant if eager is None else eager.fitted(claimant)


def run(batcher: Batcher, messages: Sequence[Outgoing]) -> None:
    """Handle what messages of one watcher carry, until each operation is done or dead.

    Raises:
        Whatever the handler raised last, or `OperationFailedError`, where an operation is dead and
        ``task_eager_propagates`` is set. Without it that is logged.
    """
    watcher = batcher.watchers[messages[0].admission.watcher]
    error = _Eager(batcher, watcher, messages).run()
    if error is not None and batcher.app.conf.task_eager_propagates:
        raise error


class _Eager:
    """A store for one call: it decides about retries, halves and deaths as any other does."""

    def __init__(self, batcher: Batcher, watcher: Watcher, messages: Sequence[Outgoing]) -> None:
        self._batcher = batcher
        self._watcher = watcher
        self._clock = ManualClock()
        self._token = new_id()
        self._limits = Limits(max_open_batches=1)
        self._tries = watcher.max_attempts or _TRIES
        self._store = MemoryStore(
            MemoryServer(self._clock), batcher=batcher.name, resource=batcher.resource_name
        )
        self._stage(messages)

    def _stage(self, messages: Sequence[Outgoing]) -> None:
        options = replace(
            self._watcher.store_options(),
            max_attempts=self._tries,
            max_concurrent_batches=0,
            key_capacity=None,
            key_concurrency=0,
        )
        store, admissions = self._store, [one.admission for one in messages]
        store.configure(self._limits, [options])
        store.admit(admissions, sum(one.operations for one in admissions))
        store.take_turn(self._token, _FOREVER_MS)
        arrivals = [Arrival(one.admission.id, self._watcher.name, one.entries) for one in messages]
        store.stage(self._token, arrivals, "")

    def fitted(self, claimant: Claimant) -> Claimant:
        """What runs a batch of this call."""
        results = claimant.results if claimant.app.conf.task_store_eager_result else None
        return replace(
            claimant,
            store=self._store,
            limits=replace(self._limits, claim_grace_ms=claimant.limits.claim_grace_ms),
            max_attempts=self._tries,
            caps_keys=False,
            results=results and replace(results, max_attempts=self._tries),
        )

    def run(self) -> BaseException | None:
        """Run batches until nothing is left; return why an operation is dead, if one is."""
        error: BaseException | None = None
        throttled = 0
        while self._store.counts().unfinished:
            answer = self._store.release(self._token, uuid(), self._limits)
            if isinstance(answer, Refused):  # what is to wait is due at once
                self._clock.advance(max(1, answer.wait_ms) / 1000)
                continue
            result = self._apply(answer.id)
            if isinstance(result, dict) and result.get("batch") == "throttled":
                throttled += 1  # it burns no attempt, and nobody would wait
                if throttled >= self._tries:
                    return self._give_up(throttled)
            error = self._death(result) or error
        return error

    def _apply(self, id: str) -> Any:
        """Run a batch; return its result, or what its handler raised."""
        task = self._batcher.app.tasks[self._watcher.name]
        _running[id] = self
        try:
            return task.apply((id,), task_id=id, throw=False).result
        finally:
            del _running[id]

    def _death(self, result: Any) -> BaseException | None:
        """Why the newest dead letter is one, if the batch that ran has made one."""
        letters = self._store.dead(self._watcher.name, MAX_OPERATIONS)
        if not letters:
            return None
        reason = letters[-1].reason
        logger.error("%s: %d operations are dead: %s", self._watcher.name, len(letters), reason)
        self._store.purge(self._watcher.name, [one.number for one in letters])
        return result if isinstance(result, BaseException) else OperationFailedError(reason)

    def _give_up(self, throttled: int) -> BaseException:
        left = self._store.counts().unfinished
        reason = (
            f"{left} operations were not handled: Throttled was raised {throttled} times, and "
            "eager mode waits for nothing"
        )
        logger.error("%s: %s", self._watcher.name, reason)
        return OperationFailedError(reason)
