"""What only some entries have, between key and payload, each if its flag says so, in this order.

========= ======= =============================================================================
flag      type    meaning
========= ======= =============================================================================
16 VECTOR u8      how many further costs it has, and a u64 each
32 DEDUPED u64    how long after its arrival, at least, others with its id are dropped, in ms
64 TRACED u16     bytes of the context that it was enqueued in, and these, opaque here
========= ======= =============================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..costs import MAX_COST
from .malformed import MalformedError

VECTOR, DEDUPED, TRACED = 16, 32, 64
EXTRAS = VECTOR | DEDUPED | TRACED

MAX_DEDUPE_MS = 366 * 86_400_000

_DEDUPE = struct.Struct(">Q")
_TRACE = struct.Struct(">H")


class Extras(NamedTuple):
    """What an entry has between key and payload, and the offset behind it."""

    further: tuple[int, ...] = ()
    dedupe_ms: int | None = None
    context: bytes = b""
    end: int = 0


def encode_costs(further: Sequence[int]) -> bytes:
    """Costs in further dimensions than the first, as an entry with `VECTOR` has them."""
    return struct.pack(f">B{len(further)}Q", len(further), *further)


def encode_dedupe(ms: int) -> bytes:
    """How long duplicates are dropped, as an entry with `DEDUPED` has it."""
    return _DEDUPE.pack(ms)


def encode_context(context: bytes) -> bytes:
    """The context of a trace, as an entry with `TRACED` has it."""
    return _TRACE.pack(len(context)) + context


def decode_extras(data: bytes, offset: int, flags: int) -> Extras:
    """What a well-formed entry has at the offset behind its key."""
    further: tuple[int, ...] = ()
    dedupe_ms, context = None, b""
    if flags & VECTOR:
        further, offset = _decode_costs(data, offset)
    if flags & DEDUPED:
        dedupe_ms, offset = _DEDUPE.unpack_from(data, offset)[0], offset + _DEDUPE.size
    if flags & TRACED:
        offset += _TRACE.size
        end = offset + _TRACE.unpack_from(data, offset - _TRACE.size)[0]
        context, offset = data[offset:end], end
    return Extras(further, dedupe_ms, context, offset)


def check_extras(data: bytes, offset: int, end: int, flags: int, *, registered: bool) -> None:
    """
    Raises:
        MalformedError: the bytes up to the end are not what the flags say.
    """
    if flags & VECTOR:
        if offset >= end or offset + 1 + 8 * data[offset] > end:
            raise MalformedError("truncated entry")
        costs, offset = _decode_costs(data, offset)
        if any(cost > MAX_COST for cost in costs):
            raise MalformedError("impossible cost")
    if flags & DEDUPED:
        if offset + _DEDUPE.size > end:
            raise MalformedError("truncated entry")
        if not registered or _DEDUPE.unpack_from(data, offset)[0] > MAX_DEDUPE_MS:
            raise MalformedError("impossible header")
        offset += _DEDUPE.size
    if flags & TRACED:
        behind = offset + _TRACE.size
        if behind > end or behind + _TRACE.unpack_from(data, offset)[0] > end:
            raise MalformedError("truncated entry")


def _decode_costs(data: bytes, offset: int) -> tuple[tuple[int, ...], int]:
    """Further costs, and the offset behind them."""
    end = offset + 1 + 8 * data[offset]
    return struct.unpack_from(f">{data[offset]}Q", data, offset + 1), end
