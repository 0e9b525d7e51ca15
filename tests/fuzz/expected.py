"""What must become of messages, told by the words of the format's description alone."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kombu.utils import json as kombu_json

from celery_batcher.store.base import Arrival, Staged
from celery_batcher.store.counts import SetAside

MOST = 2**53 - 1
LATEST_MS = 253_402_300_799_999  # the end of the year 9999
BATCHABLE, REGISTERED, HAS_KEY, VECTOR, DEDUPED, TRACED, UNKNOWN = 1, 2, 4, 16, 32, 64, 128
LONGEST_DEDUPE = 366 * 86_400_000


@dataclass(frozen=True, slots=True)
class Plain:
    """An entry, read field by field."""

    data: bytes
    flags: int
    priority: int
    attempt: int
    cost: int
    serializer: bytes
    id: bytes
    key: bytes
    payload: bytes

    def name(self) -> str:
        """Its id as handlers see it."""
        return self.id.decode(errors="backslashreplace")

    def seen(self) -> tuple[Any, ...] | None:
        """What a handler must be given, or None when the payload cannot be read."""
        if self.serializer not in {b"json", b"application/json"}:
            return None
        try:
            payload = kombu_json.loads(self.payload.decode())
        except Exception:  # noqa: BLE001 - any error makes a dead letter of it
            return None
        key = self.key.decode(errors="backslashreplace") if self.flags & HAS_KEY else None
        priority = ("high", "normal", "backfill")[self.priority]
        return self.name(), self.cost, key, priority, self.attempt, repr(payload)


def plain_entries(data: bytes) -> list[Plain] | None:
    """The entries that bytes are, or None when that is not all they are."""
    found, at = [], 0
    while at < len(data):
        if len(data) - at < 29:
            return None
        size, version, flags, priority, name, attempt, cost, enqueued, id_, key = (
            struct.unpack_from(">IBBBBHQQBH", data, at)
        )
        whole = data[at : at + 4 + size]
        if version != 1 or len(whole) < 4 + size or 29 + name + id_ + key > len(whole):
            return None
        impossible = priority > 2 or not attempt or not id_ or cost > MOST or enqueued > LATEST_MS
        if impossible or flags & UNKNOWN or (key and not flags & HAS_KEY):
            return None
        names = whole[29 : 29 + name + id_ + key]
        further = _size_of_extras(whole[29 + len(names) :], flags)
        if further is None:
            return None
        found.append(
            Plain(
                whole,
                flags,
                priority,
                attempt,
                cost,
                names[:name],
                names[name : name + id_],
                names[name + id_ :],
                whole[29 + len(names) + further :],
            )
        )
        at += len(whole)
    return found or None


def _size_of_extras(data: bytes, flags: int) -> int | None:
    """The bytes between key and payload; None when they are not what the flags say."""
    size = _size_of_costs(data) if flags & VECTOR else 0
    if size is not None and flags & DEDUPED:
        size = _size_with_dedupe(data, size) if flags & REGISTERED else None
    if size is None or not flags & TRACED:
        return size
    length = data[size : size + 2]
    size += 2 + int.from_bytes(length, "big")
    return None if len(length) < 2 or size > len(data) else size


def _size_with_dedupe(data: bytes, size: int) -> int | None:
    dedupe = data[size : size + 8]
    if len(dedupe) < 8 or struct.unpack(">Q", dedupe)[0] > LONGEST_DEDUPE:
        return None
    return size + 8


def _size_of_costs(data: bytes) -> int | None:
    """The bytes of further costs; None when there are none, or impossible ones."""
    if not data or 1 + 8 * data[0] > len(data):
        return None
    costs = struct.unpack_from(f">{data[0]}Q", data, 1)
    return None if any(one > MOST for one in costs) else 1 + 8 * data[0]


@dataclass
class Books:
    """A store's part in staging, in plain words: what is staged, dropped and set aside.

    ``remembers``: whether ids of messages are noted, because their acknowledgement may be lost.
    """

    remembers: bool
    noted: set[str] = field(default_factory=set)
    living: set[bytes] = field(default_factory=set)
    cost: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    staged: list[Plain] = field(default_factory=list)
    aside: list[tuple[str, bytes]] = field(default_factory=list)
    dropped: int = 0

    def stage(self, arrivals: Sequence[Arrival]) -> Staged:
        """What staging these must answer."""
        before = len(self.staged), self.dropped, len(self.aside)
        for one in arrivals:
            self.messages[self._stage(one)] += 1
        after = len(self.staged), self.dropped, len(self.aside)
        return Staged(*(now - then for now, then in zip(after, before, strict=True)))

    def _stage(self, one: Arrival) -> str:
        if self.remembers and one.id in self.noted:
            return "duplicate"
        self.noted.add(one.id)
        entries = None if one.fault else plain_entries(one.entries)
        if entries is None or self.cost + sum(entry.cost for entry in entries) > MOST:
            self.aside.append((one.watcher, one.entries))
            return "set aside"
        for entry in entries:
            if entry.flags & REGISTERED and entry.id in self.living:
                self.dropped += 1
                continue
            if entry.flags & REGISTERED:
                self.living.add(entry.id)
            self.staged.append(entry)
            self.cost += entry.cost
        return "staged"

    def forget(self, ids: Sequence[str]) -> None:
        """What is acknowledged need not be remembered."""
        self.noted.difference_update(ids)

    def check_aside(self, found: Sequence[SetAside]) -> None:
        """Set-aside messages are there with their bytes, in order, each with a reason."""
        assert [(one.watcher, one.data) for one in found] == self.aside
        assert all(one.reason and one.reason.isascii() for one in found)

    def handled(self) -> Counter[tuple[Any, ...]]:
        """What handlers must be given, each as often as it was staged."""
        return Counter(seen for one in self.staged if (seen := one.seen()) is not None)

    def dead(self) -> Counter[bytes]:
        """The entries that must become dead letters."""
        return Counter(one.data for one in self.staged if one.seen() is None)
