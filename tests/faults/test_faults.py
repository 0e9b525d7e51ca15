"""A short storm on real processes; the campaign itself is `make faults`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from celery_batcher.embedded import binaries
from conftest import missing
from faults.kinds import Where, storm
from faults.report import Results, as_json, markdown
from faults.zygote import Zygote


@pytest.mark.timeout(180)
def test_a_storm_of_kills_loses_nothing_and_explains_what_ran_twice(tmp_path: Path) -> None:
    if not binaries():
        missing("an embedded server")
    place = tmp_path / "round"
    place.mkdir()
    with Zygote() as zygote:
        outcome = storm(Where(place, zygote, None, 0), Counter(), seconds=10.0, gap=0.8)
    assert outcome.sound, (outcome.lost, outcome.refused_but_run, outcome.left, outcome.twice)
    assert outcome.kills >= 5
    assert outcome.operations > 100
    assert outcome.executions >= outcome.operations - outcome.dead
    results = Results(tmp_path)
    results.add(outcome)
    assert results.all() == [outcome]
    assert as_json([outcome])["kills"] == outcome.kills
    assert "**0 lost**" in markdown([outcome])
