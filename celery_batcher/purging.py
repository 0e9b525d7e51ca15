"""Emptying the buffer: what `Batcher.purge` ends in."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .flusher import TurnLostError
from .operation import new_id

if TYPE_CHECKING:
    from .controls import Controls
    from .duties import Duties

_STEP = 500
_ROOM = 2**31
_LOOK = 0.2
_PATIENCE = 2.0
"""Seconds in which whoever has the turn must have taken something in."""


class Purge:
    """One purge of a batcher, of some of its watchers or of all."""

    def __init__(
        self, batcher: Controls, duties: Duties, names: Sequence[str], *, every: bool
    ) -> None:
        self._batcher = batcher
        self._duties = duties
        self._store = batcher.store
        self._clock = batcher.clock
        self._names = names
        self._parts = [("delayed", name) for name in ([""] if every else names)]
        self._parts += [("waiting", name) for name in names]
        self.removed = 0

    def run(self) -> int:
        """Remove what waits and is delayed, then what comes out of the lanes; how many there were.

        Lanes are emptied by a turn of one's own. Where another process has the turn it takes them
        in, and what it took in is removed, until there is nothing more or it comes to nothing.
        """
        self._discard()
        least, until = self._store.counts().admitted, self._clock.monotonic() + _PATIENCE
        while not self._take_in():
            self._batcher.flush()
            self._clock.wait(threading.Event(), 0.05)
            self._discard()
            left = self._store.counts().admitted
            if left < least:
                least, until = left, self._clock.monotonic() + _PATIENCE
            if not left or self._clock.monotonic() >= until:
                self._discard()
                break
        return self.removed

    def _take_in(self) -> bool:
        """Empty the lanes, if the turn is free; False when it is another's."""
        token, lasts_ms = new_id(), self._duties.rhythm().lasts_ms
        if not self._store.take_turn(token, lasts_ms).mine:
            return False
        flusher = self._duties.flusher(token)
        try:
            flusher.adopt()
            more = True
            while more:
                if not self._store.take_turn(token, lasts_ms, keep=True).mine:
                    return False
                more = flusher.take_in(self._names, _ROOM, self._clock.monotonic() + _LOOK)
                self._discard()
        except TurnLostError:
            return False
        finally:
            flusher.close()
        return True

    def _discard(self) -> None:
        for part, name in self._parts:
            left, over = 0, False
            while not over:
                step = self._store.discard(new_id(), part, name, _STEP, left)
                self.removed += step.operations
                left, over = step.left, step.over
