"""Messages as a broken, foreign or hostile program might leave them in a lane.

Everything is drawn from one `random.Random`: a seed gives the same messages again, and Hypothesis,
which offers one of its own, can make them smaller.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from builders import op
from celery_batcher import wire

BATCHER, WATCHER = "fuzzed", "work"
LANE = f"celery_batcher.{BATCHER}.{WATCHER}"
ENVELOPE = wire.Envelope.of(BATCHER, WATCHER, LANE)
MOST = 2**53 - 1

_HEADER = ">IBBBBHQQBH"
# Field of an entry's header: where it is, how it is packed, what it is replaced by.
_FIELDS: dict[str, tuple[int, str, tuple[int, ...]]] = {
    "size": (0, "I", (0, 1, 24, 25, 26, 2**16, 2**31, 2**32 - 1)),
    "version": (4, "B", (0, 2, 255)),
    "flags": (5, "B", (*range(9), 255)),
    "priority": (6, "B", (0, 1, 2, 3, 255)),
    "name": (7, "B", (0, 1, 3, 5, 255)),
    "attempt": (8, "H", (0, 1, 2, 3, 4, 65535)),
    "cost": (10, "Q", (0, 1, MOST, MOST + 1, 2**63, 2**64 - 1)),
    "enqueued": (18, "Q", (0, 1, 2**41, 2**53, 2**63, 2**64 - 1)),
    "id": (26, "B", (0, 1, 200, 255)),
    "key": (27, "H", (0, 1, 5, 255, 256, 65535)),
}
_NESTED = "[" * 3000 + "]" * 3000
_ODD_JSON = (
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "1.0",
    "1.5",
    "1e400",
    "NaN",
    "-Infinity",
    "9" * 30,
    "9" * 5000,
    '""',
    '"x"',
    '"\\u0000"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"' + "y" * 5000 + '"',
    "[]",
    "{}",
    "[[]]",
    '[null, null, null, "x"]',
    '{"a": {"b": {"c": []}}}',
    "[" * 900 + "]" * 900,
    _NESTED,
    '{"__type__": "datetime", "__value__": "no time"}',
    '{"__type__": "bytes", "__value__": "\\u00ff"}',
    '{"__type__": "uuid", "__value__": {"hex": "x"}}',
    '{"__type__": "decimal", "__value__": []}',
    '{"__type__": "\\ud800", "__value__": 1}',
    '{"__type__": []}',
    '{"__type__": 1, "__value__": 2}',
    '{"__type__": "x", "__value__": ' + "[" * 900 + "]" * 900 + "}",
    '{"__type__": "x", "__value__": "' + "secret" * 1000 + '"}',
)
_SERIALIZERS = (
    b"",
    b"raw",
    b"text",
    b"text/plain",
    b"application/data",
    b"application/text",
    b"application/json",
    b"application/x-python-serialize",
    b"pickle",
    b"PICKLE",
    b"yaml",
    b"msgpack",
    b"jsom",
    b"json\0",
    b"\xff\xfe",
)
_PAYLOADS = (
    b"",
    b"{",
    b"nul",
    b"NaN",
    b"1e400",
    b"\xff\xfe\x00",
    b'"\\ud800"',
    b"9" * 5000,
    _NESTED.encode(),
    b"[" * 100_000,
    *(text.encode() for text in _ODD_JSON if "__type__" in text),
)


class Mark:
    """What leaves a directory behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self._path), 0o700, True)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A message as it lies in a lane: its bytes, what was done to it, the ids in it if nothing."""

    raw: bytes
    kind: str
    good: tuple[str, ...] = ()


class Mutator:
    """Makes messages, good and bad.

    Args:
        random: where everything is drawn from.
        mark: a path that must not come to be: pickles in messages try to make it.
    """

    def __init__(self, random: Random, mark: Path) -> None:
        self._random = random
        self._pickle = pickle.dumps(Mark(mark))
        self._numbers = count(1)
        self._made: list[bytes] = []
        self._living: list[str] = []
        self._kinds: dict[str, Callable[[], bytes]] = {
            "flipped bits": lambda: self._flipped(self._envelope(), 8),
            "garbage within": self._overwritten,
            "cut": lambda: self._cut(self._envelope()),
            "slice lost": self._shortened,
            "slice twice": self._stuttered,
            "two in one": lambda: self._cut(self._envelope()) + self._envelope()[-200:],
            "junk": self._junk,
            "nothing": lambda: b"",
            "other JSON": self._other_json,
            "wrong type of a field": self._wrong_field,
            "field missing": self._without_field,
            "flipped bits in entries": lambda: self._wrapped(self._flipped(self._entries(), 4)),
            "entries cut": lambda: self._wrapped(self._cut(self._entries())),
            "entries with a tail": lambda: self._wrapped(self._entries() + self._junk()),
            "field of an entry": self._entry_field,
            "payload": self._payload,
            "serializer": self._serializer,
            "pickle": lambda: self._wrapped(self._pickled()),
            "task of others": self._foreign_task,
            "pickled task": self._pickled_task,
            "same message again": self._again,
            "living id again": self._living_again,
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """All ways to spoil a message."""
        return tuple(self._kinds)

    def message(self) -> Mutant:
        """The next message: one in four is good."""
        if self._random.random() < 0.25:
            return self.good()
        return self.bad(self._choice(self.kinds))

    def messages(self, number: int) -> list[Mutant]:
        """The next messages."""
        return [self.message() for _ in range(number)]

    def good(self) -> Mutant:
        """A message as producers write it."""
        names = [f"good{next(self._numbers)}" for _ in range(self._between(1, 3))]
        entries = b"".join([self._entry(name) for name in names])
        raw = self._wrapped(entries, len(names))
        self._made = [*self._made[-20:], raw]
        return Mutant(raw, "good", tuple(names))

    def bad(self, kind: str) -> Mutant:
        """A message spoilt in this way; it may still be readable."""
        return Mutant(self._kinds[kind](), kind)

    # Parts

    def _between(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def _choice(self, among: Sequence[Any]) -> Any:
        return among[self._between(0, len(among) - 1)]

    def _entry(self, name: str, **changes: Any) -> bytes:
        registered = self._random.random() < 0.1
        if registered:
            self._living = [*self._living[-20:], name]
        fields: dict[str, Any] = {
            "cost": self._choice((0, 1, 7, 1000)),
            "key": self._choice((None, None, "", "a", "ü:{b}", "k" * 255)),
            "priority": self._between(0, 2),
            "batchable": self._random.random() < 0.9,
            "registered": registered,
            "attempt": self._between(1, 3),
            "payload": json.dumps({"n": name, "t": "ü" * self._between(0, 9)}).encode(),
            **changes,
        }
        return op(name, **fields)

    def _entries(self) -> bytes:
        return b"".join([self._entry(self._name()) for _ in range(self._between(1, 3))])

    def _name(self) -> str:
        return f"op{next(self._numbers)}"

    def _wrapped(self, entries: bytes, operations: int = 1) -> bytes:
        id = f"m{next(self._numbers):x}"
        raw = ENVELOPE.write(id, operations, entries)
        if self._random.random() < 0.2:  # as Kombu lays it out
            whole = json.loads(raw)
            whole["body"] = b64encode(whole["body"].encode()).decode()
            whole["properties"]["body_encoding"] = "base64"
            raw = json.dumps(whole).encode()
        return raw

    def _envelope(self) -> bytes:
        return self._wrapped(self._entries())

    # Bytes

    def _junk(self) -> bytes:
        return bytes([self._between(0, 255) for _ in range(self._between(1, 60))])

    def _flipped(self, data: bytes, most: int) -> bytes:
        spoilt = bytearray(data)
        for _ in range(self._between(1, most)):
            spoilt[self._between(0, len(data) - 1)] ^= 1 << self._between(0, 7)
        return bytes(spoilt)

    def _overwritten(self) -> bytes:
        data, garbage = self._envelope(), self._junk()
        at = self._between(0, len(data) - 1)
        return data[:at] + garbage + data[at + len(garbage) :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._between(0, len(data) - 1)]

    def _shortened(self) -> bytes:
        data = self._envelope()
        first = self._between(0, len(data) - 1)
        return data[:first] + data[self._between(first, len(data)) :]

    def _stuttered(self) -> bytes:
        data = self._envelope()
        first = self._between(0, len(data) - 1)
        last = self._between(first, len(data))
        return data[:last] + data[first:]

    # JSON

    def _other_json(self) -> bytes:
        text: str = self._choice(_ODD_JSON)
        if self._random.random() < 0.5:
            text = f'{{"headers": {text}, "body": {text}, "properties": {{}}}}'
        return text.encode()

    def _place(self) -> tuple[Any, Any, Any]:
        """An envelope, a container somewhere in it, and the name of something in there."""
        whole = json.loads(self._envelope())
        holder: Any = self._choice(
            (whole, whole["headers"], whole["headers"], whole["properties"], None)
        )
        if holder is None:  # the arguments in the body
            args = json.loads(b64decode(whole["body"]) if _is_base64(whole) else whole["body"])
            holder = self._choice((args, args[0]))
            return (whole, args), holder, self._between(0, len(holder) - 1)
        return (whole, None), holder, self._choice(sorted(holder))

    def _wrong_field(self) -> bytes:
        (whole, args), holder, name = self._place()
        holder[name] = "@odd@"
        return self._laid_out(whole, args).replace(b'"@odd@"', self._choice(_ODD_JSON).encode())

    def _without_field(self) -> bytes:
        (whole, args), holder, name = self._place()
        del holder[name]
        return self._laid_out(whole, args)

    def _laid_out(self, whole: dict[str, Any], args: Any) -> bytes:
        if args is not None:
            text = json.dumps(args).replace('"@odd@"', self._choice(_ODD_JSON))
            whole["body"] = text
            whole["properties"]["body_encoding"] = None
        return json.dumps(whole).encode()

    # Entries

    def _entry_field(self) -> bytes:
        entry = bytearray(self._entry(self._name()))
        at, packed, values = _FIELDS[self._choice(sorted(_FIELDS))]
        struct.pack_into(f">{packed}", entry, at, self._choice(values))
        return self._wrapped(self._entries() + bytes(entry))

    def _payload(self) -> bytes:
        payload = self._choice(_PAYLOADS)
        if self._random.random() < 0.5:
            payload = self._flipped(json.dumps({"n": self._name()}).encode(), 3)
        return self._wrapped(self._entry(self._name(), payload=payload) + self._entries())

    def _serializer(self) -> bytes:
        name = self._choice(_SERIALIZERS)
        payload = self._choice((self._pickle, b'{"a": 1}', b"", b"\xff"))
        packed = struct.pack(
            _HEADER, 29 - 4 + len(name) + 1 + len(payload), 1, 1, 1, len(name), 1, 1, 0, 1, 0
        )
        return self._wrapped(packed + name + b"s" + payload)

    def _pickled(self) -> bytes:
        name = self._choice(("pickle", "application/x-python-serialize", "json", "yaml"))
        return self._entry(self._name(), payload=self._pickle, serializer=name)

    # Of others

    def _task(self, body: str, **changes: Any) -> bytes:
        id = f"t{next(self._numbers)}"
        envelope = {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "shop.send_mail", "id": id, "root_id": id},
            "properties": {
                "correlation_id": id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": LANE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": id,
            },
            **changes,
        }
        return json.dumps(envelope).encode()

    def _foreign_task(self) -> bytes:
        if self._random.random() < 0.5:  # protocol 1 has everything in the body
            body = json.dumps({"task": "shop.send_mail", "id": "1", "args": [1], "kwargs": {}})
            return self._task(b64encode(body.encode()).decode(), headers={})
        return self._task(b64encode(b'[["to"], {}, {"callbacks": null}]').decode())

    def _pickled_task(self) -> bytes:
        changes = {
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
        }
        if self._random.random() < 0.5:
            changes["headers"] = wire.message_headers(f"p{next(self._numbers)}", 1)  # type: ignore[assignment]
        return self._task(b64encode(self._pickle).decode(), **changes)

    # Again

    def _again(self) -> bytes:
        return self._choice(self._made) if self._made else self._envelope()

    def _living_again(self) -> bytes:
        name = self._choice(self._living) if self._living else self._name()
        return self._wrapped(self._entry(name, registered=True) + self._entries())


def _is_base64(whole: dict[str, Any]) -> bool:
    return bool(whole["properties"]["body_encoding"] == "base64")
