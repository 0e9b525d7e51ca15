"""Figures as tables, beside what is asked of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

FLUSH_INTERVAL = 0.1
LIMITS = ("requests in 1 s", "requests in 4 s", "tokens in 1 s")
EQUAL = ("4 equal", "4 fleets")
LEASE_ROUND = 0.5
"""Seconds between rounds of leases at most; leases follow a round and a window after the demand."""

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
    yield from _sharing_demands(figures)
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


def _sharing_demands(figures: Figures) -> Iterator[Demand]:
    if "sharing" not in figures:
        return
    rows = figures["sharing"]
    for name, row in rows.items():
        yield _at_most(f"worst window, {name}", row["worst"], 1.0, _percent)
        if name.startswith(EQUAL):
            leased = name.startswith("4 fleets")
            yield _at_least(f"use, {name}", row["use"], 0.97 if leased else 0.98, _percent)
            yield _at_least(f"Jain's index, {name}", row["jain"], 0.999, _index)
        if "reached" in row:
            what = "95 % of the capacity" if name == "doubled" else "90 % of its share"
            most = LEASE_ROUND + 1.0 if name.startswith("4 fleets") else 2.0
            yield _at_most(f"until {what}, {name}", row["reached"], most, _ms)
    by_limit = [row["use"] for name, row in rows.items() if name in LIMITS]
    yield _at_least("use of the limit that binds", max(by_limit), 0.98, _percent)
    yield from _shares(rows)
    late = figures["throttled"]
    yield _at_most("starts while a 429 closes the resource", late["within"], 0, "{:.0f}".format)
    yield _at_least("first start after a 429 of 2 s", late["first start"], 2.0, _ms)


def _shares(rows: Figures) -> Iterator[Demand]:
    """What each batcher is to have of the capacity."""
    weighted = rows["weights 3 and 1"]["shares"]
    ratio = weighted["heavy"] / weighted["light"]
    yield Demand("share to share, weights 3 and 1", "3.00x +- 5 %", _ratio(ratio), _near(ratio, 3))
    floor = rows["a floor of 40 % beside them"]["shares"]["floor"]
    yield _at_least("share of who has a floor of 40 %", floor, 0.40, _percent)
    beside = rows["back-fills beside 60 %"]
    yield _at_least("normal load of 60 %: had of it", beside["given"], 0.98, _percent)
    yield _at_least("back-fills beside it: use of all", beside["use"], 0.98, _percent)
    least = rows["back-fills beside 1,000 %"]["shares"]["back-fills"]
    yield _at_least("back-fills beside 1,000 %", least, 0.05, _percent)


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


def _sharing(scenarios: Figures) -> Details:
    rows = [
        (
            name,
            _percent(row["worst"]),
            _percent(row["use"]),
            ", ".join(f"{who} {_percent(share)}" for who, share in row.get("shares", {}).items()),
            _index(row["jain"]) if name.startswith(EQUAL) else "",
        )
        for name, row in scenarios.items()
    ]
    columns = ("", "worst window", "use", "shares", "Jain")
    return "Batchers that share a resource of 2,000 units/s", columns, rows


def _throttled(row: dict[str, float]) -> Details:
    rows = [
        ("batches released and not claimed before", f"{row['released before']:.0f}"),
        ("latest start after the store knew", _ms(row["latest start"])),
        ("starts later than the grace, until it opened", f"{row['within']:.0f}"),
        ("first start afterwards", _ms(row["first start"])),
    ]
    return "A 429 of 2 s, three batchers", ("", "measured"), rows


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
    "sharing": _sharing,
    "throttled": _throttled,
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


def _index(value: float) -> str:
    return f"{value:.4f}"


def _near(value: float, asked: float) -> bool:
    return abs(value - asked) <= 0.05 * asked


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"
