"""The requests of batches: a worker's main process gives back what its children lose.

A child that is killed, by its hard time limit or by anything else, settles nothing. Its parent is
told by the pool, and gives the operations back at once; the claim's deadline is what is left when
the parent is killed too.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from celery import Celery
from kombu.utils.compat import detect_environment

from .. import tasks
from .hand_back import Lost, hand_back
from .stopping import stop

logger = logging.getLogger("celery_batcher")

if TYPE_CHECKING:
    from celery.worker.request import Request as _Request
else:
    _Request = object


class GivesBack(_Request):
    """What is put before the `Request` of an app's tasks. What it adds never fails."""

    __slots__ = ()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The child is about to be killed: its hard time limit is over."""
        try:
            super().on_timeout(soft, timeout)
        finally:
            if not soft:
                self._give_back(f"its handler was killed: it took longer than {timeout} s")

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """``return_ok``: the child itself says that the handler raised. Otherwise it is lost."""
        try:
            super().on_failure(exc_info, send_failed_event, return_ok)
        finally:
            if not return_ok:
                cancelled = getattr(self, "_already_cancelled", False)
                error = getattr(exc_info.exception, "exc", exc_info.exception)  # without traceback
                self._give_back(
                    f"the process of its handler was lost: {error!r}", attempt=not cancelled
                )

    def cancel(self, pool: Any, *args: Any, **kwargs: Any) -> None:
        """The worker ends, and does not wait for the handler."""
        pid = self._process()
        if pid == os.getpid():
            stop(self.id)
        try:
            super().cancel(pool, *args, **kwargs)
        except NotImplementedError:
            logger.info("%s: its handler is asked to end, this pool cannot kill it", self.id)
        else:
            if pid != os.getpid():
                self._give_back("its worker was shut down", attempt=False)

    def _process(self) -> int | None:
        """Which process has the batch. Greenlets tell Celery something else."""
        pid: Any = self.worker_pid
        return pid if detect_environment() == "default" else os.getpid()

    def _give_back(self, reason: str, *, attempt: bool = True) -> None:
        pid, app = self._process(), cast(Celery, self.app)
        try:
            batcher = tasks.batcher_of(app, self.task.name)
            if pid is not None and batcher is not None:
                hand_back.add(
                    Lost(batcher.store, self.id, pid, reason, attempt, batcher.taken_back)
                )
        except Exception:
            logger.exception("batch %s comes back at its deadline", self.id)


@cache
def gives_back(base: type) -> type:
    """A class of requests as it is, which gives back."""
    return type(base.__name__, (GivesBack, base), {"__module__": base.__module__})
