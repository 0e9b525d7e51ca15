"""What a worker does with a batch: claim it, call the handler in time, settle."""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from . import wire
from .batch import Batch
from .clock import Clock
from .config import milliseconds
from .enqueuing import Patience
from .errors import ClaimExpiredError, StoreUnavailableError, Throttled
from .events import Listeners
from .operation import new_id
from .store.base import Limits, Store

logger = logging.getLogger("celery_batcher")

_DEFAULT_THROTTLE = 1.0
_RENEWALS = 10
"""Times that a late handler's hold is renewed before its batch is given back."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """Everything that running one batch of one watcher needs."""

    app: Celery
    store: Store
    clock: Clock
    limits: Limits
    operation_time: float
    watcher: str
    handler: Callable[[Batch], Any]
    listeners: Listeners
    emit_batch: bool

    def run(self, batch_id: str) -> dict[str, Any]:
        """Claim the batch and handle it; return what became of it.

        Raises:
            Whatever the handler raised, after its operations were given back.
            ClaimExpiredError: the handler outlived its claim; others have its operations.
        """
        nonce = f"{socket.gethostname()}/{os.getpid()}/{new_id()}"
        before = self.clock.monotonic()
        lifetime = milliseconds(self.operation_time) + self.limits.claim_grace_ms
        accept = wire.accepted(self.app.conf.accept_content)
        claim = self.store.claim(batch_id, nonce, self.limits, lifetime)
        if claim.state != "claimed":
            return {"batch": claim.state}
        opened = wire.open_blocks(claim.blocks, self.watcher, accept)
        if opened.reason:
            logger.error("%s: %s", self.watcher, opened.reason)
        claimed = _Claimed(self, batch_id, nonce, opened)
        deadline = before + (claim.remaining_ms - self.limits.claim_grace_ms) / 1000
        batch = Batch(batch_id, self.watcher, opened.operations, deadline, self.clock)
        if self.emit_batch:  # before time is taken: a slow listener makes a handler start late
            self.listeners.emit("batch", len(batch), self.watcher, list(batch))
        try:
            in_time = self._in_time(batch_id, nonce, before)
        except BaseException:
            claimed.settle("g", "")
            raise
        if not in_time:
            claimed.settle("g", "")
            return {"batch": "late", "given_back": len(opened.outcomes)}
        return claimed.handle(batch)

    def _in_time(self, batch_id: str, nonce: str, before: float) -> bool:
        """Whether the hold covers a handler that starts now; it is renewed when it may not."""
        if self.limits.capacity is None:
            return True
        # The store's times are whole milliseconds, so a hold may end up to one too early.
        covered = (self.limits.grace_ms - 1) / 1000
        for _ in range(_RENEWALS):
            passed = self.clock.monotonic() - before
            if passed <= covered:
                return True
            before = self.clock.monotonic()
            if not self.store.renew(batch_id, nonce, self.limits, new_id()):
                return False
        logger.warning(
            "%s: %.0f ms from the claim to the handler, more than start_grace (%d ms) allows: "
            "the batch is given back. Raise start_grace if the store is that far away",
            self.watcher,
            passed * 1000,
            self.limits.grace_ms,
        )
        return False


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A claimed batch on its way through the handler."""

    claimant: Claimant
    id: str
    nonce: str
    opened: wire.Opened

    def handle(self, batch: Batch) -> dict[str, Any]:
        claimant = self.claimant
        try:
            if batch:
                claimant.handler(batch)
        except Throttled as exc:
            after = _DEFAULT_THROTTLE if exc.retry_after is None else exc.retry_after
            try:
                claimant.store.shut(milliseconds(max(0.0, after)))
            finally:
                self.settle("g", "")
            return {"batch": "throttled", "given_back": len(self.opened.outcomes)}
        except BaseException:
            self.settle("r", traceback.format_exc(limit=-20))
            raise
        self.settle("d", "")
        return {"done": len(batch), "cost": batch.cost}

    def settle(self, outcome: str, reason: str) -> None:
        """Record the outcome of all operations that could be read, until the store has it.

        Raises:
            ClaimExpiredError: the claim had ended before.
        """
        outcomes: str = outcome
        forget: list[str] = []
        if "x" in self.opened.outcomes:
            outcomes = self.opened.outcomes.replace("d", outcome)
            reason = reason or self.opened.reason
        elif outcome == "d":
            forget = self.opened.registered
        if not self._until_answered(outcomes, reason, forget):
            raise ClaimExpiredError(
                f"batch {self.id} of {self.claimant.watcher}: its claim of "
                f"{self.claimant.operation_time} s (and grace) had ended before it was settled; "
                "its operations were given to others. Raise max_operation_time, or do less a batch"
            )

    def _until_answered(self, outcomes: str, reason: str, forget: list[str]) -> bool:
        claimant = self.claimant
        grace = claimant.limits.claim_grace_ms / 1000
        deadline = claimant.clock.monotonic() + claimant.operation_time + grace
        patience = Patience(claimant.clock, deadline)
        while True:
            try:
                return claimant.store.settle(self.id, self.nonce, outcomes, reason, forget)
            except StoreUnavailableError:
                if patience.over():
                    raise
            except SoftTimeLimitExceeded:
                continue  # it comes once; the claim's grace is for what is left to do
