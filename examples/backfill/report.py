"""What came out, read from the store's own file after it has stopped."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from pricing import CAPACITY, Document, encode
from ways import Way


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the store judged, `at` seconds after the way was started."""

    at: float
    units: int
    documents: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Result:
    way: Way
    requests: Sequence[Request]
    written: int
    missing: int
    seconds: float  # until the last document was written, or until time was up

    @property
    def rate(self) -> float:
        return self.written / self.seconds

    @property
    def refused(self) -> int:
        return sum(not request.accepted for request in self.requests)

    @property
    def capacity_used(self) -> float:
        units = sum(request.units for request in self.requests if request.accepted)
        return units / (CAPACITY * self.seconds)

    @property
    def worst_second(self) -> float:
        """The most that was asked of the store in any sliding second, refused or not."""
        return busiest_second(self.requests) / CAPACITY


def read_result(
    way: Way, database: Path, cities: Sequence[Document], started: float, time_limit: float
) -> Result:
    """Compare what the store holds with what it was to hold, byte by byte."""
    with closing(sqlite3.connect(database)) as connection:
        stored = dict(connection.execute("SELECT geonameid, body FROM documents"))
        (written,) = connection.execute(
            "SELECT count(DISTINCT json_extract(CAST(body AS TEXT), '$.geonameid')) FROM documents"
        ).fetchone()
        log = connection.execute(
            "SELECT at - ?, units, documents, accepted FROM requests ORDER BY at", (started,)
        )
        requests = [Request(at, units, n, bool(ok)) for at, units, n, ok in log]
    missing = sum(stored.get(city["geonameid"]) != encode(city) for city in cities)
    last = max((request.at for request in requests if request.accepted), default=time_limit)
    return Result(way, requests, written, missing, time_limit if missing else last)


def busiest_second(requests: Iterable[Request]) -> int:
    window: deque[Request] = deque()
    units = busiest = 0
    for request in requests:
        window.append(request)
        units += request.units
        while window[0].at <= request.at - 1:
            units -= window.popleft().units
        busiest = max(busiest, units)
    return busiest


HEADINGS = (
    "",
    "time",
    "documents\nper second",
    "429s",
    "capacity\nused",
    "asked for in\nworst second",
    "documents\nmissing",
)
NOTE = "Percentages are of the store's capacity. * stopped, because its time was up"


def rows(results: Iterable[Result]) -> list[tuple[str, ...]]:
    return [
        (
            result.way.title,
            f"{result.seconds:.1f} s" + ("*" if result.missing else ""),
            f"{result.rate:,.0f}",
            f"{result.refused:,}",
            f"{result.capacity_used:.1%}",
            f"{result.worst_second:,.1%}",
            f"{result.missing:,}",
        )
        for result in results
    ]


def table(results: Iterable[Result]) -> Table:
    drawing = Table(caption=NOTE, caption_justify="left")
    for heading in HEADINGS:
        drawing.add_column(heading, justify="right" if heading else "left")
    for row in rows(results):
        drawing.add_row(*row)
    return drawing
