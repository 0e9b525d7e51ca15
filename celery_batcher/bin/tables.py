"""What people see: tables of plain texts, in which nothing of a payload is markup."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..costs import Cost
from ..operation import Operation
from ..plain import plain
from ..status import Lease, LimitStatus, Status, WatcherStatus
from .printable import payload_text, printable

if TYPE_CHECKING:
    from ..batcher import Batcher
    from ..checks import Problem
    from ..dead_letters import DeadLetter

_STOPPED = {
    "empty": "nothing more was ready",
    "capacity": "the capacity was held",
    "credit": "its pace allowed no more",
    "open": "too many batches were unclaimed",
    "concurrency": "as many batches ran as may",
    "paused": "it was paused",
    "closed": "its resource was closed by a 429",
    "guard": "it waited after a restart of the store",
}
"""Why a flush released no more."""
CUT = 120
"""Characters of a payload in a table."""
_BAR = 32
_PHASES = {"flushing": "green", "idle": "yellow", "paused": "red", "draining": "magenta"}
_LEVELS = {"error": "red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A batcher as the code has it."""

    name: str
    resource: str | None
    capacity: Any
    watchers: tuple[str, ...]
    store: str

    @classmethod
    def of(cls, batcher: Batcher) -> Listed:
        """What its code says; no server is asked."""
        resource = batcher.rate_limiter
        return cls(
            batcher.name,
            None if resource is None else batcher.resource_name,
            None if resource is None else resource.max_capacity(),
            tuple(sorted(batcher.watchers)),
            batcher.store.url,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """The status of a batcher, and seconds until its buffer is released."""

    status: Status
    eta: float | None

    @classmethod
    def at(cls, batcher: Batcher) -> Look:
        """What the store says now."""
        return cls(batcher.status(), batcher.eta())

    def plain(self) -> dict[str, Any]:
        """One object for programs."""
        return {**plain(self.status), "eta": self.eta}


# Small texts


def cell(value: object, style: str = "") -> Text:
    """A cell that shows a text as it is."""
    return Text(printable(value), style=style)


def number(value: int | None) -> str:
    """A number with its thousands apart."""
    return "-" if value is None else f"{value:,}"


def span(seconds: float | None) -> str:
    """How long something takes, in a unit that fits."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 or not seconds else f"{seconds * 1000:.0f} ms"


def cost_text(cost: Cost) -> str:
    """A cost, by dimension where it has them."""
    if isinstance(cost, Mapping):
        return ", ".join(f"{n:,} {name}" for name, n in cost.items())
    return number(cost)


def table(*columns: str, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """An empty table; columns of numbers are on the right, and what is ``whole`` keeps its line."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    numbers = set(right)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            no_wrap=column in {*numbers, *whole},
        )
    return made


# One table a command


def listed(rows: Sequence[Listed]) -> Table:
    """Batchers as the code has them."""
    made = table(
        "batcher", "resource", "capacity", "watchers", "store", right=["capacity"], whole=["store"]
    )
    for row in rows:
        capacity = "unlimited" if row.capacity is None else cost_text(row.capacity)
        watchers = ", ".join(row.watchers) or "-"
        made.add_row(*map(cell, (row.name, row.resource or "-", capacity, watchers, row.store)))
    return made


def operations(found: Sequence[Operation], *, full: bool) -> Table:
    """Operations with their payloads."""
    made = table(
        "id",
        "watcher",
        "cost",
        "key",
        "priority",
        "tries",
        "payload",
        right=["tries"],
        whole=["id"],
    )
    for one in found:
        key, cost = "-" if one.key is None else one.key, cost_text(one.cost)
        payload = payload_text(one.payload, None if full else CUT)
        row = (one.id, one.watcher, cost, key, one.priority, one.attempt, payload)
        made.add_row(*map(cell, row))
    return made


def leases(found: Sequence[Lease]) -> Table:
    """Leased partitions."""
    made = table("partition", "capacity", "left", right=["partition", "capacity", "left"])
    for one in found:
        made.add_row(*map(cell, (one.partition, number(one.capacity), span(one.left))))
    return made


def problems(found: Sequence[tuple[str, Problem]]) -> Table:
    """Problems by batcher."""
    made = table("batcher", "level", "code", "what", whole=["code"])
    for batcher, one in found:
        level = cell(one.level, _LEVELS[one.level])
        made.add_row(cell(batcher), level, cell(one.code), cell(one.message))
    return made


def letters(found: Sequence[tuple[str, DeadLetter, Any]]) -> Table:
    """Dead letters with their watchers and masked payloads, a line each."""
    made = table(
        *("id", "watcher", "tries", "died", "reason", "payload"),
        right=["tries"],
        whole=["id", "died"],
    )
    for watcher, one, payload in found:
        reason = (one.reason.strip().splitlines() or ["-"])[-1]
        died = f"{span(max(0.0, time.time() - one.died_at.timestamp()))} ago"
        row = (one.id, watcher, one.attempts, died, reason, payload_text(payload, CUT))
        made.add_row(*map(cell, row))
    return made


def limits(found: Sequence[LimitStatus]) -> Table:
    """Limits of a resource as the store has them."""
    numbers = ["capacity", "usable", "held", "debt"]
    made = table("dimension", "window", *numbers, right=["window", *numbers])
    for one in found:
        figures = (one.capacity, one.usable, one.held, one.debt)
        made.add_row(
            cell(one.dimension or "cost"), cell(span(one.window)), *(number(n) for n in figures)
        )
    return made


# Status


def statuses(looks: Sequence[Look]) -> RenderableType:
    """The status of each batcher, one below the other."""
    return Group(*(block(look) for look in looks))


def block(
    look: Look, *, more: Iterable[tuple[str, RenderableType]] = (), most: int | None = None
) -> RenderableType:
    """The status of a batcher: its phase, its numbers, its capacity, its watchers.

    ``more`` are further lines, ``most`` watchers are shown.
    """
    status = look.status
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    for label, value in (*_facts(look), *more, *map(_bar, status.limits)):
        facts.add_row(label, value)
    parts: list[RenderableType] = [title(status), facts]
    if status.watchers:
        parts.append(_watchers(status.watchers, most))
    return Group(*parts, Text())


def title(status: Status) -> Text:
    """The name of a batcher and what it does."""
    phase = status.phase
    if phase == "paused":
        phase += (
            " until resumed" if status.paused_for is None else f" for {span(status.paused_for)}"
        )
    if phase == "idle":
        phase += ", nobody flushes"
    return Text.assemble(
        (printable(status.name), "bold"), "  ", (phase, _PHASES.get(status.phase, ""))
    )


def _facts(look: Look) -> Iterable[tuple[str, RenderableType]]:
    status = look.status
    waiting = f"{number(status.waiting)} operations, cost {number(status.waiting_cost)}"
    oldest = "" if status.oldest_age is None else f", oldest {span(status.oldest_age)}"
    yield "waiting", Text(waiting + oldest)
    yield "in lanes", Text(f"{number(status.admitted)}, delayed {number(status.delayed)}")
    flight = f"released {number(status.released)}, running {number(status.running)}"
    yield "in flight", Text(flight)
    dead = (f"dead {number(status.dead)}", "red" if status.dead else "")
    yield "ended", Text.assemble(f"done {number(status.done)}, ", dead)
    if status.set_aside:
        yield "set aside", Text(f"{status.set_aside} messages could not be read", "red")
    eta = "nobody knows" if look.eta is None else f"in {span(look.eta)}"
    yield "empty", Text("now" if look.eta == 0 else eta)
    last = status.last_flush
    if last is not None:
        ago = span(max(0.0, time.time() - last.at_ms / 1000))
        what = f"{number(last.operations)} operations in {number(last.batches)} batches"
        why = _STOPPED.get(last.reason, printable(last.reason))
        yield "last flush", Text(f"{ago} ago: {what}, then {why}")


def _bar(one: LimitStatus) -> tuple[str, RenderableType]:
    """How much of a limit is held."""
    most = max(1, one.usable)
    style = "red" if one.held > one.usable else "yellow" if one.held == one.usable else "green"
    bar = ProgressBar(
        total=most,
        completed=min(one.held, most),
        width=_BAR,
        complete_style=style,
        finished_style=style,
    )
    text = f"{number(one.held)} of {number(one.usable)} per {span(one.window)} held"
    if one.usable != one.capacity:
        text += f" (capacity {number(one.capacity)})"
    if one.debt:
        text += f", debt {number(one.debt)}"
    line = Table.grid(padding=(0, 2))
    line.add_row(bar, Text(text))
    return printable(one.dimension or "capacity"), line


def _watchers(rows: Sequence[WatcherStatus], most: int | None) -> RenderableType:
    numbers = ["waiting", "cost", "delayed", "released", "running", "dead", "oldest"]
    made = table("watcher", *numbers, right=numbers)
    busiest = sorted(rows, key=lambda row: (-row.waiting, row.name))
    shown = set(busiest[:most])
    for row in rows:
        if row not in shown:
            continue
        figures = (row.waiting, row.waiting_cost, row.delayed, row.open_batches)
        made.add_row(
            cell(f"{row.name} (on probe)" if row.on_probe else row.name),
            *(number(n) for n in (*figures, row.running_batches)),
            Text(number(row.dead), "red" if row.dead else ""),
            span(row.next_age),
        )
    left = len(rows) - len(shown)
    return made if not left else Group(made, Text(f"and {left} more watchers", "dim"))
