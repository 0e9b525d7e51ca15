"""Rows of a back-fill, and how they become chunks. Nothing here knows a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any

from .clock import Clock
from .costs import MAX_COST, Cost
from .errors import ConfigurationError
from .store.backfills import Chunk

MAX_CHECKPOINT = 16 * 1024
_CHUNK_BYTES = 256 * 1024
_CHUNK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """A row that a back-fill's function yields, and where to go on behind it.

    Args:
        payload: what the handler gets.
        checkpoint: what the function is called with to yield what comes after this row: any JSON
            value but None, up to 16 KiB.
        cost, key, priority, batchable, id, dedupe_key, dedupe_for: as `Watcher.enqueue` has them.

    A function may also yield payloads as they are. Rows without a checkpoint count from the newest
    one before them: going on there, the function is called with that, and as many rows are passed
    over as were taken behind it.
    """

    payload: Any
    _: KW_ONLY
    checkpoint: Any = None
    cost: Cost | None = None
    key: str | None = None
    priority: str | None = None
    batchable: bool = True
    id: str | None = None
    dedupe_key: str | None = None
    dedupe_for: float | timedelta = 0


Encode = Callable[[Row], tuple[int, bytes]]
"""The cost and the entry of a row."""


@dataclass(slots=True)
class Place:
    """Where a run is: chunks and rows taken, and the checkpoint with what was taken behind it."""

    chunk: int = 0
    checkpoint: str = ""
    skip: int = 0
    total: int | None = None

    def behind(self, row: Row) -> tuple[str, int]:
        """Checkpoint and skip once this row is taken, too."""
        if row.checkpoint is None:
            return self.checkpoint, self.skip + 1
        return checkpoint_text(row.checkpoint), 0

    @property
    def value(self) -> Any:
        """The checkpoint as the function gets it."""
        return json.loads(self.checkpoint) if self.checkpoint else None


def checkpoint_text(checkpoint: Any) -> str:
    """A checkpoint as JSON.

    Raises:
        ConfigurationError: it is none, or too long.
    """
    try:
        text = json.dumps(checkpoint, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigurationError(
            f"a checkpoint of type {type(checkpoint).__name__} is no JSON value ({exc}): yield "
            "numbers, texts, lists and dicts of them; dates as their isoformat()"
        ) from exc
    if len(text) > MAX_CHECKPOINT:
        raise ConfigurationError(f"a checkpoint of {len(text)} bytes: {MAX_CHECKPOINT} at most")
    return text


def rows_behind(source: Iterable[Any], skip: int) -> Iterator[Row]:
    """What a function yields, as rows, behind those that were taken before."""
    for n, one in enumerate(source):
        if n >= skip:
            yield one if isinstance(one, Row) else Row(one)


def chunks(
    rows: Iterator[Row], place: Place, encode: Encode, *, most: int, clock: Clock
) -> Iterator[Chunk]:
    """Rows in chunks of up to ``most``; where the place is once each is taken.

    A slow source's rows do not wait for a full chunk. An error of the source or of a row is raised
    behind the rows before it.
    """
    entries: list[bytes] = []
    size = total = 0
    began = clock.monotonic()

    def cut() -> Chunk:
        place.chunk += 1
        data = b"".join(entries)
        here = place.checkpoint, place.skip, place.total
        return Chunk(place.chunk, data, len(entries), total, *here)

    fault: Exception | None = None
    while True:
        try:
            row = next(rows, None)
            if row is None:
                break
            cost, entry = encode(row)
            place_behind = place.behind(row)
        except Exception as exc:  # noqa: BLE001 - raised below, behind the rows before it
            fault = exc
            break
        if entries and (size + len(entry) > _CHUNK_BYTES or total + cost > MAX_COST):
            yield cut()
            entries, size, total, began = [], 0, 0, clock.monotonic()
        place.checkpoint, place.skip = place_behind
        entries.append(entry)
        size, total = size + len(entry), total + cost
        if len(entries) >= most or clock.monotonic() - began >= _CHUNK_SECONDS:
            yield cut()
            entries, size, total, began = [], 0, 0, clock.monotonic()
    if entries:
        yield cut()
    if fault is not None:
        raise fault
