"""Telling what happens with a batcher: signals, ``batcher-*`` events, and lines of the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import signals
from .batch import Batch
from .celery_events import EventSender
from .costs import PLAIN, named, spoken
from .publishers.base import Outgoing
from .store.base import Died, Released

if TYPE_CHECKING:
    from .configured import Configured

logger = logging.getLogger("celery_batcher")

_MOST_IDS = 10


class Announcer:
    """Tells of one batcher, in the process where it happens; without a batcher, only the log.

    Where nobody listens, nothing is made or formatted.
    """

    def __init__(self, batcher: Configured | None = None) -> None:
        self._batcher = batcher
        self._sender: EventSender | None = None

    @property
    def _name(self) -> str:
        return "" if self._batcher is None else self._batcher.name

    @property
    def _dimensions(self) -> tuple[str, ...]:
        return PLAIN if self._batcher is None else self._batcher.dimensions

    def enqueued(self, messages: Sequence[Outgoing], most: int | None = None) -> None:
        """Messages are in lanes; of these, the first with ``most`` operations together."""
        if not signals.operations_enqueued.receivers:
            return
        operations = cost = 0
        for message in messages:
            admission = message.admission
            if most is not None and operations + admission.operations > most:
                break
            operations += admission.operations
            cost += admission.cost
        if operations:
            self._signal(
                signals.operations_enqueued,
                watcher=messages[0].admission.watcher,
                operations=operations,
                cost=cost,
            )

    def released(self, batches: Sequence[Released]) -> None:
        """A flush has released batches."""
        info = logger.isEnabledFor(logging.INFO)
        if not (info or self._heard(signals.batch_released)):
            return
        for batch in batches:
            costs = (batch.cost, *batch.further)
            facts: dict[str, Any] = {
                "batch_id": batch.id,
                "watcher": batch.watcher,
                "operations": batch.operations,
                "cost": named(costs, self._dimensions),
                "trigger": batch.trigger,
                "oldest_age": batch.oldest_ms / 1000,
            }
            if info:
                logger.info(
                    "released %d operations of %s, cost %s, trigger %s, oldest %.1f s, batch %s",
                    batch.operations,
                    batch.watcher,
                    spoken(costs, self._dimensions),
                    batch.trigger,
                    facts["oldest_age"],
                    batch.id,
                    extra={"batcher": self._name, **facts},
                )
            self._signal(signals.batch_released, **facts)
            self._event("batcher-released", facts)

    def released_nothing(self, reason: str) -> None:
        """A flush has released no batch."""
        logger.debug(
            "%s: nothing released, %s",
            self._name,
            reason,
            extra={"batcher": self._name, "reason": reason},
        )

    def started(self, batch: Batch) -> None:
        """A handler is about to be called."""
        if self._heard(signals.batch_started):
            facts = _facts(batch)
            self._signal(signals.batch_started, **facts)
            self._event("batcher-started", facts)

    def settled(
        self,
        batch: Batch,
        *,
        state: str,
        counts: dict[str, int],
        runtime: float,
        error: BaseException | None,
    ) -> None:
        """The outcomes of a batch are recorded."""
        if self._heard(signals.batch_settled):
            facts = {**_facts(batch), "state": state, **counts, "runtime": runtime}
            self._signal(signals.batch_settled, **facts, error=error)
            kind = None if error is None else type(error).__name__  # its text may tell a payload
            self._event("batcher-settled", {**facts, "error": kind})

    def dead(self, watcher: str, batch_id: str, died: Sequence[tuple[Died, str]]) -> None:
        """Operations of a batch are dead letters now, each for its reason."""
        if not died or not self._heard(signals.operation_dead):
            return
        for one, reason in died:
            self._signal(
                signals.operation_dead,
                operation_id=one.id,
                watcher=watcher,
                batch_id=batch_id,
                attempt=one.attempt,
                reason=reason,
            )
        facts = {
            "batch_id": batch_id,
            "watcher": watcher,
            "operations": len(died),
            "operation_ids": [one.id for one, _ in died[:_MOST_IDS]],
        }
        self._event("batcher-dead", facts)

    def paused(self, ms: int) -> None:
        """The batcher is paused; -1: until resumed."""
        facts = {"pause_time": None if ms < 0 else ms / 1000}
        self._signal(signals.batcher_paused, **facts)
        self._event("batcher-paused", facts)

    def resumed(self) -> None:
        """A pause or a drain was ended."""
        self._signal(signals.batcher_resumed)
        self._event("batcher-resumed", {})

    def backfill(self, name: str, progress: object) -> None:
        """A back-fill has gone on, or waits."""
        self._signal(signals.backfill_progress, backfill=name, progress=progress)

    def throttled(self, batch: Batch, closed_ms: int) -> None:
        """A handler said that its store refuses work: the resource is closed for so long."""
        facts = {
            "resource": "" if self._batcher is None else self._batcher.resource_name,
            "watcher": batch.watcher,
            "batch_id": batch.id,
            "closed_for": closed_ms / 1000,
        }
        self._signal(signals.resource_throttled, **facts)
        self._event("batcher-throttled", facts)

    def _heard(self, signal: Any) -> bool:
        return bool(signal.receivers) or self._sends_events

    @property
    def _sends_events(self) -> bool:
        return self._batcher is not None and bool(self._batcher.option("send_events"))

    def _signal(self, signal: Any, **arguments: Any) -> None:
        if signal.receivers:
            signal.send(sender=self._batcher, **arguments)

    def _event(self, event: str, fields: dict[str, Any]) -> None:
        if self._batcher is None or not self._sends_events:
            return
        app, sender = self._batcher.app, self._sender
        if sender is None or sender.app is not app:
            sender = self._sender = EventSender(app)
        sender.send(event, {"batcher": self._name, **fields})


def _facts(batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "watcher": batch.watcher,
        "operations": len(batch),
        "cost": batch.cost,
    }
