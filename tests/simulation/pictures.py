"""All that a store keeps of operations, in one form for both stores, and if it fits together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from celery_batcher import wire
from celery_batcher.store.memory import MemoryServer
from celery_batcher.store.memory_state import BatcherState
from celery_batcher.store.redis import RedisStore

HALVES = "s"
"""In place of the priority of those that wait together."""


class Seen(NamedTuple):
    """An operation in a store. ``token`` is its payload: what the producer knows it by."""

    token: bytes
    attempt: int
    cost: int
    sequence: int
    queue: tuple[str, int | str, str]
    registered: str | None
    costs: tuple[int, ...] = ()


@dataclass(slots=True)
class Ledgered:
    """A batch in a store."""

    watcher: str
    claimed: bool
    cost: int
    operations: list[Seen]


@dataclass(slots=True)
class Picture:
    """A store's content at a moment. ``wrong``: counters and indexes that differ from the data."""

    waiting: list[Seen] = field(default_factory=list)
    delayed: list[Seen] = field(default_factory=list)
    batches: dict[str, Ledgered] = field(default_factory=dict)
    dead: list[Seen] = field(default_factory=list)
    admitted: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def live(self) -> Iterator[tuple[str, Seen]]:
        """Operations neither done nor dead, and where each is."""
        for one in self.waiting:
            yield "waiting", one
        for one in self.delayed:
            yield "delayed", one
        for id, batch in self.batches.items():
            for one in batch.operations:
                yield id, one

    def expect(self, name: str, stored: Any, data: Any) -> None:
        """Note a counter or an index that is not what the data say."""
        if stored == data:
            return
        if isinstance(data, Set):
            more, less = sorted(stored - data), sorted(data - stored)
            self.wrong.append(f"{name} has {more} more than the data, and {less} less")
        else:
            self.wrong.append(f"{name} is {stored}, the data say {data}")

    def expect_costs(self, id: str, stored: Sequence[int]) -> None:
        """Note what an unclaimed batch holds, if it is not what its operations cost."""
        data = [0] * len(stored)
        for one in self.batches[id].operations:
            for at, cost in enumerate(one.costs[: len(data)]):
                data[at] += cost
        self.expect(f"what {id} holds", list(stored), data)


def picture_of_memory(server: MemoryServer, key: tuple[str, str]) -> Picture:
    """What a memory store keeps of one batcher."""
    state, picture = server.batchers[key], Picture()
    for name, watcher in state.watchers.items():
        waiting, costs, priorities = 0, 0, [0, 0, 0]
        for (priority, _), queue in watcher.queues.items():
            for one in (*queue.returned.values(), *queue.arrived):
                picture.waiting.append(_in_memory(name, one))
                waiting, costs = waiting + 1, costs + one.entry.cost
                priorities[priority] += 1
        for group in watcher.together:
            for one in group:
                picture.waiting.append(_in_memory(name, one)._replace(queue=(name, HALVES, "")))
                waiting, costs = waiting + 1, costs + one.entry.cost
        picture.expect(f"{name}.waiting", watcher.waiting, waiting)
        picture.expect(f"{name}.waiting_cost", watcher.waiting_cost, costs)
        picture.expect(f"{name}.by_priority", watcher.by_priority, priorities)
        picture.dead += [_letter(name, letter.entry) for letter in watcher.dead]
    picture.delayed = [
        _in_memory(later.watcher, one) for later in state.later for one in later.ones
    ]
    for id, batch in state.batches.items():
        operations = [_in_memory(batch.watcher, one) for one in batch.entries]
        claimed = batch.nonce is not None
        picture.batches[id] = Ledgered(batch.watcher, claimed, batch.cost, operations)
    _check_memory(picture, state)
    return picture


def _in_memory(watcher: str, one: Any) -> Seen:
    entry = one.entry
    queue = (watcher, entry.priority, entry.key or "")
    registered = entry.id if entry.registered else None
    return Seen(
        entry.payload, entry.attempt, entry.cost, one.sequence, queue, registered, entry.costs
    )


def _letter(watcher: str, data: bytes, sequence: int = 0) -> Seen:
    entry, _ = wire.decode_entry(data)
    queue = (watcher, entry.priority, entry.key or "")
    registered = entry.id if entry.registered else None
    return Seen(entry.payload, entry.attempt, entry.cost, sequence, queue, registered, entry.costs)


def _check_memory(picture: Picture, state: BatcherState) -> None:
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    unclaimed: set[str] = set()
    for id, batch in state.batches.items():
        row = rows[batch.watcher]
        picture.expect(f"cost of {id}", batch.cost, sum(one.entry.cost for one in batch.entries))
        if batch.nonce is None:
            unclaimed.add(id)
            row["open"] += 1
            row["open_cost"] += batch.cost
            picture.expect_costs(id, batch.costs)
        else:
            row["claimed"] += 1
    for one, _ in state.admitted.values():
        rows[one.watcher]["admitted"] += 1
    for name, watcher in state.watchers.items():
        for counter in ("open", "open_cost", "claimed", "admitted"):
            picture.expect(f"{name}.{counter}", getattr(watcher, counter), rows[name][counter])
    picture.expect("offers", state.offers.keys(), unclaimed)
    picture.expect("ids", state.ids, {one.registered for _, one in picture.live()} - {None})
    picture.admitted = set(state.admitted)


def picture_of_redis(store: RedisStore) -> Picture:
    """What a Redis store keeps of one batcher."""
    return _RedisReader(store).read()


class _RedisReader:
    """Reads every key of a batcher in two round trips."""

    def __init__(self, store: RedisStore) -> None:
        self._client, self._base = store.client, store.keys.base

    def read(self) -> Picture:
        """Build the picture and check its counters."""
        self.data = self._load()
        picture = self.picture = Picture()
        for name in self.data:
            self._place(name)
        self._check_batches()
        self._check_counters()
        live = {one.registered for _, one in picture.live()} - {None}
        picture.expect("ids", {one.decode() for one in self.data.get("ids", set())}, live)
        picture.admitted = {id.decode() for id in self.data.get("admitted", {})}
        return picture

    def _load(self) -> dict[str, Any]:
        names = sorted(key.decode() for key in self._client.keys(_escaped(self._base) + "*"))
        pipeline = self._client.pipeline(transaction=False)
        readers: dict[str, Callable[[str], Any]] = {
            "hash": pipeline.hgetall,
            "list": lambda key: pipeline.lrange(key, 0, -1),
            "set": pipeline.smembers,
            "string": pipeline.get,
            "zset": lambda key: pipeline.zrange(key, 0, -1, withscores=True),
        }
        for name in names:
            readers[_kind(name[len(self._base) :])](name)
        found = pipeline.execute()
        return {name[len(self._base) :]: value for name, value in zip(names, found, strict=True)}

    def _place(self, name: str) -> None:
        picture, value = self.picture, self.data.get(name)
        kind, _, rest = name.partition(":")
        if kind == "q":
            watcher, priority, key = rest.split(":", 2)
            taken = self.data.get(f"t:{watcher}:{priority}", {}).get(key.encode(), b"0")
            picture.waiting += _opened(watcher, value, int(taken.split()[0]))
        elif kind == "r":
            picture.waiting += _opened(rest.split(":", 1)[0], [data for data, _ in value])
        elif kind == "s":
            for data, _ in value:
                halves = _opened(rest, _singles(data))
                picture.waiting += [one._replace(queue=(rest, HALVES, "")) for one in halves]
        elif kind == "later":
            for data, _ in value:
                size = int.from_bytes(data[:2], "big")
                watcher, block = data[2 : 2 + size].decode(), data[2 + size :]
                many = int.from_bytes(block[8:12], "big") > 1
                picture.delayed += _opened(watcher, _singles(block) if many else [block])
        elif kind == "dead":
            for row, _ in value:
                reason = int.from_bytes(row[16:20], "big")
                picture.dead.append(_letter(rest, row[20 + reason :]))
        elif kind == "batch":
            self._place_batch(rest, {field.decode(): one.decode() for field, one in value.items()})

    def _place_batch(self, id: str, batch: dict[str, str]) -> None:
        picture = self.picture
        operations = _opened(batch["watcher"], self.data.get(f"blocks:{id}", []))
        claimed = batch["state"] == "claimed"
        picture.batches[id] = Ledgered(batch["watcher"], claimed, int(batch["cost"]), operations)
        picture.expect(f"size of {id}", int(batch["n"]), len(operations))
        if not claimed:
            costs = batch.get("costs", batch["cost"])
            picture.expect_costs(id, [int(one) for one in costs.split()])

    def _check_batches(self) -> None:
        picture = self.picture
        claimed = {id for id, batch in picture.batches.items() if batch.claimed}
        unclaimed = picture.batches.keys() - claimed
        for index, ids in (("open", unclaimed), ("offers", unclaimed), ("claimed", claimed)):
            indexed = {member.decode() for member, _ in self.data.get(index, [])}
            picture.expect(index, indexed, set(ids))
        for id, batch in picture.batches.items():
            picture.expect(f"cost of {id}", batch.cost, sum(one.cost for one in batch.operations))

    def _check_counters(self) -> None:
        picture = self.picture
        meta: Counter[str] = Counter()
        rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for one in picture.waiting:
            meta.update(waiting=1, waiting_cost=one.cost)
            rows[one.queue[0]].update({"n": 1, "cost": one.cost, f"n{one.queue[1]}": 1})
        for one in picture.delayed:
            meta.update(delayed=1, delayed_cost=one.cost)
            rows[one.queue[0]].update(delayed=1)
        for batch in picture.batches.values():
            state = "running" if batch.claimed else "open"
            n = len(batch.operations)
            meta.update({f"{state}_batches": 1, state: n, f"{state}_cost": batch.cost})
            row = {"cn": 1} if batch.claimed else {"on": 1, "oc": batch.cost}
            rows[batch.watcher].update(row)
        for record in self.data.get("admitted", {}).values():
            n, cost, _, _, watcher = record.decode().split(":", 4)
            meta.update(admitted=int(n), admitted_cost=int(cost))
            rows[watcher].update(admitted=1)
        meta.update(dead=len(picture.dead), dead_cost=sum(one.cost for one in picture.dead))
        self._compare("", "meta", meta)
        for name in self.data:
            if name.startswith("w:"):
                self._compare(f"{name}.", name, rows[name[2:]])

    def _compare(self, prefix: str, key: str, counted: Counter[str]) -> None:
        stored = self.data.get(key, {})
        names = _META if key == "meta" else _WATCHER
        for name in names:
            value = int(stored.get(name.encode(), 0))
            self.picture.expect(prefix + name, value, counted[name])


_META = [
    *("waiting", "waiting_cost", "delayed", "delayed_cost", "admitted", "admitted_cost"),
    *("open", "open_cost", "open_batches", "running", "running_cost", "running_batches"),
    *("dead", "dead_cost"),
]
_WATCHER = ["n", "cost", "n0", "n1", "n2", "ns", "delayed", "on", "oc", "cn", "admitted"]
_KINDS = {
    **dict.fromkeys(
        (
            "meta",
            "admitted",
            "w",
            "t",
            "batch",
            "walk",
            "sums",
            "drift",
            "costs",
            "flushes",
            "backfill",
        ),
        "hash",
    ),
    **dict.fromkeys(("aside", "q", "blocks", "left", "recent"), "list"),
    "meters": "string",
    **dict.fromkeys(("lanes", "ids", "watchers", "backfills"), "set"),
}


def _kind(name: str) -> str:
    return _KINDS.get(name.partition(":")[0], "zset")


def _escaped(pattern: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\" else one for one in pattern)


def _singles(group: bytes) -> Iterator[bytes]:
    """The blocks in a block of those that stay together."""
    at = 32
    while at < len(group):
        end = at + 32 + int.from_bytes(group[at + 12 : at + 16], "big")
        yield group[at:end]
        at = end


def _opened(watcher: str, blocks: Any, taken: int = 0) -> list[Seen]:
    """The operations of blocks, without the first ``taken`` of the first block."""
    found: list[Seen] = []
    for data in blocks:
        sequence = int.from_bytes(data[:8], "big")
        entries = wire.split_entries(data[32:])
        found += [_letter(watcher, one, sequence + at) for at, one in enumerate(entries)]
    return found[taken:]
