"""docs/events.md has every signal and event, and says of them what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from celery.utils.dispatch import Signal

import celery_batcher
from celery_batcher import celery_events, signals
from celery_batcher.events import EVENTS

MANUAL = (Path(__file__).parents[2] / "docs" / "events.md").read_text()


def rows(section: str) -> list[list[str]]:
    """The rows of the table in a section."""
    text = MANUAL.split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ROWS = rows("Listeners")


def test_the_table_of_signals_has_each_with_all_its_arguments() -> None:
    told = {
        name.strip("`"): set(re.findall(r"(?:^|; |, |are )`(\w+)`", arguments))
        for name, _, arguments, _ in rows("Signals")
    }
    values = {
        "size",
        "capacity",
        "interval",
        "single",
        "bisect",
        "failed",
        "throttled",
        "stopped",
        "late",
    }
    known = {
        name: signal.providing_args
        for name, signal in vars(signals).items()
        if isinstance(signal, Signal)
    }

    assert {name: arguments - values for name, arguments in told.items()} == known
    assert all(name == getattr(signals, name).name for name in known)
    assert all(when and where for _, when, _, where in rows("Signals"))


def test_the_table_of_celerys_events_has_each_with_all_its_fields() -> None:
    told = {
        row[0].strip("`"): tuple(re.findall(r"`(\w+)`", row[1])) for row in rows("Events of Celery")
    }

    assert told == celery_events.EVENTS


def test_the_table_has_every_event_once() -> None:
    assert [row[0].strip("`") for row in ROWS] == list(EVENTS)


def test_what_the_code_emits_is_in_the_table() -> None:
    files = Path(celery_batcher.__file__).parent.rglob("*.py")
    emitted = {name for file in files for name in re.findall(r'emit\("(.+?)"', file.read_text())}

    assert emitted
    assert emitted <= set(EVENTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_val_is_what_the_code_says(row: list[str]) -> None:
    name, when, val, msg, metadata, heard = row

    meaning, *further = EVENTS[name.strip("`")].split("; ")
    assert val == meaning
    assert when
    assert heard
    assert bool(msg) >= any("msg" in one for one in further)
    assert bool(metadata) >= any("metadata" in one for one in further)
