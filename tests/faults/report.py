"""The results of rounds, a line each, and the table they make."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from faults.rounds import Outcome


class Results:
    """A file of outcomes that grows, so that a campaign which was cut short goes on."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "rounds.jsonl"
        if self._path.exists():  # what was cut short while it was written is no result
            whole, newline, _ = self._path.read_text().rpartition("\n")
            self._path.write_text(whole + newline)

    def add(self, outcome: Outcome) -> None:
        """Append one."""
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def all(self) -> list[Outcome]:
        """All that are there."""
        if not self._path.exists():
            return []
        return [Outcome(**json.loads(line)) for line in self._path.read_text().splitlines()]


@dataclass(slots=True)
class Row:
    """A row of the table."""

    runs: int = 0
    kills: int = 0
    lost: int = 0
    twice: int = 0
    recoveries: list[float] = field(default_factory=list)


Key = tuple[str, str, str]


def rows(outcomes: Iterable[Outcome]) -> dict[Key, Row]:
    """Rows by broker, component and fault.

    An operation that is lost counts in every row of its round: there is no telling.
    """
    table: defaultdict[Key, Row] = defaultdict(Row)
    for outcome in outcomes:
        lost_in = set()
        for strike in outcome.strikes:
            key = (outcome.broker, strike["component"], strike["fault"])
            row = table[key]
            row.runs += 1
            row.kills += strike["kills"]
            if outcome.kind == "quiet":
                row.recoveries.append(strike["recovery"])
            lost_in.add(key)
        for key in lost_in:
            table[key].lost += len(outcome.lost)
        for one in outcome.twice:
            strike = one["strike"]
            table[outcome.broker, strike["component"], strike["fault"]].twice += 1
    return dict(table)


def markdown(outcomes: list[Outcome]) -> str:
    """All tables as Markdown."""
    parts = [_summary(outcomes), _table(outcomes), _causes(outcomes), _figures(outcomes)]
    return "\n\n".join(parts) + "\n"


def _summary(outcomes: list[Outcome]) -> str:
    total: Counter[str] = Counter()
    for one in outcomes:
        total["operations"] += one.operations
        total["dead"] += one.dead
        total["lost"] += len(one.lost)
        total["refused"] += len(one.refused_but_run)
        total["twice"] += len(one.twice)
        total["kills"] += one.kills
        total["faults"] += len(one.strikes)
        total["seconds"] += round(one.seconds)
        total["unsound"] += not one.sound
    return (
        f"{len(outcomes)} rounds, {total['seconds'] / 60:.0f} minutes: {total['kills']:,} "
        f"processes killed in {total['faults']:,} faults; {total['operations']:,} operations "
        f"enqueued, **{total['lost']} lost**, {total['twice']:,} run twice, {total['dead']} dead "
        f"letters, {total['refused']} run although refused. Rounds that were not sound: "
        f"{total['unsound']}."
    )


def _table(outcomes: list[Outcome]) -> str:
    lines = [
        "| broker | component | fault | runs | kills | lost | run twice | recovery s | at most |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (broker, component, fault), row in sorted(rows(outcomes).items()):
        times = (
            f"{median(row.recoveries):.1f} | {max(row.recoveries):.1f}" if row.recoveries else "|"
        )
        cells = f"{row.runs} | {row.kills} | {row.lost} | {row.twice} | {times}"
        lines.append(f"| {broker} | {component} | {fault} | {cells} |")
    return "\n".join(lines)


def _causes(outcomes: list[Outcome]) -> str:
    causes = Counter(
        (outcome.broker, one["cause"]) for outcome in outcomes for one in outcome.twice
    )
    lines = ["| broker | why an operation ran twice | how often |", "|---|---|---:|"]
    lines += [f"| {broker} | {why} | {n} |" for (broker, why), n in sorted(causes.items())]
    return "\n".join(lines)


def _figures(outcomes: list[Outcome]) -> str:
    """What the deaths that have a figure to meet took on a quiet fleet."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        for strike in outcome.strikes if outcome.kind == "quiet" else ():
            if "resumed" in strike:
                found[outcome.broker, strike["component"]].append(strike["resumed"])
    lines = [
        "| broker | killed on a quiet fleet | until | n | median s | max s |",
        "|---|---|---|---:|---:|---:|",
    ]
    for (broker, component), seconds in sorted(found.items()):
        again = component in ("worker", "pool child")
        what = "its operations run again" if again else "new operations run"
        numbers = f"{len(seconds)} | {median(seconds):.2f} | {max(seconds):.2f}"
        lines.append(f"| {broker} | {component} | {what} | {numbers} |")
    return "\n".join(lines)


def as_json(outcomes: list[Outcome]) -> dict[str, Any]:
    """The table for machines."""
    return {
        "rounds": len(outcomes),
        "kills": sum(one.kills for one in outcomes),
        "operations": sum(one.operations for one in outcomes),
        "lost": sum(len(one.lost) for one in outcomes),
        "rows": [
            {"broker": key[0], "component": key[1], "fault": key[2], **asdict(row)}
            for key, row in sorted(rows(outcomes).items())
        ],
    }
