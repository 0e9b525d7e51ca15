"""The chart: what each way took from the store per 100 ms, against what the store sells."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pricing import CAPACITY
from report import HEADINGS, NOTE, Request, Result, rows

BIN = 0.1  # seconds
TAKEN, REFUSED, LINE, LIMIT, GREY = "#9fc9e4", "#d62828", "#1b6ca8", "#222222", "#666666"

LEGEND = (
    "Bars: units taken per 100 ms. Line: their mean over the last second. "
    f"Dashed: the capacity, {CAPACITY:,} units in any second."
)


def write_charts(results: Sequence[Result], out: Path) -> tuple[Path, Path]:
    """Write the chart as a picture, and as a page with the table and the number behind each bar."""
    figure = draw(results)
    picture, page = out / "chart.png", out / "chart.html"
    figure.savefig(picture, dpi=150)
    page.write_text(
        PAGE.format(table=html_table(results), note=NOTE, chart=svg_with_tips(figure)),
        encoding="utf-8",
    )
    return picture, page


def draw(results: Sequence[Result]) -> Figure:
    figure = Figure(figsize=(12, 3 * len(results)), layout="constrained")
    figure.suptitle(LEGEND, fontsize=10, color=GREY)
    panels = figure.subplots(
        2 * len(results), sharex=True, height_ratios=[3, 1] * len(results), squeeze=False
    )[:, 0]
    for result, taken, refused in zip(results, panels[::2], panels[1::2], strict=True):
        taken.set_title(_summary(result), loc="left", fontsize=11, fontweight="bold")
        _draw_taken(taken, [request for request in result.requests if request.accepted])
        _draw_refused(refused, [request for request in result.requests if not request.accepted])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds since the first document was enqueued")
    panels[-1].set_xlim(0, max(result.seconds for result in results))
    return figure


def _summary(result: Result) -> str:
    end = "stopped after" if result.missing else "done in"
    return (
        f"{result.way.title}: {result.written:,} documents, {end} {result.seconds:.1f} s, "
        f"{result.refused:,} x 429"
    )


def _draw_taken(axes: Axes, requests: Sequence[Request]) -> None:
    heights = binned(requests, lambda request: request.units)
    _bars(axes, heights, TAKEN, "units")
    ends = [(number + 1) * BIN for number in range(len(heights))]
    axes.plot(ends, last_second(heights), color=LINE, linewidth=1.5)
    top = 2.5 * CAPACITY * BIN
    axes.set_ylim(0, top)
    axes.set_ylabel("units per\n100 ms")
    axes.axhline(CAPACITY * BIN, color=LIMIT, linestyle="--", linewidth=1.2)
    if (tallest := max(heights, default=0)) > top:
        axes.set_title(f"cut off: bars reach {tallest:,}", loc="right", fontsize=9, color=GREY)


def _draw_refused(axes: Axes, requests: Sequence[Request]) -> None:
    _bars(axes, binned(requests, lambda request: 1), REFUSED, "x 429")
    axes.set_ylim(0, max(25.0, axes.get_ylim()[1]))
    axes.set_ylabel("429s per\n100 ms")
    if not requests:
        axes.text(0.5, 0.4, "none", transform=axes.transAxes, color=GREY)


def binned(requests: Iterable[Request], weight: Callable[[Request], int]) -> list[int]:
    """The weights of the requests, summed up per 100 ms."""
    heights: list[int] = []
    for request in requests:
        number = int(request.at / BIN)
        heights += [0] * (number + 1 - len(heights))
        heights[number] += weight(request)
    return heights


def last_second(heights: Sequence[int]) -> list[float]:
    """At the end of each 100 ms, the mean of the last ten."""
    return [sum(heights[max(0, end - 10) : end]) * BIN for end in range(1, len(heights) + 1)]


def _bars(axes: Axes, heights: Sequence[int], color: str, unit: str) -> None:
    starts = [number * BIN for number in range(len(heights))]
    bars = axes.bar(starts, heights, width=BIN, align="edge", color=color)
    for bar, start, height in zip(bars, starts, heights, strict=True):
        bar.set_gid(f"tip:{start:.1f} s: {height:,} {unit}")


def svg_with_tips(figure: Figure) -> str:
    """The figure as SVG in which a browser shows a bar's number under the mouse."""
    drawing = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(drawing, format="svg")
    svg = drawing.getvalue()
    return re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", svg[svg.index("<svg") :])


def html_table(results: Sequence[Result]) -> str:
    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows(results))
    return f"<table><tr>{line('th', HEADINGS)}</tr>{body}</table>"


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Three ways to write to a store of limited capacity</title>
<style>
  body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem }}
  table {{ border-collapse: collapse }}
  th, td {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid #ddd }}
  th {{ vertical-align: bottom; white-space: pre-line }}
  td:first-child {{ text-align: left }}
  svg {{ width: 100%; height: auto }}
</style>
<h1>Three ways to write to a store of limited capacity</h1>
{table}
<p>{note}</p>
{chart}
</html>
"""
