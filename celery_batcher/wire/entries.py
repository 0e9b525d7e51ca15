"""Entries and blocks: operations as they travel and wait.

An *entry* is one operation as it travels and waits. It is big-endian, and it says its own
length, so that entries can be laid end to end:

====== ======= ==================================================
offset type    meaning
====== ======= ==================================================
0      u32     length of what follows
4      u8      version, 1
5      u8      flags: 1 batchable, 2 registered (its id is unique while it lives), 4 has a key,
               8 alone: it was alone in a batch that failed, and stays alone,
               16 has costs in further dimensions, 32 deduplicated (and registered),
               64 has the context of a trace; 128 is nobody's, and malformed
6      u8      priority: 0 high, 1 normal, 2 backfill
7      u8      length of the serializer's name
8      u16     attempt, 1 in the first try
10     u64     cost, in the first dimension
18     u64     milliseconds since 1970 at which it was enqueued, before the year 10000
26     u8      length of the id
27     u16     length of the key
29             serializer's name, id, key, what `extras` has, payload
====== ======= ==================================================

A reader that does not know a flag sets the message aside, and reads nothing into it.

A *block* is what the index keeps as one element: operations of one watcher, priority and key that
follow one another, their entries laid end to end behind

====== ======= ==================================================
offset type    meaning
====== ======= ==================================================
0      u64     sequence number of the first; the others count on
8      u32     operations
12     u32     bytes of the entries
16     u64     their cost, in the first dimension
24     u64     their weight in fairness: each counts its cost, 1 at least
====== ======= ==================================================

Only the Lua scripts make blocks, and take them apart when a batch has no room for a whole one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..costs import MAX_COST, PLAIN, named
from ..operation import Operation, Priority
from .extras import DEDUPED, EXTRAS, VECTOR, Extras, check_extras, decode_extras
from .malformed import MalformedError
from .payloads import decode_payload, explain, load_json

VERSION = 1
MAX_ATTEMPT = 65535
MAX_KEY = 255
MAX_ID = 255
BLOCK_OPERATIONS, BLOCK_BYTES = 100, 32 * 1024
"""What a block has at most, unless a single operation is larger."""

LATEST_MS = 253_402_300_799_999
"""The last millisecond that a `datetime` can tell."""

BATCHABLE, REGISTERED, HAS_KEY, ALONE = 1, 2, 4, 8
_UNKNOWN = 128
PRIORITIES = tuple(priority.name for priority in Priority)

_HEADER = struct.Struct(">IBBBBHQQBH")
_LENGTH = 4
_BLOCK = struct.Struct(">QIIQQ")
_JSON = b"json"


@dataclass(frozen=True, slots=True)
class Entry:
    """The header of an entry, and where its parts are."""

    flags: int
    priority: int
    attempt: int
    costs: tuple[int, ...]
    enqueued_ms: int
    serializer: str
    id: str
    key: str | None
    payload: bytes
    dedupe_ms: int | None = None
    context: bytes = b""

    @property
    def cost(self) -> int:
        return self.costs[0]

    @property
    def registered(self) -> bool:
        return bool(self.flags & REGISTERED)

    @property
    def batchable(self) -> bool:
        return bool(self.flags & BATCHABLE)

    @property
    def single(self) -> bool:
        """Whether it shares its batch with no other."""
        return _single(self.flags)


def _single(flags: int) -> bool:
    return flags & (BATCHABLE | ALONE) != BATCHABLE


def flags_of(*, batchable: bool, registered: bool, keyed: bool, vector: bool = False) -> int:
    """The flags of an entry."""
    flags = (BATCHABLE * batchable) | (REGISTERED * registered) | (HAS_KEY * keyed)
    return flags | (VECTOR * vector)


def encode_entry(  # noqa: PLR0917 - called per operation, where keywords cost a tenth
    id: bytes,
    cost: int,
    payload: bytes,
    serializer: bytes,
    flags: int,
    priority: int,
    key: bytes,
    attempt: int,
    enqueued_ms: int,
    extras: bytes = b"",
) -> bytes:
    """Lay out one entry. ``extras``: what `extras` encodes for its flags, one behind the other."""
    names = serializer + id + key + extras
    return (
        _HEADER.pack(
            _HEADER.size - _LENGTH + len(names) + len(payload),
            VERSION,
            flags,
            priority,
            len(serializer),
            attempt,
            cost,
            enqueued_ms,
            len(id),
            len(key),
        )
        + names
        + payload
    )


def _text(data: bytes) -> str:
    """A name. One that is no UTF-8 must not fail the others of its message or batch."""
    return data.decode(errors="backslashreplace")


def _header(data: bytes, offset: int) -> tuple[int, int, int, int, int, int, int, int, int, int]:
    """The fields of the header at the offset.

    Raises:
        MalformedError: there is no entry, or none that is whole.
    """
    if len(data) - offset < _HEADER.size:
        raise MalformedError("truncated entry")
    fields = _HEADER.unpack_from(data, offset)
    size, version, flags, priority, name, attempt, cost, enqueued_ms, id_, key = fields
    if version != VERSION:
        raise MalformedError(f"unknown version {version}")
    if flags & _UNKNOWN:
        raise MalformedError("unknown flags")
    if offset + _LENGTH + size > len(data) or _HEADER.size - _LENGTH + name + id_ + key > size:
        raise MalformedError("truncated entry")
    if priority >= len(PRIORITIES) or cost > MAX_COST or not attempt or not id_:
        raise MalformedError("impossible header")
    if enqueued_ms > LATEST_MS or (key and not flags & HAS_KEY):
        raise MalformedError("impossible header")
    if flags & EXTRAS:
        at = offset + _HEADER.size + name + id_ + key
        end = offset + _LENGTH + size
        check_extras(data, at, end, flags, registered=bool(flags & REGISTERED))
    return fields


def decode_entry(data: bytes, offset: int = 0) -> tuple[Entry, int]:
    """Read the entry at the offset; return it and the offset behind it.

    Raises:
        MalformedError: there is none.
    """
    size, _, flags, priority, name, attempt, cost, enqueued_ms, id_, key = _header(data, offset)
    at, end = offset + _HEADER.size, offset + _LENGTH + size
    names = data[at : at + name + id_ + key]
    at += len(names)
    extras = decode_extras(data, at, flags)
    entry = Entry(
        flags=flags,
        priority=priority,
        attempt=attempt,
        costs=(cost, *extras.further),
        enqueued_ms=enqueued_ms,
        serializer=_text(names[:name]),
        id=_text(names[name : name + id_]),
        key=_text(names[name + id_ :]) if flags & HAS_KEY else None,
        payload=data[extras.end : end],
        dedupe_ms=extras.dedupe_ms,
        context=extras.context,
    )
    return entry, end


def decode_entries(data: bytes) -> list[Entry]:
    """Read entries that are laid end to end.

    Raises:
        MalformedError: they are not, or there is none.
    """
    entries, offset = [], 0
    while offset < len(data):
        entry, offset = decode_entry(data, offset)
        entries.append(entry)
    if not entries:
        raise MalformedError("no entry")
    return entries


def split_entries(data: bytes) -> Iterator[bytes]:
    """The entries of well-formed bytes, one by one, undecoded."""
    offset = 0
    while offset < len(data):
        end = offset + _LENGTH + int.from_bytes(data[offset : offset + _LENGTH], "big")
        yield data[offset:end]
        offset = end


@dataclass(slots=True)
class Piece:
    """Entries that lie end to end and may share a block.

    ``key`` and ``id`` are offset and size in the first entry; ``id`` is that of a registered
    operation, else None; ``dedupe_ms`` that of a deduplicated one. Registered and unbatchable
    operations are pieces of their own.
    """

    priority: int
    operations: int
    cost: int
    weight: int
    bytes: int
    single: bool
    key: tuple[int, int]
    id: tuple[int, int] | None
    dedupe_ms: int | None = None


def split_pieces(data: bytes) -> list[Piece]:
    """The pieces of a message's entries, in order.

    Raises:
        MalformedError: the bytes are not entries, or there is none.
    """
    pieces: list[Piece] = []
    together: tuple[int, bytes] | None = None
    offset = 0
    while offset < len(data):
        size, _, flags, priority, name, _, cost, _, id_, key_ = _header(data, offset)
        size += _LENGTH
        at = _HEADER.size + name
        key = data[offset + at + id_ : offset + at + id_ + key_]
        plain = flags & (BATCHABLE | REGISTERED | ALONE) == BATCHABLE
        if (
            plain
            and together == (priority, key)
            and (last := pieces[-1]).operations < BLOCK_OPERATIONS
            and last.bytes + size <= BLOCK_BYTES
        ):
            last.operations += 1
            last.cost += cost
            last.weight += cost or 1
            last.bytes += size
        else:
            together = (priority, key) if plain else None
            id = (at, id_) if flags & REGISTERED else None
            place = at + id_, key_
            piece = Piece(priority, 1, cost, cost or 1, size, _single(flags), place, id)
            if flags & DEDUPED:
                piece.dedupe_ms = decode_extras(data, offset + at + id_ + key_, flags).dedupe_ms
            pieces.append(piece)
        offset += size
    if not pieces:
        raise MalformedError("no entry")
    if sum(piece.cost for piece in pieces) > MAX_COST:
        raise MalformedError("impossible cost")
    return pieces


def block_of(sequence: int, entry: bytes, cost: int) -> bytes:
    """The block of a single operation."""
    return _BLOCK.pack(sequence, 1, len(entry), cost, cost or 1) + entry


def with_attempt(entry: bytes, attempt: int) -> bytes:
    """The same entry, with another attempt."""
    return entry[:8] + attempt.to_bytes(2, "big") + entry[10:]


def with_alone(entry: bytes, alone: bool) -> bytes:
    """The same entry, alone in its batches from now on or no longer so."""
    flags = entry[5] | ALONE if alone else entry[5] & ~ALONE
    return entry[:5] + bytes([flags]) + entry[6:]


@dataclass(frozen=True, slots=True)
class Opened:
    """The operations of a claimed batch.

    ``registered`` has the ids of registered ones, by position. ``outcomes`` has an "x" for each
    entry whose payload could not be read and a "d" for each of the others, which are
    ``operations``; ``unread`` has the ids and attempts of the unreadable ones, and ``reason`` is
    that of the last. ``contexts`` are those of traces in which they were enqueued, each once.
    """

    operations: tuple[Operation, ...]
    registered: dict[int, bytes]
    outcomes: str
    reason: str
    unread: tuple[tuple[str, int], ...] = ()
    contexts: tuple[bytes, ...] = ()


def open_blocks(
    data: bytes, watcher: str, accept: frozenset[str], dimensions: tuple[str, ...] = PLAIN
) -> Opened:
    """The operations of blocks laid end to end, as the store returns them."""
    operations: list[Operation] = []
    registered: dict[int, bytes] = {}
    outcomes: list[str] = []
    unread: list[tuple[str, int]] = []
    contexts: dict[bytes, None] = {}
    nothing = Extras()
    unpack, header, make = _HEADER.unpack_from, _HEADER.size, tuple.__new__
    json_accepted, plain = "application/json" in accept, dimensions == PLAIN
    reason, offset, end = "", 0, 0
    while offset < len(data):
        if offset == end:
            offset += _BLOCK.size
            end = offset + _BLOCK.unpack_from(data, offset - _BLOCK.size)[2]
        length, _, flags, priority, name, attempt, cost, _, id_, key_ = unpack(data, offset)
        at = offset + header
        serializer = data[at : (at := at + name)]
        raw_id = data[at : (at := at + id_)]
        id = raw_id.decode(errors="backslashreplace")
        key = data[at : (at := at + key_)].decode(errors="backslashreplace") if key_ else ""
        offset += _LENGTH + length
        extras = nothing
        if flags & EXTRAS:
            extras = decode_extras(data, at, flags)
            at = extras.end
            contexts[extras.context] = None
        try:
            if json_accepted and serializer == _JSON:
                payload = load_json(data[at:offset])
            else:
                payload = decode_payload(_text(serializer), data[at:offset], accept)
        except Exception as exc:  # noqa: BLE001 - a serializer may raise anything
            reason = f"payload of {id} cannot be read: {explain(exc)}"
            outcomes.append("x")
            unread.append((id, attempt))
            continue
        outcomes.append("d")
        operations.append(
            make(
                Operation,
                (
                    id,
                    watcher,
                    cost if plain else named((cost, *extras.further), dimensions),
                    payload,
                    attempt,
                    flags & BATCHABLE != 0,
                    key if flags & HAS_KEY else None,
                    PRIORITIES[priority],
                    None if extras.dedupe_ms is None else extras.dedupe_ms / 1000,
                ),
            )
        )
        if flags & REGISTERED:
            registered[len(operations) - 1] = raw_id
    return Opened(
        tuple(operations),
        registered,
        "".join(outcomes),
        reason,
        tuple(unread),
        tuple(filter(None, contexts)),
    )
