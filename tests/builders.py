"""What tests of the engine are built from: entries byte by byte, clocks, and a store at work."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from celery_batcher.store.base import (
    Admission,
    Arrival,
    Claim,
    Refused,
    Released,
    Settlement,
    Staged,
    Store,
)
from celery_batcher.store.memory import MemoryServer, MemoryStore
from celery_batcher.store.options import Limits, WatcherOptions
from celery_batcher.store.redis import RedisStore

START_MS = 1_000_000_000_000
BATCHABLE, REGISTERED, HAS_KEY, VECTOR, DEDUPED = 1, 2, 4, 16, 32
HIGH, NORMAL, BACKFILL = 0, 1, 2


class MicroClock:
    """A clock in whole microseconds that stands still until a test moves it.

    It reports milliseconds rounded down, as a server does, so that what happens between two of
    them is tested too.
    """

    def __init__(self) -> None:
        self.us = START_MS * 1000

    def now_ms(self) -> int:
        return self.us // 1000

    def monotonic(self) -> float:
        return (self.us - START_MS * 1000) / 1_000_000

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.advance(seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Move time forward."""
        self.us += round(seconds * 1_000_000)


def op(
    id: str,
    *,
    cost: int = 1,
    key: str | None = None,
    priority: int = NORMAL,
    batchable: bool = True,
    registered: bool = False,
    attempt: int = 1,
    enqueued_ms: int = START_MS,
    payload: bytes = b'"x"',
    serializer: str = "json",
    further: Sequence[int] = (),
    dedupe_ms: int | None = None,
) -> bytes:
    """An entry, laid out here and not by the code under test."""
    flags = BATCHABLE * batchable | REGISTERED * registered | HAS_KEY * (key is not None)
    flags |= VECTOR * bool(further) | (DEDUPED | REGISTERED) * (dedupe_ms is not None)
    name, raw_id, raw_key = serializer.encode(), id.encode(), (key or "").encode()
    header = struct.pack(
        ">BBBBHQQBH",
        1,
        flags,
        priority,
        len(name),
        attempt,
        cost,
        enqueued_ms,
        len(raw_id),
        len(raw_key),
    )
    costs = struct.pack(f">B{len(further)}Q", len(further), *further) if further else b""
    dedupe = b"" if dedupe_ms is None else struct.pack(">Q", dedupe_ms)
    body = header + name + raw_id + raw_key + costs + dedupe + payload
    return struct.pack(">I", len(body)) + body


@dataclass(frozen=True)
class Read:
    """An operation as a worker gets it."""

    sequence: int
    id: str
    cost: int
    attempt: int
    priority: int
    key: str
    registered: bool


def read(blocks: bytes) -> list[Read]:
    """The operations of blocks laid end to end, read here and not by the code under test."""
    found, at = [], 0
    while at < len(blocks):
        sequence, operations, size, cost, weight = struct.unpack_from(">QIIQQ", blocks, at)
        entries = blocks[at + 32 : at + 32 + size]
        assert len(entries) == size
        block = read_entries(entries, sequence)
        assert operations == len(block) <= 100
        assert size <= 32 * 1024 or operations == 1
        assert cost == sum(one.cost for one in block)
        assert weight == sum(max(1, one.cost) for one in block)
        assert len({(one.priority, one.key) for one in block}) == 1
        found += block
        at += 32 + size
    return found


def read_entries(entries: bytes, sequence: int = 0) -> list[Read]:
    """Entries laid end to end, the first with this sequence number."""
    found: list[Read] = []
    at = 0
    while at < len(entries):
        size, _, flags, priority, name, attempt, cost, _, id_, key = struct.unpack_from(
            ">IBBBBHQQBH", entries, at
        )
        body = at + 29 + name
        found.append(
            Read(
                sequence + len(found),
                entries[body : body + id_].decode(errors="backslashreplace"),
                cost,
                attempt,
                priority,
                entries[body + id_ : body + id_ + key].decode(errors="backslashreplace"),
                bool(flags & REGISTERED),
            )
        )
        at += 4 + size
    return found


def ids(claim: Claim) -> list[str]:
    """The ids of a claimed batch, in order."""
    assert claim.state == "claimed", claim
    return [one.id for one in read(claim.blocks)]


@dataclass
class Bench:
    """A store with a turn, short ways to work it, and a look at all it keeps."""

    store: Store
    clock: Any
    snapshot: Callable[[], Any]
    limits: Limits = field(default_factory=lambda: Limits(capacity=None))
    token: str = "turn-1"
    watcher: str = "w"
    numbers: Any = field(default_factory=lambda: count(1))
    reopen: Callable[[str, str], Bench] | None = None

    def begin(self, *options: WatcherOptions, **limits: Any) -> Bench:
        """Configure watchers and limits, and take the turn."""
        self.limits = replace(self.limits, **limits)
        self.store.configure(self.limits, options or [WatcherOptions(self.watcher)])
        assert self.store.take_turn(self.token, 60_000).mine
        return self

    def put(self, *entries: bytes, watcher: str | None = None, id: str | None = None) -> Staged:
        """Admit and stage one message."""
        name = watcher or self.watcher
        message = id or f"m{next(self.numbers)}"
        cost = sum(one.cost for entry in entries for one in read_entries(entry))
        self.store.admit([Admission(message, name, len(entries), cost)], 1_000_000)
        return self.store.stage(self.token, [Arrival(message, name, b"".join(entries))], "")

    def put_many(self, names: Iterable[str], watcher: str | None = None, **options: Any) -> None:
        """Stage operations of these names, in messages of up to 1,000."""
        entries = [op(name, **options) for name in names]
        for at in range(0, len(entries), 1000):
            self.put(*entries[at : at + 1000], watcher=watcher)

    def release(self, id: str | None = None) -> Released | Refused:
        """Release the next batch."""
        return self.store.release(self.token, id or f"b{next(self.numbers)}", self.limits)

    def released(self) -> Released:
        """Release the next batch, which must be possible."""
        answer = self.release()
        assert isinstance(answer, Released), answer
        return answer

    def refused(self) -> str:
        """Why the next batch is not released."""
        answer = self.release()
        assert isinstance(answer, Refused), answer
        return answer.reason

    def claim(self, batch: Released | str, nonce: str = "n", ms: int = 60_000) -> Claim:
        id = batch if isinstance(batch, str) else batch.id
        return self.store.claim(id, nonce, self.limits, ms)

    def settle(
        self,
        batch: Released | str,
        outcomes: str = "d",
        *,
        nonce: str = "n",
        reason: str = "",
        forget: Sequence[str] = (),
        **details: Any,
    ) -> bool:
        id = batch if isinstance(batch, str) else batch.id
        return self.store.settle(id, nonce, Settlement(outcomes, reason, forget=forget, **details))

    def run(self, outcomes: str = "d") -> list[str]:
        """Release, claim and settle one batch; the ids in it."""
        batch = self.released()
        claim = self.claim(batch)
        assert self.settle(batch, outcomes)
        return ids(claim)

    def drain(self) -> list[list[str]]:
        """Run every batch that can be released now."""
        batches = []
        while isinstance(batch := self.release(), Released):
            claim = self.claim(batch)
            assert self.settle(batch)
            batches.append(ids(claim))
        return batches


def freeze(value: Any) -> Any:
    """A comparable picture of in-memory state: no empty containers, no leftovers of a heap."""
    if hasattr(type(value), "__slots__") and hasattr(value, "__dataclass_fields__"):
        return freeze({name: getattr(value, name) for name in value.__dataclass_fields__})
    if hasattr(value, "_tags"):  # a FairRing
        return freeze({"time": value.time, "tags": value._tags})
    if isinstance(value, dict):
        frozen = {repr(key): freeze(one) for key, one in value.items()}
        return tuple(sorted((key, one) for key, one in frozen.items() if one not in ((), 0, None)))
    if isinstance(value, set):
        return tuple(sorted(value))
    if not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
        return tuple(freeze(one) for one in value)
    return value


def look_into(server: MemoryServer) -> Any:
    """All that a memory server keeps."""
    return freeze({"resources": server.resources, "batchers": server.batchers})


def look_at(client: Any, prefix: str) -> dict[str, Any]:
    """All that a Redis server keeps under a prefix."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"string": client.get,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    keys = sorted(client.scan_iter(f"{prefix}*", count=1000))
    return {key.decode(): readers[client.type(key)](key) for key in keys}


def memory_bench(clock: Any) -> Bench:
    """A bench on a memory server of its own."""
    server = MemoryServer(clock)

    def opened(batcher: str, resource: str) -> Bench:
        store = MemoryStore(server, batcher=batcher, resource=resource)
        return Bench(store, clock, lambda: look_into(server), reopen=opened)

    return opened("batcher", "resource")


def redis_bench(clock: Any, client: Any, prefix: str) -> Bench:
    """A bench on a Redis server, below a prefix of its own."""

    def opened(batcher: str, resource: str) -> Bench:
        store = RedisStore(
            client, url="redis://", batcher=batcher, resource=resource, prefix=prefix, clock=clock
        )
        return Bench(store, clock, lambda: look_at(client, prefix), reopen=opened)

    return opened("batcher", "resource")
