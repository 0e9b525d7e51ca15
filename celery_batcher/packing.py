"""From payloads to entries, and from entries to messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from . import tracing, wire
from .clock import Clock
from .config import DELAY, check_value, milliseconds
from .costs import MAX_COST, PLAIN, Cost, costs_of
from .errors import ConfigurationError, TooExpensiveError
from .operation import Operation, Priority, deduped_id, new_id
from .publishers.base import Outgoing
from .store.base import Admission

PACK = 500
"""Operations of a message that `Watcher.enqueue_many` packs, by default."""
_PACK_BYTES = 256 * 1024
_PIPELINE = 1000
_PIPELINE_BYTES = 1024 * 1024

Encoded = tuple[int, bytes, str]
"""Cost, entry and id of an operation."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes operations of one watcher.

    ``most`` is the highest cost that can ever run, by dimension; None without a limit.
    ``key_capacity`` is the highest of an operation with a key.
    """

    watcher: str
    serializer: str
    most: tuple[int, ...] | None
    clock: Clock
    dimensions: tuple[str, ...] = PLAIN
    key_capacity: int | None = None

    def check(self, cost: object) -> tuple[int, ...]:
        """The cost by dimension, if the operation could ever run.

        Raises:
            InvalidCostError: it is no cost, or has other dimensions than the capacity.
            TooExpensiveError: it is above the capacity.
        """
        costs = costs_of(cost, self.dimensions)
        if self.most is not None:
            for name, one, most in zip(self.dimensions, costs, self.most, strict=True):
                if one > most:
                    raise TooExpensiveError(
                        f"an operation of {self.watcher} costs {one}{name and ' ' + name}, and "
                        f"the capacity is {most}: it could never run. Split it, or raise the "
                        "capacity",
                        cost=one,
                        capacity=most,
                    )
        return costs

    def check_key(self, key: bytes, cost: int) -> None:
        """
        Raises:
            TooExpensiveError: the operation is above what its key may cost.
        """
        if key and self.key_capacity is not None and cost > self.key_capacity:
            raise TooExpensiveError(
                f"an operation of {self.watcher} costs {cost}, and the key_capacity is "
                f"{self.key_capacity}: it could never run. Split it, raise key_capacity, or "
                "enqueue it without a key",
                cost=cost,
                capacity=self.key_capacity,
            )

    def one(self, operation: Operation, *, registered: bool = True) -> bytes:
        """The entry of an operation."""
        keyed, deduped = operation.key is not None, operation.dedupe_for is not None
        if type(operation.attempt) is not int or not 1 <= operation.attempt <= wire.MAX_ATTEMPT:
            raise ConfigurationError(
                f"attempt {operation.attempt!r}: an integer from 1 to {wire.MAX_ATTEMPT}"
            )
        key = check_text(operation.key, "key", wire.MAX_KEY) if keyed else b""
        cost, *further = self.check(operation.cost)
        self.check_key(key, cost)
        flags = wire.flags_of(
            batchable=operation.batchable,
            registered=registered or deduped,
            keyed=keyed,
            vector=bool(further),
        )
        extras = wire.encode_costs(further) if further else b""
        if operation.dedupe_for is not None:
            flags |= wire.DEDUPED
            extras += wire.encode_dedupe(dedupe_ms(operation.dedupe_for))
        if context := tracing.context():
            flags |= wire.TRACED
            extras += wire.encode_context(context)
        return wire.encode_entry(
            check_text(operation.id, "id", wire.MAX_ID),
            cost,
            wire.encode_payload(operation.payload, self.serializer),
            self.serializer.encode(),
            flags,
            check_priority(operation.priority),
            key,
            operation.attempt,
            self.clock.now_ms(),
            extras,
        )

    def many(self, payloads: Iterable[Any], of: Attributes) -> Iterator[Encoded]:
        """The entries of payloads."""
        plain = self.dimensions == PLAIN
        most = (MAX_COST if self.most is None else self.most[0]) if plain else -1
        further = b""
        serializer, name = self.serializer, self.serializer.encode()
        registered = of.id is not None
        now_ms, encode_payload, encode_entry = (
            self.clock.now_ms,
            wire.encode_payload,
            wire.encode_entry,
        )
        check_room = self.check_key
        flags_of, check_key, check_id = wire.flags_of, _key_bytes, wire.MAX_ID
        constant = of.constant()
        flags, priority, key = constant or (0, 0, b"")
        context = tracing.context()
        trace, traced = (wire.encode_context(context), wire.TRACED) if context else (b"", 0)
        deduped, dedupe = of.dedupe_key is not None, wire.encode_dedupe(of.dedupe_ms)
        for payload in payloads:
            cost: Any = of.cost(payload) if callable(of.cost) else of.cost
            if type(cost) is not int or not 0 <= cost <= most:
                cost, *others = self.check(cost)
                further = wire.encode_costs(others) if others else b""
            if constant is None:
                text, word, batchable = of.of(payload)
                key, priority = check_key(text), check_priority(word)
                flags = flags_of(batchable=batchable, registered=registered, keyed=text is not None)
            check_room(key, cost)
            id = new_id() if of.id is None else of.id(payload)
            raw_id = check_text(id, "id", check_id) if registered else id.encode()
            marks = wire.VECTOR | traced if further else traced
            extras = further
            if deduped and (one := of.deduped(payload, self.watcher)) is not None:
                id, raw_id = one, one.encode()
                marks |= wire.REGISTERED | wire.DEDUPED
                extras += dedupe
            extras += trace
            entry = encode_entry(
                raw_id,
                cost,
                encode_payload(payload, serializer),
                name,
                flags | marks,
                priority,
                key,
                1,
                now_ms(),
                extras,
            )
            yield cost, entry, id


@dataclass(frozen=True, slots=True)
class Attributes:
    """What `Watcher.enqueue_many` was given: one value for all, or functions of the payload."""

    cost: Cost | Callable[[Any], Cost]
    key: str | Callable[[Any], str | None] | None
    priority: str | Callable[[Any], str]
    batchable: bool | Callable[[Any], bool]
    id: Callable[[Any], str] | None
    dedupe_key: str | Callable[[Any], str | None] | None = None
    dedupe_ms: int = 0

    def deduped(self, payload: Any, watcher: str) -> str | None:
        """The id that a payload's dedupe_key stands for; None without one."""
        key = self.dedupe_key(payload) if callable(self.dedupe_key) else self.dedupe_key
        return None if key is None else dedupe_id(watcher, key)

    def of(self, payload: Any) -> tuple[str | None, str, bool]:
        """Key, priority and batchable of a payload."""
        return (
            self.key(payload) if callable(self.key) else self.key,
            self.priority(payload) if callable(self.priority) else self.priority,
            bool(self.batchable(payload) if callable(self.batchable) else self.batchable),
        )

    def constant(self) -> tuple[int, Priority, bytes] | None:
        """Flags, priority and key, if they are the same for all payloads."""
        if callable(self.key) or callable(self.priority) or callable(self.batchable):
            return None
        keyed, registered = self.key is not None, self.id is not None
        flags = wire.flags_of(batchable=bool(self.batchable), registered=registered, keyed=keyed)
        return flags, check_priority(self.priority), _key_bytes(self.key)


def check_priority(priority: object) -> Priority:
    """The priority of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if isinstance(priority, str) and priority in wire.PRIORITIES:
        return Priority[priority]
    raise ConfigurationError(f"priority {priority!r}: one of {', '.join(wire.PRIORITIES)}")


def check_text(value: object, what: str, most: int) -> bytes:
    """The bytes of an id or key.

    Raises:
        ConfigurationError: it is no text, empty, or too long.
    """
    if isinstance(value, str):
        data = value.encode(errors="replace")
        if 0 < len(data) <= most:
            return data
    raise ConfigurationError(f"{what} {value!r}: text of 1 to {most} bytes is allowed")


def dedupe_id(watcher: str, dedupe_key: object) -> str:
    """The id of a watcher's operations that have this dedupe_key.

    Raises:
        ConfigurationError: it is no text, or empty.
    """
    if isinstance(dedupe_key, str) and dedupe_key:
        return deduped_id(watcher, dedupe_key)
    raise ConfigurationError(f"dedupe_key {dedupe_key!r}: a text is allowed, and None")


def dedupe_ms(dedupe_for: float | timedelta) -> int:
    """How long duplicates are dropped, in milliseconds.

    Raises:
        ConfigurationError: it is no number of seconds, negative, or more than a year.
    """
    ms = milliseconds(check_value(DELAY, "dedupe_for", dedupe_for, "enqueue"))
    if ms > wire.MAX_DEDUPE_MS:
        raise ConfigurationError(f"dedupe_for={dedupe_for!r}: a year at most")
    return ms


def check_dedupe(dedupe_key: object, dedupe_for: object, id: object) -> None:
    """
    Raises:
        ConfigurationError: they contradict each other.
    """
    if dedupe_key is None and dedupe_for != 0:
        raise ConfigurationError(f"dedupe_for={dedupe_for!r} says nothing without a dedupe_key")
    if dedupe_key is not None and id is not None:
        raise ConfigurationError("an id follows from the dedupe_key: give one of both")


def _key_bytes(key: object) -> bytes:
    return b"" if key is None else check_text(key, "key", wire.MAX_KEY)


def pipelines(watcher: str, entries: Iterable[Encoded], pack: int) -> Iterator[list[Outgoing]]:
    """Messages of up to ``pack`` entries, in the portions that one call publishes."""
    messages: list[Outgoing] = []
    operations = size = 0
    for message in _messages(watcher, entries, pack):
        messages.append(message)
        operations += message.admission.operations
        size += len(message.entries)
        if operations >= _PIPELINE or size >= _PIPELINE_BYTES:
            yield messages
            messages, operations, size = [], 0, 0
    if messages:
        yield messages


def _messages(watcher: str, entries: Iterable[Encoded], pack: int) -> Iterator[Outgoing]:
    packed: list[bytes] = []
    size = total = 0
    for cost, entry, _ in entries:
        if packed and (size + len(entry) > _PACK_BYTES or total + cost > MAX_COST):
            yield _message(new_id(), watcher, packed, total)
            packed, size, total = [], 0, 0
        packed.append(entry)
        size += len(entry)
        total += cost
        if len(packed) >= pack:
            yield _message(new_id(), watcher, packed, total)
            packed, size, total = [], 0, 0
    if packed:
        yield _message(new_id(), watcher, packed, total)


def _message(id: str, watcher: str, packed: list[bytes], cost: int) -> Outgoing:
    return Outgoing(Admission(id, watcher, len(packed), cost), b"".join(packed))
