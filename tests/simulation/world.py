"""The world of a schedule: its clock, its actors, and the order in which they act.

Actors are greenlets that run the engine's own code. One runs until it asks the store or the broker
for something, or waits: then the world goes on with whatever is next. Time is what the world says;
nothing of it is the machine's.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from random import Random
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from greenlet import getcurrent, greenlet

from builders import START_MS

SECOND = 1_000_000
TRACED = 60


class Killed(BaseException):
    """What a killed actor meets at its next step, and at every one that its code still tries."""


class World:
    """The clock, what is due when, and who acts now."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.us = START_MS * 1000
        self.steps = 0
        self.trace: deque[tuple[int, str, str, Any, Any]] = deque(maxlen=TRACED)
        self.current: Actor | None = None
        self.failure: str | None = None
        self.hub = getcurrent()
        self._events: list[tuple[int, float, int, Callable[[], None]]] = []
        self._numbers = count()

    @property
    def now(self) -> float:
        """Seconds since the schedule began."""
        return (self.us - START_MS * 1000) / SECOND

    def at(self, us: int, act: Callable[[], None]) -> None:
        """Do something at a time; of what is due at the same, any may be the first."""
        event = (max(us, self.us), self.random.random(), next(self._numbers), act)
        heapq.heappush(self._events, event)

    def after(self, us: int, act: Callable[[], None]) -> None:
        """Do something so many microseconds from now."""
        self.at(self.us + us, act)

    def run_until(self, us: int) -> None:
        """Let happen what is due until then; nothing more once an invariant is broken."""
        while self._events and self._events[0][0] <= us and self.failure is None:
            due, _, _, act = heapq.heappop(self._events)
            self.us = max(self.us, due)
            act()
        self.us = max(self.us, us)

    def fail(self, broken: str) -> None:
        """An invariant is broken: the schedule ends with this step."""
        if self.failure is None:
            self.failure = broken
            self.note(f"BROKEN: {broken}")

    def note(self, what: str, detail: Any = None, answer: Any = None) -> None:
        """Add a step to the trace; it is put into words only when somebody reads it."""
        self.steps += 1
        who = self.current.name if self.current else "world"
        self.trace.append((self.us, who, what, detail, answer))

    def told(self) -> list[str]:
        """The last steps, in words."""
        return [
            f"{(us - START_MS * 1000) / SECOND:10.6f}  {who:<16}{what:<24}"
            + _short(detail, 90)
            + ("" if answer is None else f" -> {_short(answer, 90)}")
            for us, who, what, detail, answer in self.trace
        ]


def _short(value: Any, most: int) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


class Actor:
    """Code of the engine that runs in the world, in a process that may be killed."""

    def __init__(self, world: World, name: str, act: Callable[[], Any]) -> None:
        self.world = world
        self.name = name
        self.killed = False
        self.alarm: int | None = None
        self._act = act
        self._naps = 0
        self._code = greenlet(self._live, world.hub)
        world.at(world.us, lambda: self._wake(0))

    @property
    def alive(self) -> bool:
        """Whether its code has not come to an end."""
        return not self.killed and not self._code.dead

    def _live(self) -> None:
        with suppress(Killed):
            self._act()

    def sleep(self, us: int) -> None:
        """Let others act for so long; called by the actor's own code.

        Raises:
            SoftTimeLimitExceeded: once, when the alarm is due.
        """
        self.check()
        alarm, until = self.alarm, self.world.us + us
        if alarm is not None and alarm <= until:
            self.alarm, until = None, alarm
        self._naps += 1
        nap = self._naps
        self.world.at(until, lambda: self._wake(nap))
        self.world.hub.switch()
        self.check()
        if alarm is not None and self.alarm is None:
            self.world.note("soft time limit")
            raise SoftTimeLimitExceeded

    def rouse(self) -> None:
        """End a sleep early."""
        nap = self._naps
        self.world.at(self.world.us, lambda: self._wake(nap))

    def check(self) -> None:
        """Let a killed actor go no further."""
        if self.killed:
            raise Killed

    def kill(self) -> None:
        """End it where it stands. Its ``finally`` blocks run, and reach nothing any more."""
        self.killed = True
        if self.world.current is not self:  # one that kills itself raises
            self.world.after(0, self._unwind)

    def _unwind(self) -> None:
        if self._code:  # it has begun, and not ended
            self._enter(lambda: self._code.throw(Killed))

    def _wake(self, nap: int) -> None:
        if nap == self._naps and self.alive:
            self._naps += 1
            self._enter(self._code.switch)

    def _enter(self, step: Callable[[], Any]) -> None:
        assert self.world.current is None, "only the world lets actors act"
        self.world.current = self
        try:
            step()
        finally:
            self.world.current = None


class WorldClock:
    """The clock of every process of the world: whoever waits lets the others act."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.us // 1000

    def monotonic(self) -> float:
        return (self._world.us - START_MS * 1000) / SECOND

    def wait(self, event: threading.Event, seconds: float) -> bool:
        actor = self._world.current
        assert actor is not None
        if not event.is_set():
            actor.sleep(max(1, round(seconds * SECOND)))
        actor.check()
        return event.is_set()
