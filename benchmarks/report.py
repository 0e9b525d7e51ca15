"""Figures as tables, beside what is asked of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

FLUSH_INTERVAL = 0.1

Figures = dict[str, Any]
Rows = dict[str, dict[str, float]]
Details = tuple[str, Sequence[str], Sequence[tuple[str, ...]]]
"""Title, columns, rows."""


class Demand(NamedTuple):
    """What is asked, and the figure that answers it."""

    what: str
    asked: str
    measured: str
    met: bool


def show(figures: Figures, console: Console) -> None:
    """Print every figure, then the demands."""
    console.print(", ".join(f"{key}: {value}" for key, value in figures["environment"].items()))
    for title, columns, rows in _details(figures):
        console.print(_table(title, columns, rows))
    rows = [
        (what, asked, measured, "[green]yes[/]" if met else "[yellow]no[/]")
        for what, asked, measured, met in demands(figures)
    ]
    console.print(_table("Asked and measured", ("", "asked", "measured", "met"), rows))


def demands(figures: Figures) -> Iterator[Demand]:
    """Every demand whose figures were measured."""
    yield from _speed(figures)
    for load, row in figures.get("latency", {}).items():
        if load.startswith(("enqueue", "packed")):
            yield _at_most(f"latency p50, {load}", row["p50"], FLUSH_INTERVAL / 2 + 0.015, _ms)
            yield _at_most(f"latency p99, {load}", row["p99"], FLUSH_INTERVAL + 0.060, _ms)
    yield from _keeping(figures)
    yield from _space(figures)
    yield from _growth(figures)
    for name, row in figures.get("audit", {}).items():
        yield _at_most(f"longest script of the audit, {name}", row["longest"], 0.005, _us)
    if "idle" in figures:
        yield _at_most("idle flusher", figures["idle"]["flusher"], 0.03, _percent)


def _speed(figures: Figures) -> Iterator[Demand]:
    if "end to end" in figures:
        rates = {name: row["rate"] for name, row in figures["end to end"].items()}
        for name, ratio in (("packed, 500", 100.0), ("one per message, 500", 20.0)):
            what = f"end to end, {name}, to plain Celery"
            yield _at_least(what, rates[name] / rates["plain"], ratio, _ratio)
    if "produced" in figures:
        rates = figures["produced"]
        yield _at_least("enqueue to delay", rates["enqueue"] / rates["plain"], 0.8, _ratio)


def _keeping(figures: Figures) -> Iterator[Demand]:
    if "capacity" not in figures:
        return
    rows = figures["capacity"]
    yield _at_most("worst window", max(row["worst"] for row in rows.values()), 1.0, _percent)
    slot = next(name for name in rows if "one slot" in name)
    use = min(row["use"] for name, row in rows.items() if name != slot)
    yield _at_least("least use of what operations can fill", use, 0.98, _percent)
    yield _at_most("one worker, one slot: longest gap", rows[slot]["gap"], 1.0, _ms)
    stalls = max(row["worst"] for row in figures["stalls"].values())
    yield _at_most("worst window across a stall of 5 s", stalls, 1.0, _percent)


def _space(figures: Figures) -> Iterator[Demand]:
    if "memory" in figures:
        rows = figures["memory"]
        for where in ("packed", "index"):
            limit = 2 * rows["payload"] + 100
            yield _at_most(f"server memory per operation, {where}", rows[where], limit, _bytes)
    if "producer memory" in figures:
        (few, small), (many, large) = figures["producer memory"].items()
        yield _at_most(f"producer's peak, {many} to {few} rows", large / small, 1.1, _ratio)


def _growth(figures: Figures) -> Iterator[Demand]:
    costs = {
        "flusher": "flusher CPU",
        "server": "server CPU",
        "enqueue": "one enqueue",
    }
    for section, limit in (("waiting", 1.1), ("watchers and keys", 2.0)):
        base, *others = figures.get(section, {}).items() or [("", {})]
        for name, row in others:
            for cost, what in costs.items():
                ratio = row[cost] / base[1][cost] if base[1][cost] else math.inf
                yield _at_most(f"{what}, {name} to {base[0]}", ratio, limit, _ratio)


def _details(figures: Figures) -> Iterator[Details]:
    for section, details in SECTIONS.items():
        if section in figures:
            yield details(figures[section])


def _produced(rates: dict[str, float]) -> Details:
    rows = [(name, f"{rate:,.0f}", _ratio(rate / rates["plain"])) for name, rate in rates.items()]
    return "Produced, while nothing consumes", ("", "operations/s", "to plain"), rows


def _end_to_end(passages: Rows) -> Details:
    plain = passages["plain"]
    rows = [
        (
            name,
            f"{row['rate']:,.0f}",
            _ratio(row["rate"] / plain["rate"]),
            _us(row["cpu"]),
            _ratio(row["cpu"] / plain["cpu"]),
            _us(row["cpu of producer"]),
            _us(row["cpu of server"]),
            f"{row['batch']:,.0f}",
        )
        for name, row in passages.items()
    ]
    columns = ("", "/s", "to plain", "CPU each", "to plain", "producer", "server", "mean batch")
    return "End to end: first enqueue to last handler", columns, rows


def _latency(loads: Rows) -> Details:
    rows = [(name, _ms(row["p50"]), _ms(row["p99"])) for name, row in loads.items()]
    return "Latency from enqueue to handler, at half load", ("", "p50", "p99"), rows


def _capacity(runs: Rows) -> Details:
    rows = [
        (
            name,
            _percent(row["worst"]),
            _percent(row["use"]),
            _ms(row["gap"]),
            f"{row['batch']:,.0f}",
        )
        for name, row in runs.items()
    ]
    columns = ("", "worst window", "use", "longest gap", "mean batch")
    return "Capacity of 10,000 units/s, where handlers start", columns, rows


def _stalls(runs: Rows) -> Details:
    _, columns, rows = _capacity(runs)
    return "The same, all workers stopped for 5 s", columns, rows


def _memory(sizes: dict[str, float]) -> Details:
    rows = [(name, _bytes(size)) for name, size in sizes.items()]
    return "Server memory per waiting operation", ("", "bytes"), rows


def _producer_memory(peaks: dict[str, int]) -> Details:
    rows = [(f"{name} rows", f"{peak / 1e6:,.1f} MB") for name, peak in peaks.items()]
    return "Peak memory of a producer", ("", "peak"), rows


def _scaling(backlogs: Rows) -> Details:
    rows = [
        (
            name,
            _us(row["flusher"]),
            _us(row["server"]),
            _us(row["enqueue"]),
        )
        for name, row in backlogs.items()
    ]
    columns = ("", "flusher CPU", "server CPU", "one enqueue")
    return "Cost of an operation in a flush of 50 batches of 10, and of an enqueue", columns, rows


def _audit(passes: Rows) -> Details:
    rows = [
        (name, f"{row['steps']:,.0f}", _us(row["mean"]), _us(row["longest"]))
        for name, row in passes.items()
    ]
    return "One pass of the audit", ("", "scripts", "mean on the server", "longest"), rows


def _idle(shares: dict[str, float]) -> Details:
    rows = [(name, _percent(share)) for name, share in shares.items()]
    return "Idle", ("", "of a core"), rows


SECTIONS: dict[str, Callable[[Any], Details]] = {
    "produced": _produced,
    "end to end": _end_to_end,
    "latency": _latency,
    "capacity": _capacity,
    "stalls": _stalls,
    "memory": _memory,
    "producer memory": _producer_memory,
    "waiting": _scaling,
    "watchers and keys": _scaling,
    "audit": _audit,
    "idle": _idle,
}


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _at_most(what: str, value: float, limit: float, text: Callable[[float], str]) -> Demand:
    return Demand(what, f"<= {text(limit)}", text(value), value <= limit)


def _at_least(what: str, value: float, limit: float, text: Callable[[float], str]) -> Demand:
    return Demand(what, f">= {text(limit)}", text(value), value >= limit)


def _ratio(value: float) -> str:
    return f"{value:,.2f}x"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"
