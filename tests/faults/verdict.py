"""What a round proves: the facts of the processes against the strikes, by plain comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from faults.facts import Fact
from faults.field import Strike

SERVERS = ("Redis", "RabbitMQ", "connections")
AFTERMATH = 30.0
"""Seconds for which a strike may still be the cause of what a worker could not record."""


@dataclass(frozen=True, slots=True)
class Twice:
    """An operation that was executed once more than it had to be, and the strike behind it."""

    operation: str
    cause: str
    strike: Strike | None


@dataclass(slots=True)
class Ledger:
    """The facts of a round, by operation."""

    returned: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    uncertain: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    started: dict[str, list[Fact]] = field(default_factory=dict)
    executed: dict[str, list[Fact]] = field(default_factory=dict)
    ended: dict[tuple[str, int], str] = field(default_factory=dict)

    def add(self, facts: Iterable[Fact]) -> None:
        """Take facts in."""
        for fact in facts:
            if fact.kind == "returned":
                self.returned[fact.operation] = fact.at
            elif fact.kind == "refused":
                self.refused.add(fact.operation)
            elif fact.kind == "uncertain":
                self.uncertain.add(fact.operation)
            elif fact.kind == "failed":
                self.failed.add(fact.operation)
            elif fact.kind == "started":
                self.started.setdefault(fact.operation, []).append(fact)
            elif fact.kind == "executed":
                self.executed.setdefault(fact.operation, []).append(fact)
            else:
                self.ended[fact.batch, fact.pid] = fact.operation

    def missing(self) -> set[str]:
        """Operations whose enqueue returned and that no handler has executed."""
        return self.returned.keys() - self.executed.keys()

    def refused_but_run(self) -> set[str]:
        """Operations that a handler got although enqueue said they were refused."""
        return self.refused & self.started.keys()

    def twice(self, strikes: Sequence[Strike]) -> list[Twice]:
        """Every execution beyond the one there had to be, with its cause.

        The one is an execution whose batch was settled, if there is any: of the others somebody
        never learned, and that is to be explained. A late one may well come last.
        """
        found = []
        for operation, facts in self.executed.items():
            if len(facts) > 1:
                ordered = sorted(facts, key=lambda one: (self._end(one) == "settled", one.at))
                found += [self._explained(operation, fact, strikes) for fact in ordered[:-1]]
        return found

    def _end(self, fact: Fact) -> str | None:
        """What became of a fact's batch, as far as its process learned."""
        return self.ended.get((fact.batch, fact.pid))

    def _explained(self, operation: str, fact: Fact, strikes: Sequence[Strike]) -> Twice:
        own = _nearest(fact, [one for one in strikes if one.group == fact.group])
        outage = _nearest(fact, [one for one in strikes if one.component in SERVERS])
        end = self._end(fact)
        if end is None:
            died = [one for one in strikes if one.kills and one.at >= fact.at and _hit(one, fact)]
            strike = min(died, key=lambda one: one.at, default=own)
            cause = "killed before its outcome was recorded"
            if not died:
                cause = "its process ended before its outcome was recorded"
        elif end == "settled":
            strike = outage if operation in self.uncertain else None
            cause = "enqueued again after an uncertain enqueue"
        elif end == "ClaimExpiredError":
            strike = own if own and "STOP" in own.fault else outage or own
            cause = "its claim had expired when it was settled"
        else:
            strike, cause = outage or own, f"its batch ended with {end}"
        return Twice(operation, cause if strike else f"unexplained: {end}", strike)

    def recovery(self, strike: Strike) -> float:
        """Seconds from the end of a strike until all that was on its way when it came was done."""
        last = strike.until
        for operation, facts in self.executed.items():
            first = min(fact.at for fact in facts)
            if self.returned.get(operation, first) <= strike.at < first:
                last = max(last, first)
        return last - strike.until

    def next_start(self, strike: Strike) -> float | None:
        """Seconds from the end of a strike until something enqueued after it was started."""
        after = [
            facts[0].at
            for operation, facts in self.started.items()
            if self.returned.get(operation, 0.0) > strike.until
        ]
        return min(after) - strike.until if after else None

    def started_again(self, strike: Strike) -> float | None:
        """Seconds from the death of a worker until what it had begun was all begun again."""
        again = []
        for facts in self.started.values():
            for fact in facts:
                if _hit(strike, fact) and fact.at <= strike.at and self._end(fact) is None:
                    later = [one.at for one in facts if one.at > strike.at]
                    if later:
                        again.append(min(later))
        return max(again) - strike.at if again else None


def _hit(strike: Strike, fact: Fact) -> bool:
    """Whether the process that wrote a fact is one that the strike killed."""
    if strike.group != fact.group:
        return False
    return strike.pid in (0, fact.pid)


def _nearest(fact: Fact, strikes: Sequence[Strike]) -> Strike | None:
    """The strike next to a fact in time, if any is near enough to have to do with it."""
    near = [one for one in strikes if one.at - AFTERMATH <= fact.at <= one.until + AFTERMATH]
    return min(near, key=lambda one: abs(one.at - fact.at), default=None)
