"""Showing how far a back-fill is: a bar on a terminal, with rich; else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from .backfill import BackfillProgress

_LINE_SECONDS = 5.0
_WAITS = {
    "buffer": "waits: enough operations wait",
    "batcher": "waits: the batcher is paused",
    "drain": "waits: the batcher is drained",
    "pause": "waits: the back-fill is paused",
}


class ProgressLine:
    """Shows progress on a stream: one line that changes on a terminal, else one every few seconds.

    Example::

        with ProgressLine() as show:
            orders.run(show)
    """

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._changes = self._stream.isatty()
        self._clock = clock
        self._next_at = 0.0
        self._shown = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown:
            self._stream.write("\n")
            self._stream.flush()

    def __call__(self, progress: BackfillProgress) -> None:
        """Show it, if it is time."""
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + (0.1 if self._changes else _LINE_SECONDS)
        text = line(progress)
        if self._changes:
            self._stream.write("\r" + text.ljust(self._shown))
            self._shown = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def line(progress: BackfillProgress) -> str:
    """A progress as one line.

    Example: ``orders-2024: 40%  400,000 of 1,000,000 rows  5,213 rows/s  1:55 left``
    """
    parts = [f"{progress.name}:"]
    if progress.fraction is not None and progress.total:
        parts += [f"{progress.fraction:.0%} ", f"{progress.rows:,} of {progress.total:,} rows "]
    else:
        parts.append(f"{progress.rows:,} rows ")
    if progress.rate:
        parts.append(f"{progress.rate:,.0f} rows/s ")
    if progress.eta is not None:
        parts.append(f"{left(progress.eta)} left ")
    if progress.waits_for:
        parts.append(_WAITS[progress.waits_for])
    elif progress.phase != "running":
        parts.append(progress.phase)
    return " ".join(parts).rstrip()


def left(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 1:55, 2:03:00."""
    text = str(timedelta(seconds=round(seconds))).removeprefix("0:")
    return text[1:] if text.startswith("0") else text


def bar(console: Any = None) -> Any:
    """A context whose value shows progress: a bar of rich on its console, else `ProgressLine`.

    Args:
        console: rich's; by default one on standard error.
    """
    try:
        from rich.console import Console
    except ImportError:
        return ProgressLine()
    console = console or Console(stderr=True)
    return ProgressBar(console) if console.is_terminal else ProgressLine(console.file)


class ProgressBar:
    """A bar of rich: rows, rate, time left, and what a run waits for."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[part]}", markup=False),
            TextColumn("{task.fields[rows]} rows", markup=False),
            TextColumn("{task.fields[rate]}", style="cyan"),
            TextColumn("{task.fields[why]}", style="yellow"),
            console=console,
            expand=True,
        )
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: BackfillProgress) -> None:
        """Show it."""
        fields = _fields(progress)
        if self._task is None:
            self._task = self._bar.add_task(progress.name, total=progress.total, **fields)
        done = progress.phase == "complete"
        total = max(progress.rows, 1) if done else progress.total
        completed = total if done else progress.rows
        self._bar.update(self._task, completed=completed, total=total, **fields)


def _fields(progress: BackfillProgress) -> dict[str, Any]:
    """What stands beside the bar."""
    part = progress.fraction
    of = f" of {progress.total:,}" if progress.total and progress.phase != "complete" else ""
    waits = progress.waits_for
    rate = f"{progress.rate:,.0f} rows/s" if progress.rate and not waits else ""
    if progress.eta is not None and not waits:
        rate += f", {left(progress.eta)} left"
    why = progress.phase if progress.phase != "running" else ""
    return {
        "part": "" if part is None else f"{part:.0%}",
        "rows": f"{progress.rows:,}{of}",
        "rate": rate,
        "why": _WAITS.get(waits, why),
    }
