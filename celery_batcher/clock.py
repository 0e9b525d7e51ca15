"""Time of this process: injected, so that tests move it by hand.

Time that several processes share is always the store's (`store.base.Store`), never this one.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the code asks of time."""

    def now_ms(self) -> int:
        """Whole milliseconds since 1970."""

    def monotonic(self) -> float:
        """Seconds that never go backwards."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until the event is set or the seconds are over; True when it was set."""


class SystemClock:
    """The clock of the machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class ManualClock:
    """A clock that stands still until a test calls `advance`."""

    def __init__(self, start_ms: int = 1_000_000_000_000) -> None:
        self._ms = float(start_ms)
        self._start_ms = float(start_ms)

    def now_ms(self) -> int:
        return int(self._ms)

    def monotonic(self) -> float:
        return (self._ms - self._start_ms) / 1000

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Move time forward."""
        self._ms += seconds * 1000
