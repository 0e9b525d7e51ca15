"""docs/events.md has every event, and says of its ``val`` what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import celery_batcher
from celery_batcher.events import EVENTS

MANUAL = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in MANUAL.splitlines()
    if line.startswith("| `")
]


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
