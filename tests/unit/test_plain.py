"""Values as JSON has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_batcher import Batcher
from celery_batcher.operation import Priority
from celery_batcher.plain import plain
from in_memory import InMemory


@dataclass(frozen=True, slots=True)
class Row:
    at: datetime
    costs: Mapping[str, int]


class Level(IntEnum):
    high = 3


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Row(datetime(2026, 1, 2, tzinfo=timezone.utc), MappingProxyType({"tokens": 3})), None),
        ({"when": date(2026, 1, 2), 4: timedelta(seconds=1.5)}, {"when": "2026-01-02", "4": 1.5}),
        ((1, True, None, 1.5, "é", {2}), [1, True, None, 1.5, "é", [2]]),
        ([float("inf"), float("-inf"), float("nan")], ["inf", "-inf", "nan"]),
        ([Level.high, Priority.high], [3, int(Priority.high)]),
        (b"\x00raw", "b'\\x00raw'"),
        (Hostile(), "<Hostile>"),
        ({Hostile(): Row}, {"<Hostile>": repr(Row)}),
    ],
)
def test_every_value_has_a_plain_form(value: Any, expected: Any) -> None:
    if expected is None:
        expected = {"at": "2026-01-02T00:00:00+00:00", "costs": {"tokens": 3}}

    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_what_is_nested_without_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert json.dumps(plain(endless)).count("[") == 50
    assert '"..."' in json.dumps(plain(endless))


def test_a_status_and_an_explanation_are_plain(site: InMemory) -> None:
    batcher: Batcher = site.batcher()

    @batcher.watcher(name="work")
    def work(batch: Any) -> None: ...

    work.enqueue({}, key="\x1b[31m")
    site.tick(batcher)

    assert plain(batcher.status())["watchers"][0]["name"] == "work"
    assert json.loads(json.dumps(plain(batcher.explain("work"))))["watcher"] == "work"


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@given(st.recursive(_SCALARS, lambda one: st.lists(one) | st.dictionaries(_SCALARS, one)))
def test_json_takes_whatever_is_plain(value: Any) -> None:
    json.dumps(plain(value), allow_nan=False)
