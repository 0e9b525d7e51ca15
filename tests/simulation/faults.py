"""What goes wrong between the engine and its store and broker.

Every call is a step of the schedule: others act before it takes effect and before its answer is
there, and one of the faults may befall it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from celery_batcher.errors import BatcherError
from celery_batcher.publishers.base import UncertainError

from .world import SECOND, Actor, Killed, World

FAULTS = {
    "refused": "an error, and no effect",
    "unanswered": "the effect, and an error",
    "repeated": "the effect twice, and the answer of the second time",
    "postponed": "an error, and the effect later, whoever may have acted meanwhile",
    "stalled before": "the caller stands still for up to seconds, and then the effect",
    "stalled after": "the effect, and its answer up to seconds later",
    "killed before": "the caller's process dies before the effect",
    "killed after": "the caller's process dies after the effect",
}
OFTEN, VERY_OFTEN = (0.003, 0.01, 0.03), (0.01, 0.03, 0.08)
"""Chances of a fault at a call: a kill ends all that its process was about."""
ACTS = (
    *("admit", "publish", "repeat", "withdraw", "adopt", "take", "stage", "acknowledge", "forget"),
    *("release", "tasks", "published", "offer", "claim", "renew", "commit", "settle", "expire"),
    *("probe", "throttle", "take_turn", "leave_turn", "close", "charge", "set_capacity", "lease"),
)
FOCUSED = 6
"""Half of the schedules look at one act: its calls have this many times the faults."""
ONCE = {"take", "publish", "tasks"}
"""Calls to a broker: no driver of ours sends them twice by itself."""


@dataclass
class Faults:
    """Which faults a schedule has, how often, and how long requests and replies take."""

    random: Random
    rates: dict[str, float] = field(default_factory=dict)
    focus: str = ""
    latency: tuple[int, int] = (0, 0)
    stall: int = SECOND
    outstanding: int = 0
    over: bool = False
    happened: Counter[str] = field(default_factory=Counter)

    @classmethod
    def drawn(cls, random: Random) -> Faults:
        """Some of the faults: schedules with few kinds reach what those with all kinds do not."""
        kinds = [one for one in FAULTS if random.random() < 0.5]
        rates = {
            one: random.choice(OFTEN if one.startswith("killed") else VERY_OFTEN) for one in kinds
        }
        latency = random.choice(((0, 0), (10, 300), (50, 4000), (500, 30_000)))
        focus = random.choice((*ACTS, *[""] * len(ACTS)))
        return cls(
            random, rates, focus, latency, random.choice((SECOND // 20, SECOND // 2, 3 * SECOND))
        )

    def stop(self) -> None:
        """Let everything work from now on, and take no time."""
        self.rates, self.latency, self.over = {}, (0, 0), True

    def draw(self, act: str) -> str:
        """The fault of this call, or ""."""
        left = self.random.random() / (FOCUSED if act == self.focus else 1)
        for kind, rate in self.rates.items():
            left -= rate
            if left < 0:
                return kind
        return ""

    def spend(self) -> int:
        """Microseconds that a request or a reply takes."""
        return self.random.randint(*self.latency)

    def long(self) -> int:
        """Microseconds of a stall, or until a postponed effect."""
        return self.random.randint(1, self.stall)


class Line:
    """An actor's line to something real: a store, an intake, a publisher, or Celery's queue.

    Args:
        real: whose methods are called.
        error: raised when no answer comes.
        kill: ends the process of the actor that calls.
        seen: told of every effect: name, arguments and the answer.
    """

    def __init__(
        self,
        world: World,
        faults: Faults,
        real: Any,
        error: type[Exception],
        kill: Callable[[Actor], None],
        seen: Callable[[str, tuple[Any, ...], Any], None],
    ) -> None:
        self._world, self._faults, self._real, self._error = world, faults, real, error
        self._kill, self._seen = kill, seen

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._real, name)
        if not callable(act) or name in {"leases", "keep_alive"}:
            return act

        def call(*args: Any, **options: Any) -> Any:
            return self._call(name, lambda *given: act(*given, **options), args)

        self.__dict__[name] = call
        return call

    def _call(self, name: str, act: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        actor, faults = self._world.current, self._faults
        if actor is None:
            return self._effect(name, act, args)
        actor.check()
        if faults.over:
            return self._effect(name, act, args)
        fault = faults.draw(name)
        if fault == "repeated" and name in ONCE:
            fault = ""
        if fault:
            faults.happened[fault] += 1
        self._before(actor, fault, name, act, args)
        answer = self._effect(name, act, args, fault)
        if fault == "repeated":
            answer = self._effect(name, act, args, "again")
        if fault == "killed after":
            self._die(actor)
        actor.sleep(faults.long() if fault == "stalled after" else faults.spend())
        if fault == "unanswered":
            raise self._lost(name)
        return answer

    def _before(
        self, actor: Actor, fault: str, name: str, act: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        """What happens until the request is there."""
        faults = self._faults
        actor.sleep(faults.long() if fault == "stalled before" else faults.spend())
        if fault == "killed before":
            self._world.note(name, args, "killed before it")
            self._die(actor)
        if fault == "refused":
            self._world.note(name, args, "refused")
            raise self._error(f"{name} was refused")
        if fault == "postponed":
            self._world.note(name, args, "postponed")
            faults.outstanding += 1
            self._world.after(faults.long(), lambda: self._late(name, act, args))
            actor.sleep(faults.long())
            raise self._lost(name)

    def _late(self, name: str, act: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._faults.outstanding -= 1
        with suppress(BatcherError):  # nobody is there to hear of it
            self._effect(name, act, args, "late")

    def _lost(self, name: str) -> Exception:
        if name == "publish":
            return UncertainError(f"{name} was not answered")
        return self._error(f"{name} was not answered")

    def _die(self, actor: Actor) -> None:
        self._kill(actor)
        raise Killed

    def _effect(
        self, name: str, act: Callable[..., Any], args: tuple[Any, ...], how: str = ""
    ) -> Any:
        answer = act(*args)
        self._world.note(f"{name} ({how})" if how else name, args, answer)
        self._seen(name, args, answer)
        return answer
