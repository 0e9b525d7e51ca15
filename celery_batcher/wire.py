"""The bytes: entries, messages of lanes, and set-aside records. No other module knows them.

An *entry* is one operation as it travels and waits. It is big-endian, and it says its own
length, so that entries can be laid end to end:

====== ======= ==================================================
offset type    meaning
====== ======= ==================================================
0      u32     length of what follows
4      u8      version, 1
5      u8      flags: 1 batchable, 2 registered (its id is unique while it lives), 4 has a key
6      u8      priority: 0 high, 1 normal, 2 backfill
7      u8      length of the serializer's name
8      u16     attempt, 1 in the first try
10     u64     cost
18     u64     milliseconds since 1970 at which it was enqueued
26     u8      length of the id
27     u16     length of the key
29             serializer's name, id, key, payload
====== ======= ==================================================

A *block* is what the index keeps as one element: operations of one watcher, priority and key that
follow one another, their entries laid end to end behind

====== ======= ==================================================
offset type    meaning
====== ======= ==================================================
0      u64     sequence number of the first; the others count on
8      u32     operations
12     u32     bytes of the entries
16     u64     their cost
24     u64     their weight in fairness: each counts its cost, 1 at least
====== ======= ==================================================

Only the Lua scripts make blocks, and take them apart when a batch has no room for a whole one.

A *message* of a lane is a minimal Celery task message (protocol 2): if a worker ever consumes
a lane by mistake, it runs the task `RETURN_TASK`, which has the broker put it back.
"""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from json import encoder as json_encoder
from typing import Any

from kombu import serialization
from kombu.exceptions import SerializerNotInstalled
from kombu.utils import json as kombu_json
from kombu.utils.encoding import str_to_bytes

from .errors import ConfigurationError, PayloadError
from .operation import MAX_COST, Operation, Priority, new_id

VERSION = 1
RETURN_TASK = "celery_batcher.return_to_lane"
MAX_PAYLOAD = 1024 * 1024
"""Bytes of the largest payload."""
MAX_OPERATIONS = 1000
"""Operations of the largest message, and of the largest batch."""
MAX_ATTEMPT = 65535
MAX_KEY = 255
MAX_ID = 255

BATCHABLE, REGISTERED, HAS_KEY = 1, 2, 4
PRIORITIES = tuple(priority.name for priority in Priority)

_HEADER = struct.Struct(">IBBBBHQQBH")
_LENGTH = 4
_BLOCK = struct.Struct(">QIIQQ")
BLOCK_OPERATIONS, BLOCK_BYTES = 100, 32 * 1024
"""What a block has at most, unless a single operation is larger."""
_REGISTRY: Any = serialization.registry  # type: ignore[attr-defined]
_JSON_ENCODER = kombu_json.JSONEncoder(separators=(",", ":"))
_JSON_DECODER = json.JSONDecoder()
_scan_json = _JSON_DECODER.scan_once  # type: ignore[attr-defined]
_HOOKED_JSON_DECODER = json.JSONDecoder(object_hook=kombu_json.object_hook)
_JSON_HOOK = b"__type__"  # in every object that Kombu's hook would change
_JSON = b"json"


class MalformedError(ValueError):
    """Bytes that are no entry or no message; the text says what is wrong with them.

    ``id`` is the message's id, if at least that can be read.
    """

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message.encode("ascii", "backslashreplace").decode())
        self.id = id


@dataclass(frozen=True, slots=True)
class Entry:
    """The header of an entry, and where its parts are."""

    flags: int
    priority: int
    attempt: int
    cost: int
    enqueued_ms: int
    serializer: str
    id: str
    key: str | None
    payload: bytes

    @property
    def registered(self) -> bool:
        return bool(self.flags & REGISTERED)

    @property
    def batchable(self) -> bool:
        return bool(self.flags & BATCHABLE)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a lane: the entries of one watcher."""

    id: str
    batcher: str
    watcher: str
    entries: bytes
    operations: int


# Entries ----------------------------------------------------------------------------------


def _json_chunks() -> Callable[[Any, int], Iterable[str]]:
    """What `JSONEncoder.encode` makes anew for each value, made once: that takes half its time."""
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        return lambda value, _: _JSON_ENCODER.iterencode(value)
    chunks: Callable[[Any, int], Iterable[str]] = make(
        None,  # no check for cycles: these end in a RecursionError
        _JSON_ENCODER.default,
        json_encoder.encode_basestring_ascii,
        None,
        _JSON_ENCODER.key_separator,
        _JSON_ENCODER.item_separator,
        _JSON_ENCODER.sort_keys,
        _JSON_ENCODER.skipkeys,
        _JSON_ENCODER.allow_nan,
    )
    return chunks


_chunks = _json_chunks()


def encode_payload(payload: Any, serializer: str) -> bytes:
    """Serialise a payload with one of Kombu's serializers.

    Raises:
        PayloadError: it cannot be serialised, or is larger than `MAX_PAYLOAD`.
        ConfigurationError: the serializer is unknown.
    """
    try:
        if serializer == "json":
            data = "".join(_chunks(payload, 0)).encode()
        else:
            _, _, encoded = serialization.dumps(payload, serializer=serializer)
            data = str_to_bytes(encoded)
    except SerializerNotInstalled as exc:
        raise ConfigurationError(f"batcher_serializer: {exc}") from exc
    except Exception as exc:  # a serializer may raise anything
        raise PayloadError(
            f"payload of type {type(payload).__name__} cannot be serialised "
            f"with {serializer}: {exc}"
        ) from exc
    if len(data) > MAX_PAYLOAD:
        raise PayloadError(
            f"payload of {len(data)} bytes is above {MAX_PAYLOAD}: keep the data where it is "
            "and enqueue a reference to it"
        )
    return data


def flags_of(*, batchable: bool, registered: bool, keyed: bool) -> int:
    """The flags of an entry."""
    return (BATCHABLE * batchable) | (REGISTERED * registered) | (HAS_KEY * keyed)


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
) -> bytes:
    """Lay out one entry."""
    names = serializer + id + key
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
    size, version, _, priority, name, attempt, cost, _, id_, key = fields
    if version != VERSION:
        raise MalformedError(f"unknown version {version}")
    if offset + _LENGTH + size > len(data) or _HEADER.size - _LENGTH + name + id_ + key > size:
        raise MalformedError("truncated entry")
    if priority >= len(PRIORITIES) or cost > MAX_COST or not attempt or not id_:
        raise MalformedError("impossible header")
    return fields


def decode_entry(data: bytes, offset: int = 0) -> tuple[Entry, int]:
    """Read the entry at the offset; return it and the offset behind it.

    Raises:
        MalformedError: there is none.
    """
    size, _, flags, priority, name, attempt, cost, enqueued_ms, id_, key = _header(data, offset)
    at, end = offset + _HEADER.size, offset + _LENGTH + size
    names = data[at : at + name + id_ + key]
    entry = Entry(
        flags=flags,
        priority=priority,
        attempt=attempt,
        cost=cost,
        enqueued_ms=enqueued_ms,
        serializer=_text(names[:name]),
        id=_text(names[name : name + id_]),
        key=_text(names[name + id_ :]) if flags & HAS_KEY else None,
        payload=data[at + len(names) : end],
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
    operation, else None. Registered and unbatchable operations are pieces of their own.
    """

    priority: int
    operations: int
    cost: int
    weight: int
    bytes: int
    single: bool
    key: tuple[int, int]
    id: tuple[int, int] | None


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
        plain = flags & (BATCHABLE | REGISTERED) == BATCHABLE
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
            single = not flags & BATCHABLE
            pieces.append(Piece(priority, 1, cost, cost or 1, size, single, (at + id_, key_), id))
        offset += size
    if not pieces:
        raise MalformedError("no entry")
    return pieces


def block_of(sequence: int, entry: bytes, cost: int) -> bytes:
    """The block of a single operation."""
    return _BLOCK.pack(sequence, 1, len(entry), cost, cost or 1) + entry


def with_attempt(entry: bytes, attempt: int) -> bytes:
    """The same entry, with another attempt."""
    return entry[:8] + attempt.to_bytes(2, "big") + entry[10:]


def accepted(accept_content: Iterable[str]) -> frozenset[str]:
    """The content types that an app accepts, from its ``accept_content`` (names or types)."""
    return frozenset(serialization.prepare_accept_content(accept_content) or ())


def load_json(data: bytes) -> Any:
    """What Kombu's JSON serializer reads, without its hook where there is nothing to hook."""
    text = data.decode()
    if _JSON_HOOK in data:
        return _HOOKED_JSON_DECODER.decode(text)
    try:
        value, end = _scan_json(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else _JSON_DECODER.decode(text)  # spaces around, or an error


def decode_payload(serializer: str, payload: bytes, accept: frozenset[str]) -> Any:
    """A payload, through a serializer that the app accepts.

    Raises:
        kombu.exceptions.ContentDisallowed: the app does not accept it.
    """
    if serializer == "json" and "application/json" in accept:
        return load_json(payload)
    content_type = _REGISTRY.name_to_type.get(serializer, serializer)
    encoder = _REGISTRY._encoders.get(serializer)
    encoding = encoder.content_encoding if encoder else "utf-8"
    return serialization.loads(payload, content_type, encoding, accept=accept)


@dataclass(frozen=True, slots=True)
class Opened:
    """The operations of a claimed batch.

    ``outcomes`` has an "x" for each entry whose payload could not be read and a "d" for each of
    the others, which are ``operations``; ``reason`` is that of the last unreadable one.
    """

    operations: tuple[Operation, ...]
    registered: list[str]
    outcomes: str
    reason: str


def open_blocks(data: bytes, watcher: str, accept: frozenset[str]) -> Opened:
    """The operations of blocks laid end to end, as the store returns them."""
    operations: list[Operation] = []
    registered: list[str] = []
    outcomes: list[str] = []
    unpack, header, make = _HEADER.unpack_from, _HEADER.size, tuple.__new__
    json_accepted = "application/json" in accept
    reason, offset, end = "", 0, 0
    while offset < len(data):
        if offset == end:
            offset += _BLOCK.size
            end = offset + _BLOCK.unpack_from(data, offset - _BLOCK.size)[2]
        length, _, flags, priority, name, attempt, cost, _, id_, key_ = unpack(data, offset)
        at = offset + header
        serializer = data[at : (at := at + name)]
        id = data[at : (at := at + id_)].decode(errors="backslashreplace")
        key = data[at : (at := at + key_)].decode(errors="backslashreplace") if key_ else ""
        offset += _LENGTH + length
        try:
            if json_accepted and serializer == _JSON:
                payload = load_json(data[at:offset])
            else:
                payload = decode_payload(_text(serializer), data[at:offset], accept)
        except Exception as exc:  # noqa: BLE001 - a serializer may raise anything
            reason = f"payload of {id} cannot be read: {exc!r}"
            outcomes.append("x")
            continue
        outcomes.append("d")
        operations.append(
            make(
                Operation,
                (
                    id,
                    watcher,
                    cost,
                    payload,
                    attempt,
                    flags & BATCHABLE != 0,
                    key if flags & HAS_KEY else None,
                    PRIORITIES[priority],
                ),
            )
        )
        if flags & REGISTERED:
            registered.append(id)
    return Opened(tuple(operations), registered, "".join(outcomes), reason)


# Messages ---------------------------------------------------------------------------------


def message_body(batcher: str, watcher: str, entries: bytes) -> str:
    """The body of a lane's message: arguments of the task that puts the entries back."""
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    args = [batcher, watcher, b64encode(entries).decode()]
    return json.dumps([args, {}, embed], separators=(",", ":"))


def message_headers(id: str, operations: int) -> dict[str, Any]:
    """The headers that make a worker read the message as a task, and ours."""
    return {
        "lang": "py",
        "task": RETURN_TASK,
        "id": id,
        "root_id": id,
        "parent_id": None,
        "v": VERSION,
        "n": operations,
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """The text of a lane's messages, as Kombu's Redis transport keeps them in a list.

    Kombu makes each from objects and parses it into objects. Here it is made from the ``parts``
    between the six places in which messages differ, and read by looking for these parts.
    """

    batcher: str
    watcher: str
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, batcher: str, watcher: str, lane: str) -> Envelope:
        """The envelope of a lane."""
        envelope = {
            "body": message_body(batcher, watcher, b"").replace('""', '"@"'),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message_headers("@", 0) | {"n": "@n"},
            "properties": {
                "correlation_id": "@",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": lane},
                "priority": 0,
                "body_encoding": None,
                "delivery_tag": "@",
            },
        }
        text = json.dumps(envelope).replace('"@n"', "@")
        return cls(batcher, watcher, tuple(text.encode().split(b"@")))

    def write(self, id: str, operations: int, entries: bytes) -> bytes:
        """A message."""
        quoted = json.dumps(id)[1:-1].encode()
        values = (b64encode(entries), quoted, quoted, b"%d" % operations, quoted, new_id().encode())
        pieces = [part for pair in zip(self.parts, values, strict=False) for part in pair]
        return b"".join([*pieces, self.parts[-1]])

    def read(self, raw: bytes) -> Message:
        """A message of the lane, laid out in any way.

        Raises:
            MalformedError: it is none of ours.
        """
        data, id, root, operations, correlation, tag = self._values(raw)
        if (
            id == root == correlation
            and id.isalnum()
            and tag.isalnum()
            and len(id) <= MAX_ID
            and operations.isdigit()
            and 0 < (n := int(operations)) <= MAX_OPERATIONS
        ):
            try:
                entries = b64decode(data, validate=True)
            except ValueError:
                pass  # the other way says what is wrong
            else:
                return Message(id.decode(), self.batcher, self.watcher, entries, n)
        return decode_envelope(raw)

    def _values(self, raw: bytes) -> list[bytes]:
        """What stands between the parts; empty bytes where they are not all there."""
        body, *middle, end = self.parts
        nothing = [b""] * (len(middle) + 1)
        if not (raw.startswith(body) and raw.endswith(end)):
            return nothing
        values, at = [], len(body)
        for part in middle:
            stop = raw.find(part, at)
            if stop < 0:
                return nothing
            values.append(raw[at:stop])
            at = stop + len(part)
        return [*values, raw[at : len(raw) - len(end)]]


def decode_message(headers: Mapping[str, Any], body: str | bytes) -> Message:
    """Read a message of a lane.

    Raises:
        MalformedError: it is none of ours.
    """
    version, id, operations = headers.get("v"), headers.get("id"), headers.get("n")
    if not isinstance(id, str) or not id.isprintable() or not 0 < len(id.encode()) <= MAX_ID:
        raise MalformedError("no id")
    if headers.get("task") != RETURN_TASK:
        raise MalformedError(f"not a message of a lane: task {headers.get('task')!r}", id)
    if version != VERSION:
        raise MalformedError(f"unknown version {version!r}", id)
    if not isinstance(operations, int) or not 0 < operations <= MAX_OPERATIONS:
        raise MalformedError(f"{operations!r} operations: 1 to {MAX_OPERATIONS} fit a message", id)
    try:
        (batcher, watcher, data), _, _ = json.loads(body)
        entries = b64decode(data, validate=True)
    except (ValueError, TypeError, RecursionError) as exc:
        raise MalformedError(f"unreadable body: {exc}", id) from exc
    if not (isinstance(batcher, str) and isinstance(watcher, str)):
        raise MalformedError("unreadable arguments", id)
    return Message(id, batcher, watcher, entries, operations)


def decode_envelope(raw: bytes) -> Message:
    """Read a message as Kombu's Redis transport keeps it in a list.

    Raises:
        MalformedError: it is none of ours.
    """
    try:
        envelope = load_json(raw)
        headers, body = envelope["headers"], envelope["body"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = b64decode(body)
    except Exception as exc:  # Kombu's hooks may raise anything
        raise MalformedError(f"unreadable envelope: {exc!r}") from exc
    if not isinstance(headers, dict):
        raise MalformedError("unreadable headers")
    return decode_message(headers, body)


def fingerprint(data: bytes) -> str:
    """An id for a message that has none that can be read."""
    return hashlib.sha256(data).hexdigest()[:32]
