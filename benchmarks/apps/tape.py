"""What handlers write and the driver reads: a file per process, a record per call of a handler.

All contenders pay the same for it, one `write` of 24 bytes per call. Times are of the monotonic
clock, which all processes of a machine share. Latencies of rows that carry the time `at` go to a
second file.
"""

from __future__ import annotations

import os
import struct
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from celery.signals import worker_ready

from apps.settings import Settings

_RECORD = struct.Struct("<dqq")
_files: dict[tuple[int, str], int] = {}


class Start(NamedTuple):
    """One start of a handler."""

    at: float
    operations: int
    cost: int


def handle(rows: Sequence[dict[str, Any]], cost: int, settings: Settings) -> None:
    """The body of every handler: note the start, look at the rows, burn CPU if asked to."""
    start = time.monotonic()
    os.write(_file(settings, "starts"), _RECORD.pack(start, len(rows), cost))
    latencies = array("d", [start - row["at"] for row in rows if "at" in row])
    if latencies:
        os.write(_file(settings, "latencies"), latencies.tobytes())
    until = time.thread_time() + settings.handler_cpu_ms / 1000
    while settings.handler_cpu_ms and time.thread_time() < until:
        pass


def starts(directory: str) -> list[Start]:
    """All records so far, by time."""
    found: list[Start] = []
    for path in Path(directory).glob("starts.*"):
        found.extend(map(Start._make, _RECORD.iter_unpack(path.read_bytes())))
    return sorted(found)


def latencies(directory: str) -> list[float]:
    """Seconds from enqueue to handler of every row that said when it was enqueued, sorted."""
    found = array("d")
    for path in Path(directory).glob("latencies.*"):
        found.frombytes(path.read_bytes())
    return sorted(found)


def ready(directory: str) -> int:
    """How many workers have started."""
    return len(list(Path(directory).glob("ready.*")))


@worker_ready.connect
def _note_ready(**_: Any) -> None:
    Path(Settings.load().directory, f"ready.{os.getpid()}").touch()


def _file(settings: Settings, kind: str) -> int:
    key = os.getpid(), kind
    if key not in _files:
        path = Path(settings.directory, f"{kind}.{key[0]}")
        _files[key] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return _files[key]
