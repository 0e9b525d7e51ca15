"""Brings faults about, one or several at a time, while the supervisor goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from celery_batcher import BatcherError
from faults.catalogue import Course, Fault
from faults.field import Field, Strike

logger = logging.getLogger("faults")

_TICK = 0.03
_BREATH = 4.0
"""Seconds from one fault of a server to the next: in between, others shall have work to lose."""


@dataclass(slots=True)
class _Running:
    """A fault under way."""

    fault: Fault
    strike: Strike
    course: Course
    next_at: float


class Director:
    """Brings faults about, in one thread, and keeps the supervisor going."""

    def __init__(self, stage: Field) -> None:
        self._field = stage
        self._running: list[_Running] = []
        self._breath_until = 0.0

    @property
    def free_for_server(self) -> bool:
        """Whether a server or connections may be struck."""
        busy = any(one.fault.of_server for one in self._running)
        return not busy and time.monotonic() >= self._breath_until

    def begin(self, fault: Fault) -> None:
        """Begin a fault."""
        now = time.monotonic()
        strike = Strike(fault.component, fault.name, now, now)
        self._running.append(
            _Running(fault, strike, fault.course(self._field, strike), next_at=now)
        )

    def tick(self) -> None:
        """Let faults and the supervisor do what is due."""
        for one in list(self._running):
            if one.next_at <= time.monotonic():
                self._go_on(one)
        self._field.supervise()
        time.sleep(_TICK)

    def _go_on(self, one: _Running) -> None:
        try:
            one.next_at = time.monotonic() + next(one.course)
        except StopIteration:
            self._over(one)
        except (RedisError, BatcherError):
            logger.exception("%s, %s: broken off", one.fault.component, one.fault.name)
            self._field.heal()
            self._over(one)

    def _over(self, one: _Running) -> None:
        one.strike.until = time.monotonic() if one.fault.of_server else one.strike.at
        if one.fault.of_server:
            self._breath_until = one.strike.until + _BREATH
        if one.fault.of_server or one.strike.group:
            self._field.strikes.append(one.strike)
        self._running.remove(one)

    def run_for(self, seconds: float) -> None:
        """Go on for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tick()

    def finish(self) -> None:
        """Bring what is under way to its end."""
        while self._running:
            self.tick()

    def run_until(self, check: Callable[[], bool], *, timeout: float, every: float = 0.2) -> bool:
        """Go on until a check passes; False when it has not in time."""
        deadline = time.monotonic() + timeout
        while not check():
            if time.monotonic() >= deadline:
                return False
            self.run_for(every)
        return True
