"""A turn: the right to flush a batcher, and the thread that has it.

Beat's tick starts a thread in whatever process it lands in; the thread takes the turn if it is
free, flushes while flushing is wanted, and gives the turn back. Every process may try: the store
lets one have it.
"""

from __future__ import annotations

import logging
import os
import threading

from .duties import Duties, Rhythm
from .errors import BatcherError
from .flusher import Flusher, TurnLostError
from .operation import new_id
from .store.options import Limits

logger = logging.getLogger("celery_batcher")

_GAP = 0.005
"""Seconds between two flushes at least: holds that end close together are used together."""
_WAKES = frozenset({"capacity", "guard", "paused", "closed", "empty"})
"""Refusals whose end is worth a flush between two ticks; credit is not, it comes all the time.

Nothing waits (``empty``) until the next delayed operation is due."""
_FREED = 0.01
"""Seconds to the next flush while operations cost less than was said."""
_KEEP = 0.1
_UPKEEP = 0.25
_INSTANT = 1e-6
"""Times this close are one: sums of intervals are not exact."""
_AFTER_ERROR = 0.5


class Turn:
    """One turn of one batcher, from taking it to giving it back."""

    def __init__(self, duties: Duties, token: str) -> None:
        self._duties = duties
        self._token = token
        self._clock = duties.clock
        self._keep_at = self._intake_at = self._flush_at = 0.0
        self._upkeep_at = self._limit_at = self._audit_at = 0.0
        self._lanes: tuple[str, ...] = ()
        self._sweep: set[str] = set()  # lanes that nobody marked, looked at now and then
        self._more = False
        self._room = 0
        self._wakes: int | None = None

    def take(self) -> bool:
        """Take the turn if it is free."""
        rhythm = self._duties.rhythm()
        return self._duties.store.take_turn(self._token, rhythm.lasts_ms).mine

    def wanted(self, rhythm: Rhythm) -> bool:
        """Lengthen the turn and learn what there is to do; False when nobody wants it any more.

        Raises:
            TurnLostError: another has the turn.
        """
        now = self._clock.monotonic()
        if now < self._keep_at:
            return True
        turn = self._duties.store.take_turn(self._token, rhythm.lasts_ms, keep=True)
        if not turn.mine:
            raise TurnLostError
        if self._wakes is not None and turn.wakes != self._wakes:
            self._intake_at = self._flush_at = 0.0
        self._wakes, self._lanes = turn.wakes, turn.lanes
        self._room = rhythm.intake_limit - turn.waiting
        self._keep_at = now + min(_KEEP, rhythm.flush_interval) / 2
        return turn.wanted_ms > 0

    def look(self) -> None:
        """Look at the store again before anything else."""
        self._keep_at = 0.0

    def sweep(self) -> None:
        """Look at all lanes next, also at those that nobody marked."""
        self._sweep = set(self._duties.watchers())

    def step(self, flusher: Flusher, rhythm: Rhythm, limits: Limits) -> float:
        """Do what is due; return the seconds until the next thing is.

        Lanes are looked at on ticks, and between them while there is more than one look takes. A
        flush between two ticks, because a hold has ended, does not wait for lanes.
        """
        now = self._clock.monotonic() + _INSTANT
        tick = rhythm.tick_after(now)
        if now >= self._intake_at or (self._more and now < self._flush_at):
            self._take_in(flusher, now, rhythm)
            self._intake_at = min(tick, now + _KEEP)
        now = self._clock.monotonic() + _INSTANT
        if now >= self._flush_at:
            self._flush(flusher, limits, tick)
        if now >= self._upkeep_at:
            flusher.upkeep(limits)
            self._upkeep_at = now + _UPKEEP
        if now >= self._limit_at:
            self._duties.limit()
            self._limit_at = now + rhythm.capacity_interval
        if now >= self._audit_at:
            self._duties.audit()
            self.sweep()
            self._audit_at = now + rhythm.audit_interval
        if self._more:
            return 0.0
        due = min(self._flush_at, self._intake_at)
        self._duties.auditor.walk(due - _GAP)
        return max(0.0, due - self._clock.monotonic())

    def _take_in(self, flusher: Flusher, now: float, rhythm: Rhythm) -> None:
        until = self._flush_at if self._flush_at > now else now + rhythm.flush_interval / 4
        sweep, self._sweep = self._sweep.difference(self._lanes), set()
        self._more = flusher.take_in([*self._lanes, *sweep], self._room, until)

    def _flush(self, flusher: Flusher, limits: Limits, tick: float) -> None:
        flushed = flusher.flush(limits)
        self._flush_at = tick
        if flushed.reason in _WAKES and flushed.wait_ms >= 0:
            self._flush_at = min(tick, flushed.refused_at + max(_GAP, flushed.wait_ms / 1000))
        if flushed.freed:
            self._flush_at = min(self._flush_at, flushed.refused_at + _FREED)


class TurnThread:
    """The background thread of this process that holds a batcher's turn, if any does."""

    def __init__(self, name: str, duties: Duties) -> None:
        self._name = name
        self._duties = duties
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._stopping = False
        self._unasked = False
        self._after = 0.0

    @property
    def alive(self) -> bool:
        """Whether the thread runs in this process."""
        thread = self._thread
        return thread is not None and self._pid == os.getpid() and thread.is_alive()

    def ensure(self, *, unasked: bool = False, after: float = 0.0) -> None:
        """Start the thread if none lives.

        Args:
            unasked: it flushes until `stop`, without beat.
            after: seconds until the turn of another, who has fallen silent, is over.
        """
        with self._lock:
            self._unasked = self._unasked or unasked
            if self.alive:
                return
            self._stopping, self._after = False, after
            self._wake = threading.Event()
            self._pid = os.getpid()
            self._thread = threading.Thread(
                target=self._run, name=f"celery_batcher:{self._name}", daemon=True
            )
            self._thread.start()

    def wake(self) -> None:
        """End the thread's sleep."""
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """Give the turn back and end the thread."""
        self._stopping, self._unasked = True, False
        self._wake.set()
        thread = self._thread
        if thread is not None and self.alive and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self) -> None:
        duties = self._duties
        if self._after > 0 and duties.clock.wait(self._wake, self._after):
            self._wake.clear()
        while not self._stopping:
            try:
                self._hold_turn(duties)
            except TurnLostError:
                logger.info("%s: another process has the turn now", self._name)
            except BatcherError as exc:
                logger.warning("%s: the turn was broken off: %s", self._name, exc)
                duties.on_error(exc)
            except Exception as exc:
                logger.exception("%s: the turn was broken off", self._name)
                duties.on_error(exc)
            if not self._unasked:
                return
            duties.clock.wait(self._wake, _AFTER_ERROR)
            self._wake.clear()

    def _hold_turn(self, duties: Duties) -> None:
        """Take the turn if it is free, and work until it is lost or no longer wanted."""
        token = new_id()
        turn = Turn(duties, token)
        if not turn.take():
            return
        duties.configure()
        flusher = duties.flusher(token)
        try:
            flusher.adopt()
            while not self._stopping:
                rhythm = duties.rhythm()
                if not turn.wanted(rhythm) and not self._unasked:
                    return
                seconds = turn.step(flusher, rhythm, duties.limits())
                if seconds > 0 and duties.clock.wait(self._wake, seconds):
                    self._wake.clear()
                    turn.look()
        finally:
            flusher.close()
            duties.limiter.close()


def one_flush(duties: Duties) -> bool:
    """Take the turn, flush once, give it back (``flush_mode="tick"``); False: it is another's."""
    token = new_id()
    turn = Turn(duties, token)
    if not turn.take():
        return False
    duties.configure()
    flusher = duties.flusher(token)
    try:
        flusher.adopt()
        rhythm = duties.rhythm()
        turn.wanted(rhythm)
        if duties.clock.now_ms() / 1000 % rhythm.audit_interval < rhythm.beat_interval:
            turn.sweep()  # the first tick of each audit interval, whichever process it comes to
        turn.step(flusher, rhythm, duties.limits())
    finally:
        flusher.close()
        duties.limiter.close()
    return True
