"""Batches of lost children are given back in a thread, so that nothing waits for the store.

Not the worker's main loop, which serves all children, and not the handlers of signals.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from ..claim import owner
from ..errors import StoreUnavailableError
from ..store.base import Store, TakenBack

logger = logging.getLogger("celery_batcher")

_POLL = 0.02
_AT_EXIT = 5.0


@dataclass(frozen=True, slots=True)
class Lost:
    """A batch that the process ``pid`` may have claimed and will not settle.

    ``tell``: who is told what was taken back, and why.
    """

    store: Store
    batch: str
    pid: int
    reason: str
    attempt: bool
    tell: Callable[[TakenBack, str], None]


class HandBack:
    """Gives batches back, one after the other, while there are any; a failure is logged.

    What cannot be given back comes back at the deadline of its claim.
    """

    def __init__(self) -> None:
        self._lost: SimpleQueue[Lost] = SimpleQueue()  # may be filled by a handler of signals
        self._thread: Thread | None = None

    def add(self, lost: Lost) -> None:
        """Give this batch back soon."""
        self._lost.put(lost)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="celery_batcher:hand-back", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait for what is to be given back, but not for ever: the process ends."""
        thread = self._thread
        if thread is not None:
            thread.join(_AT_EXIT)

    def _run(self) -> None:
        thread, waiting = self._thread, list[Lost]()
        while True:
            with suppress(Empty):
                while True:
                    waiting.append(self._lost.get_nowait())
            waiting = [lost for lost in waiting if not _given_back(lost)]
            if waiting:
                time.sleep(_POLL)
                continue
            self._thread = None
            if self._lost.empty():
                return
            self._thread = thread  # something was added before it could see that none lives


def _given_back(lost: Lost) -> bool:
    """Whether all was tried; False while its process lives: nothing shall be handled twice at once.

    It was told to end, but may take its time.
    """
    if lost.pid != os.getpid() and _lives(lost.pid):
        return False
    try:
        taken = lost.store.abandon(lost.batch, owner(lost.pid), lost.reason, attempt=lost.attempt)
    except StoreUnavailableError as exc:
        logger.warning("batch %s comes back at its deadline: %s", lost.batch, exc)
    except Exception:
        logger.exception("batch %s comes back at its deadline", lost.batch)
    else:
        if taken is not None:
            logger.warning(
                "took back %d operations of %s: %s", taken.operations, taken.watcher, lost.reason
            )
            lost.tell(taken, lost.reason)
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


hand_back = HandBack()
atexit.register(hand_back.finish)
