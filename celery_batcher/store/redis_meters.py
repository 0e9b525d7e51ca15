"""What the meters of the Redis store look like, read."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .meters import PLACES, BatchRecord, FlushRecord, Readings

_BY = b"by:"


def readings(flushes: Sequence[bytes], *watchers: tuple[bytes, bytes]) -> Readings:
    fields = zip(flushes[::2], flushes[1::2], strict=True)
    by_result = {
        name.removeprefix(_BY).decode(): int(n) for name, n in fields if name.startswith(_BY)
    }
    rows = {name.decode(): _numbers(packed) for name, packed in sorted(watchers)}
    return Readings(by_result, rows)


def _numbers(packed: bytes) -> tuple[int, ...]:
    """A watcher's counters; the string ends where nothing was counted yet."""
    whole = packed.ljust(8 * PLACES, b"\0")[: 8 * PLACES]
    return struct.unpack(f">{PLACES}q", whole)


def flush_record(row: Sequence[bytes | None]) -> FlushRecord | None:
    if row[0] is None:
        return None
    at, batches, operations, reason = (one or b"0" for one in row)
    return FlushRecord(int(at), int(batches), int(operations), reason.decode())


def batch_record(line: bytes) -> BatchRecord:
    words = line.decode().split(" ")
    id, state, trigger, operations, cost, oldest, released, started, ended, *outcomes = words[:-1]
    return BatchRecord(
        id=id,
        watcher=words[-1],
        operations=int(operations),
        cost=int(cost),
        trigger=trigger,
        state=state,
        oldest_ms=int(oldest),
        released_ms=int(released),
        started_ms=None if started == "-1" else int(started),
        ended_ms=None if ended == "-1" else int(ended),
        outcomes=tuple(map(int, outcomes)),
    )
