"""``celery batcher backfill``, in this process on a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celery_batcher import Backfill, Batcher, Row
from commands import answered, failed, run, said
from in_memory import InMemory

HOSTILE = "\x1b[2J away"


def fill(batcher: Batcher, name: str, rows: int = 25, error: str = "") -> Backfill:
    watcher = batcher.watcher(name=f"{batcher.name}.{name}")(lambda batch: None)

    def source(checkpoint: Any) -> Iterator[Row]:
        for n in range(checkpoint or 0, rows):
            yield Row(n, checkpoint=n + 1)
        if error:
            raise OSError(error)

    return watcher.backfill(name, chunk=10, total=rows)(source)


@pytest.fixture
def batcher(site: InMemory) -> Batcher:
    return site.batcher("cosmos", flush_mode="tick")


def test_it_runs_a_back_fill_and_says_how_it_ended(site: InMemory, batcher: Batcher) -> None:
    backfill = fill(batcher, "orders")

    assert said(site.app, "backfill", "orders") == "orders: 100% 25 of 25 rows complete"
    assert backfill.status().phase == "complete"
    assert said(site.app, "backfill", "orders") == "orders: 100% 25 of 25 rows complete"
    assert backfill.status().run == 1
    assert answered(site.app, "backfill", "cosmos:orders", "--again")["run"] == 2
    assert batcher.operations_in_buffer() == 50


def test_it_shows_lines_on_the_way_where_there_is_no_terminal(
    site: InMemory, batcher: Batcher
) -> None:
    fill(batcher, "orders")

    assert run(site.app, "backfill", "orders").stderr.startswith("orders: 40%  10 of 25 rows")


def test_it_shows_all_pauses_resumes_and_resets(site: InMemory, batcher: Batcher) -> None:
    one = fill(batcher, "one")
    fill(site.batcher("other"), "two")
    assert said(site.app, "backfill", "one", "--pause") == "one: 0 rows paused"
    assert one.status().phase == "paused"
    said(site.app, "backfill", "one", "--resume")
    steps = one.steps()
    next(steps)

    assert "one: 40% 10 of 25 rows run by " in said(site.app, "backfill")
    assert "two: 0 rows new" in said(site.app, "backfill")
    assert "is run by" in failed(site.app, "backfill", "one", code=1)
    assert "is run by" in failed(site.app, "backfill", "one", "--reset", code=1)
    assert [one["phase"] for one in answered(site.app, "backfill")] == ["running", "new"]
    steps.close()
    assert said(site.app, "backfill", "one", "--status") == "one: 40% 10 of 25 rows interrupted"
    assert said(site.app, "backfill", "one", "--reset") == "one: 0 rows new"


def test_names_are_helped_with(site: InMemory, batcher: Batcher) -> None:
    assert said(site.app, "backfill") == "there are no back-fills"
    fill(batcher, "orders")
    fill(site.batcher("other"), "orders")

    assert "has a back-fill 'order': did you mean 'orders'" in failed(site.app, "backfill", "order")
    assert "name one: cosmos:orders, other:orders" in failed(site.app, "backfill", "orders")


def test_an_error_reaches_no_terminal_as_a_command(site: InMemory, batcher: Batcher) -> None:
    backfill = fill(batcher, "orders", error=HOSTILE)
    with pytest.raises(OSError, match="away"):
        backfill.run()

    text = said(site.app, "backfill", "orders", "--status")
    assert text == r"orders: 100% 25 of 25 rows failed OSError: \x1b[2J away"
