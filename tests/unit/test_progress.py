"""How the progress of a back-fill is shown."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from celery_batcher import BackfillProgress
from celery_batcher.progress import ProgressBar, ProgressLine, bar, left, line

HALF = BackfillProgress(
    "orders-2024", "write", "running", rows=400_000, total=1_000_000, rate=5213.4, eta=115.1
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (HALF, "orders-2024: 40%  400,000 of 1,000,000 rows  5,213 rows/s  1:55 left"),
        (replace(HALF, total=None, eta=None), "orders-2024: 400,000 rows  5,213 rows/s"),
        (
            replace(HALF, rate=0.0, eta=None, waits_for="buffer"),
            "orders-2024: 40%  400,000 of 1,000,000 rows  waits: enough operations wait",
        ),
        (
            replace(HALF, phase="complete", rows=1_000_000, rate=0.0, eta=None),
            "orders-2024: 100%  1,000,000 of 1,000,000 rows  complete",
        ),
    ],
)
def test_a_line_tells_rows_rate_and_time_left(progress: BackfillProgress, text: str) -> None:
    assert line(progress) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00"), (59.6, "1:00"), (7380, "2:03:00"), (90_000, "1 day, 1:00:00")],
)
def test_time_left_is_short(seconds: float, text: str) -> None:
    assert left(seconds) == text


def test_a_log_gets_a_line_every_few_seconds() -> None:
    stream, now = io.StringIO(), [0.0]
    with ProgressLine(stream, clock=lambda: now[0]) as show:
        for rows in range(25):
            show(replace(HALF, rows=rows))
            now[0] += 0.5

    assert [one.split()[2] for one in stream.getvalue().splitlines()] == ["0", "10", "20"]


def test_a_terminal_gets_one_line_that_changes() -> None:
    stream, now = Terminal(), [0.0]
    with ProgressLine(stream, clock=lambda: now[0]) as show:
        show(HALF)
        now[0] += 1
        show(replace(HALF, total=None, eta=None, rows=5))

    first, second, third = stream.getvalue().split("\r")
    assert (first, second) == ("", line(HALF))
    assert third == "orders-2024: 5 rows  5,213 rows/s".ljust(len(line(HALF))) + "\n"


@pytest.mark.parametrize(
    ("progress", "parts"),
    [
        (HALF, ("orders-2024", "40%", "5,213 rows/s, 1:55 left")),
        (replace(HALF, waits_for="batcher"), ("waits: the batcher is paused",)),
        (
            replace(HALF, phase="complete", rows=7, total=None, rate=0.0, eta=None),
            ("100%", "7 rows", "complete"),
        ),
    ],
)
def test_rich_shows_a_bar_on_a_terminal(progress: BackfillProgress, parts: tuple[str, ...]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=110)
    shown = bar(console)
    assert isinstance(shown, ProgressBar)
    with shown as show:
        show(progress)

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert [part for part in parts if part not in text] == []


def test_elsewhere_it_shows_lines() -> None:
    assert isinstance(bar(Console(file=io.StringIO())), ProgressLine)


def test_a_name_is_no_markup() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=110)
    with bar(console) as show:
        show(replace(HALF, name="[red]x[/red]"))

    assert "[red]x[/red]" in console.file.getvalue()  # type: ignore[attr-defined]
