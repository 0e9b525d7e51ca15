"""What one sees while the demo runs: a line per way, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pricing import CAPACITY
from report import Result
from ways import Way

PLAIN_LINE_EVERY = 5.0


class Display:
    def __init__(self, console: Console, ways: Sequence[Way], total: int) -> None:
        self.console = console
        self.total = total
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:>7,} docs"),
            TextColumn("{task.fields[rate]:>6,.0f}/s"),
            TextColumn("{task.fields[refused]:>6,} x 429"),
            TextColumn("{task.fields[used]:>4.0%} of capacity"),
            console=console,
            disable=not console.is_terminal,
        )
        self.lines = {way.key: self._line(way) for way in ways}
        self.started = self.printed = 0.0

    def _line(self, way: Way) -> TaskID:
        return self.progress.add_task(
            way.title, total=self.total, start=False, rate=0.0, refused=0, used=0.0
        )

    def start(self, way: Way) -> None:
        self.started = self.printed = time.monotonic()
        self.progress.start_task(self.lines[way.key])

    def update(self, way: Way, stats: Mapping[str, int]) -> None:
        """Show what the store says about itself."""
        now = time.monotonic()
        documents, refused = stats["documents"], stats["refused"]
        rate = documents / (now - self.started)
        used = stats["last_second"] / CAPACITY
        self.progress.update(
            self.lines[way.key], completed=documents, rate=rate, refused=refused, used=used
        )
        if not self.console.is_terminal and now - self.printed >= PLAIN_LINE_EVERY:
            self.printed = now
            self.console.print(
                f"{way.title}: {documents:,} documents, {rate:,.0f}/s, "
                f"{refused:,} x 429, {used:.0%} of capacity"
            )

    def finish(self, result: Result) -> None:
        line = self.lines[result.way.key]
        self.progress.update(line, rate=result.rate, used=result.capacity_used)
        self.progress.stop_task(line)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()
