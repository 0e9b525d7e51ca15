"""Figures as a chart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"plain": "#9a9a9a", "celery-batches": "#c9a227"}
OURS = "#2a6f97"
SHARED_CAPACITY = 2_000

Figures = dict[str, Any]


def draw(figures: Figures, path: Path) -> None:
    """The chart: a panel for each section that was measured."""
    panels: dict[str, Callable[[Axes, Any], None]] = {
        "end to end": _draw_rates,
        "latency": _draw_latency,
        "capacity": _draw_capacity,
        "timelines": _draw_timelines,
    }
    measured = [(panels[name], figures[name]) for name in panels if name in figures]
    for scenario in figures.get("shared timelines", {}).items():
        measured.append((_draw_shared, scenario))
    if not measured:
        return
    chart = Figure(figsize=(11, 4.2 * len(measured)), layout="constrained")
    every = chart.subplots(len(measured), squeeze=False).flat
    for (draw_panel, of_panel), axes in zip(measured, every, strict=True):
        draw_panel(axes, of_panel)
    chart.savefig(path, dpi=110)


def _colour(name: str) -> str:
    return next((colour for start, colour in COLOURS.items() if name.startswith(start)), OURS)


def _draw_rates(axes: Axes, passages: Figures) -> None:
    names = list(passages)[::-1]
    rates = [passages[name]["rate"] for name in names]
    bars = axes.barh(names, rates, color=[_colour(name) for name in names])
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
    axes.set(
        xscale="log",
        xlim=(100, 2 * max(rates)),
        xlabel="operations/s, end to end",
        title="Throughput",
    )


def _draw_latency(axes: Axes, latencies: Figures) -> None:
    names = list(latencies)[::-1]
    for figure, height, alpha in (("p99", 0.7, 0.45), ("p50", 0.4, 1.0)):
        values = [latencies[name][figure] * 1000 for name in names]
        colours = [_colour(name) for name in names]
        bars = axes.barh(names, values, height=height, color=colours, alpha=alpha)
        if figure == "p99":
            axes.bar_label(bars, [f"p99 {value:.0f} ms" for value in values], padding=3)
    axes.set(xlabel="ms from enqueue to handler: p50 dark, p99 light", title="Latency at half load")
    axes.margins(x=0.15)


def _draw_capacity(axes: Axes, kept: Figures) -> None:
    names = list(kept)[::-1]
    for figure, height, alpha in (("worst", 0.7, 0.45), ("use", 0.4, 1.0)):
        values = [kept[name][figure] * 100 for name in names]
        bars = axes.barh(names, values, height=height, color=OURS, alpha=alpha)
        if figure == "worst":
            axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3)
    axes.axvline(100, color="black", linewidth=1)
    axes.set(xlim=(0, 110), xlabel="% of capacity: use dark, worst second light", title="Capacity")


def _draw_timelines(axes: Axes, timelines: Figures) -> None:
    for name, points in timelines.items():
        axes.plot(*zip(*points, strict=True), label=name)
    axes.axhline(10_000, color="black", linewidth=1)
    axes.set(
        xlabel="seconds",
        ylabel="units started in the last second",
        title="All workers stalled for five seconds",
    )
    axes.legend()


def _draw_shared(axes: Axes, scenario: tuple[str, Figures]) -> None:
    name, timelines = scenario
    length = max(len(points) for points in timelines.values())
    seconds = [0.0] * length
    heights = {}
    for who, points in timelines.items():
        heights[who] = [units for _, units in points] + [0] * (length - len(points))
        if len(points) == length:
            seconds = [moment for moment, _ in points]
    axes.stackplot(seconds, *heights.values(), labels=heights)
    axes.axhline(SHARED_CAPACITY, color="black", linewidth=1)
    axes.set(
        xlabel="seconds",
        ylabel="units started in the last second",
        title=f"One resource, several batchers: {name}",
    )
    axes.legend(loc="lower right")
