"""The two kinds of rounds: a storm of faults to prove that nothing is lost, and single faults on a
quiet fleet to time what follows them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faults import points
from faults.catalogue import FAULTS, Fault
from faults.director import Director
from faults.field import Arming, Field, Member
from faults.rounds import Outcome, count
from faults.verdict import Ledger
from faults.zygote import Zygote
from servers import RabbitServer

Row = tuple[str, str]
_WARM_UP = 1.5
_ARMED = {"flusher": 0.8, "worker": 0.8, "producer": 0.5, "beat": 0.2}
"""How many of the processes that start carry a point at which they die."""
_ON_CHILD = 0.3
_TIMED = 4.0
"""How much oftener the deaths are timed that have a figure to meet."""


class Draw:
    """Draws rows so that each comes up as often as its weight says, in earlier rounds too."""

    def __init__(self, counts: Counter[Row]) -> None:
        self._counts = counts

    def __call__(self, rows: Sequence[tuple[Row, float]]) -> int:
        """The position of the row to take next, of rows with their weights."""
        loads = [(self._counts[row] + random.random()) / weight for row, weight in rows]
        at = loads.index(min(loads))
        self._counts[rows[at][0]] += 1
        return at


@dataclass(frozen=True, slots=True)
class Where:
    """Where a round takes place."""

    directory: Path
    zygote: Zygote
    rabbit: RabbitServer | None
    number: int

    @property
    def broker(self) -> str:
        """Name of the broker."""
        return "Redis" if self.rabbit is None else "RabbitMQ"

    def faults(self) -> list[Fault]:
        """What can happen here."""
        return [one for one in FAULTS if one.broker in ("", self.broker)]


def storm(where: Where, counts: Counter[Row], *, seconds: float, gap: float) -> Outcome:
    """A round in which faults come from all sides, one every ``gap`` seconds and more."""
    random.seed(where.number)
    draw = Draw(counts)
    stage = Field(where.directory, where.zygote, where.rabbit, lambda one: _arming(one, draw))
    began = time.monotonic()
    try:
        director = Director(stage)
        director.run_for(_WARM_UP)
        while time.monotonic() < began + seconds:
            able = [one for one in where.faults() if director.free_for_server or not one.of_server]
            fault = able[draw([((one.component, one.name), one.weight) for one in able])]
            director.begin(fault)
            director.run_for(gap * random.uniform(0.5, 1.5))
            if fault.broker:  # nothing happens without it, so there is nothing to lose
                director.finish()
        director.finish()
        return count(stage, director, Outcome(where.broker, "storm", where.number), began)
    finally:
        stage.close()


def _arming(member: Member, draw: Draw) -> Arming | None:
    """A point for a process that is about to start; at times none."""
    if random.random() > _ARMED[member.role]:
        return None
    child = member.prefork and member.role == "worker" and random.random() < _ON_CHILD
    able = _armings("pool child" if child else member.role)
    return able[draw([((one.component, one.fault), 1.0) for one in able])]


def _armings(component: str) -> list[Arming]:
    """The points at which a component can die."""
    role = "worker" if component == "pool child" else component
    return [
        Arming(name, random.randint(1, most), component)
        for name, most in points.points().items()
        if name.startswith(f"{role}.")
    ]


# Single faults


def quiet(where: Where, counts: Counter[Row], *, seconds: float) -> Outcome:
    """A round of single faults, each over before the next, so that what follows can be timed."""
    random.seed(where.number)
    armed: dict[str, Arming] = {}
    stage = Field(
        where.directory, where.zygote, where.rabbit, lambda one: armed.pop(one.name, None), rate=50
    )
    began = time.monotonic()
    draw, ledger = Draw(counts), Ledger()
    able: list[Fault | Arming] = [*where.faults(), *_first_calls()]
    try:
        director = Director(stage)
        director.run_for(3.0)
        while time.monotonic() < began + seconds:
            one = able[draw([_weighed(one) for one in able])]
            struck = len(stage.strikes)
            if isinstance(one, Arming):
                _strike_at_point(one, stage, director, armed)
            else:
                _strike(one, stage, director)
            _await_recovery(stage, director, ledger, struck)
        return count(stage, director, Outcome(where.broker, "quiet", where.number), began)
    finally:
        stage.close()


def _first_calls() -> list[Arming]:
    components = ("flusher", "worker", "pool child", "producer", "beat")
    return [Arming(one.point, 1, name) for name in components for one in _armings(name)]


def _weighed(one: Fault | Arming) -> tuple[Row, float]:
    if isinstance(one, Arming):
        row, weight = (one.component, one.fault), 1.0
        return row, _TIMED if one.point == "worker.in_handler" else weight
    weight = 1.0
    if one.name == "SIGKILL" and one.component in ("flusher", "Redis"):
        weight = _TIMED
    return (one.component, one.name), weight


def _strike(fault: Fault, stage: Field, director: Director) -> None:
    if (fault.component, fault.name) == ("flusher", "SIGKILL"):  # the other one is missed by none
        holder = stage.flushing()
        if holder is not None:
            stage.kill(holder)
    else:
        director.begin(fault)
        director.finish()


def _strike_at_point(
    arming: Arming, stage: Field, director: Director, armed: dict[str, Arming]
) -> None:
    """Let a process end in good order and come back armed; wait until it has struck."""
    role = "worker" if arming.component == "pool child" else arming.component
    holder = stage.flushing() if role == "flusher" else None
    able = [one for one in stage.fleet if one.role == role and one is not holder and one.running]
    if arming.component == "pool child":
        able = [one for one in able if one.prefork]
    if not able:
        return
    member, struck = random.choice(able), len(stage.strikes)
    armed[member.name] = arming
    stage.tell_to_end(member)
    director.run_until(lambda: member.arming is not None, timeout=10.0)
    if holder is not None and holder.running:
        director.run_for(1.5)
        stage.tell_to_end(holder)  # so that the turn is the armed one's
    if not director.run_until(lambda: len(stage.strikes) > struck, timeout=8.0):
        armed.pop(member.name, None)
        member.arming = None
        stage.tell_to_end(member)


def _await_recovery(stage: Field, director: Director, ledger: Ledger, struck: int) -> None:
    """Wait until what was on its way at the strikes is done, and what came later is begun."""

    def recovered() -> bool:
        ledger.add(stage.facts.read())
        strikes = stage.strikes[struck:]
        waiting = ledger.missing() - ledger.failed
        return all(
            ledger.next_start(one) is not None
            and not any(ledger.returned[name] <= one.at for name in waiting)
            for one in strikes
        )

    director.run_until(recovered, timeout=15.0)
    director.run_for(1.0)
