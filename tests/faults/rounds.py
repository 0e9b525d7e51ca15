"""What a round found, and how it is counted once the faults are over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from celery_batcher import BatcherError
from connected import close
from faults.director import Director
from faults.field import Field, Strike
from faults.project import Project, build
from faults.verdict import Ledger

_SETTLE = 90.0
"""Seconds after the last fault in which everything has to be done; what is not then, is lost."""

_RESUMES: dict[str, Callable[[Ledger, Strike], float | None]] = {
    "flusher": Ledger.next_start,
    "worker": Ledger.started_again,
    "pool child": Ledger.started_again,
    "Redis": Ledger.next_start,
    "RabbitMQ": Ledger.next_start,
}
"""How it is told for each component that what must go on after its death goes on."""


@dataclass(slots=True)
class Outcome:
    """What a round found; a line of the results."""

    broker: str
    kind: str
    number: int
    seconds: float = 0.0
    broken: str = ""
    operations: int = 0
    executions: int = 0
    dead: int = 0
    lost: list[str] = field(default_factory=list)
    refused_but_run: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    strikes: list[dict[str, Any]] = field(default_factory=list)
    twice: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Processes killed with SIGKILL."""
        return sum(strike["kills"] for strike in self.strikes)

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, run although refused, left over, or twice without a cause."""
        unexplained = any(one["cause"].startswith("unexplained") for one in self.twice)
        return not (self.lost or self.refused_but_run or self.left or unexplained or self.broken)


def count(stage: Field, director: Director, outcome: Outcome, began: float) -> Outcome:
    """End the load, wait until all is done, and fill in what the facts say."""
    stage.end_producers()
    ledger = Ledger()
    ledger.add(stage.facts.all)
    with project(stage) as asked:
        director.run_until(lambda: _settled(stage, ledger, asked), timeout=_SETTLE)
        director.run_for(0.3)
        ledger.add(stage.facts.read())
        letters = {letter.payload["n"] for letter in asked.watcher.dead_letters}
        outcome.left = _left(asked)
    outcome.operations, outcome.dead = len(ledger.returned), len(letters)
    outcome.executions = sum(map(len, ledger.executed.values()))
    outcome.lost = sorted(ledger.missing() - letters)
    outcome.refused_but_run = sorted(ledger.refused_but_run())
    for strike in stage.strikes:
        seconds = {"recovery": round(ledger.recovery(strike), 3)}
        if strike.kills and strike.component in _RESUMES:
            resumed = _RESUMES[strike.component](ledger, strike)
            seconds |= {} if resumed is None else {"resumed": round(resumed, 3)}
        times = {"at": round(strike.at - began, 3), "until": round(strike.until - began, 3)}
        outcome.strikes.append(_row(strike) | times | seconds)
    outcome.twice = [
        {"operation": one.operation, "cause": one.cause, "strike": _row(one.strike)}
        for one in ledger.twice(stage.strikes)
    ]
    outcome.seconds = time.monotonic() - began
    return outcome


def _row(strike: Strike | None) -> dict[str, Any]:
    if strike is None:
        return {"component": "", "fault": "", "kills": 0}
    return {"component": strike.component, "fault": strike.fault, "kills": strike.kills}


@contextmanager
def project(stage: Field) -> Iterator[Project]:
    """The project in this process, to ask about the state of things."""
    built = build(stage.settings())
    try:
        yield built
    finally:
        built.batcher.stop()
        close(built.batcher.connections)
        built.app.close()


def _settled(stage: Field, ledger: Ledger, asked: Project) -> bool:
    ledger.add(stage.facts.read())
    try:
        status = asked.batcher.status()
        moving = status.waiting + status.delayed + status.released + status.running
        if moving or len(ledger.missing()) > status.dead:
            return False
        return not ledger.missing() - {one.payload["n"] for one in asked.watcher.dead_letters}
    except (BatcherError, RedisError):
        return False


def _left(asked: Project) -> dict[str, int]:
    """Whatever should be nothing now. Admissions of dead producers are the audit's, in time."""
    counts = asked.batcher.store.counts()
    counted = {
        "waiting": counts.waiting,
        "delayed": counts.delayed,
        "released": counts.open,
        "running": counts.running,
        "cost": counts.unsettled_cost - counts.admitted_cost,
    }
    return {name: number for name, number in counted.items() if number}
