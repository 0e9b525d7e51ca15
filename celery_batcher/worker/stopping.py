"""Which handlers Celery ends, and which have to be asked: only a pool of processes ends its own."""

from __future__ import annotations

import signal
from typing import Any

from billiard.process import current_process

_asked: set[str] = set()


class HandlerStopped(BaseException):
    """Raised in a handler, at its next look at the batch. No `Exception`: that might be caught."""


def soft_limited(request: Any) -> bool:
    """Whether Celery interrupts the handler of this request when its soft time limit is over."""
    _, soft = getattr(request, "timelimit", None) or (None, None)
    in_pool = current_process().name != "MainProcess" and hasattr(signal, "SIGUSR1")
    return in_pool and bool(soft)


def told_to_end(error: BaseException) -> bool:
    """Whether a pool told this process to end: what billiard makes of such a signal."""
    if not isinstance(error, SystemExit) or not isinstance(error.code, int):
        return False
    return 0 < error.code + 256 < signal.NSIG


def stop(batch_id: str) -> None:
    """Ask the handler of a batch in this process to end."""
    _asked.add(batch_id)


def is_stopped(batch_id: str) -> bool:
    """Whether the handler of a batch was asked to end."""
    return batch_id in _asked
