"""What may take long is done in a thread, so that no turn waits for a result backend."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread, current_thread

logger = logging.getLogger("celery_batcher")

_AT_EXIT = 5.0


class Apart:
    """Does one act after the other, in a thread that lives while there are any; errors are logged.

    Args:
        most: acts that may wait, for instance while a backend is away; further ones are refused.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._acts: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread: Thread | None = None

    def add(self, act: Callable[[], object]) -> bool:
        """Do this soon; False when too many wait."""
        if self._acts.qsize() >= self._most:
            return False
        self._acts.put(act)
        thread = self._thread
        if thread is None or not thread.is_alive():  # in a child, that of its parent does not live
            self._thread = Thread(target=self._run, name="celery_batcher:apart", daemon=True)
            self._thread.start()
        return True

    def finish(self) -> None:
        """Wait for what is to be done, but not for ever: the process ends."""
        thread = self._thread
        if thread is not None:
            thread.join(_AT_EXIT)

    def _run(self) -> None:
        while True:
            try:
                while True:
                    _do(self._acts.get_nowait())
            except Empty:
                self._thread = None
            if self._acts.empty():
                return
            # Something was added before it could be seen that nothing more would be done.
            self._thread = current_thread()


def _do(act: Callable[[], object]) -> None:
    try:
        act()
    except Exception:
        logger.exception("what was to be done apart failed")


apart = Apart()
atexit.register(apart.finish)
