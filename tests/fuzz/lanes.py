"""Lanes that a fuzzer fills, a real flusher empties, and real claims handle; and their accounts."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any
from uuid import uuid4

from amqp.serialization import dumps as as_amqp_table
from celery import Celery
from kombu import Connection
from redis import Redis

from celery_batcher import Batch, Batcher, wire
from celery_batcher.connections import memory_lanes
from celery_batcher.flusher import Flusher
from celery_batcher.intakes.base import lane_name
from celery_batcher.store import memory
from celery_batcher.store.base import Arrival, Staged
from connected import close
from fuzz.expected import Books, plain_entries
from fuzz.mutations import BATCHER, WATCHER, Mutant

_DEAR = 2**40
ROOM = 1_000_000


class Witness:
    """A store that has all staging compared with the books."""

    def __init__(self, store: Any, books: Books) -> None:
        self._store, self._books = store, books

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def stage(self, token: str, arrivals: Sequence[Arrival], leases: str) -> Staged:
        answer: Staged = self._store.stage(token, arrivals, leases)
        assert answer == self._books.stage(arrivals)
        return answer

    def forget(self, ids: Sequence[str]) -> int:
        self._books.forget(ids)
        return int(self._store.forget(ids))


@dataclass
class Tally:
    """What became of messages, and of the operations of those that were staged."""

    messages: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count another's too."""
        self.messages += other.messages
        self.operations += other.operations
        self.kinds += other.kinds


class Lane:
    """A lane of one batcher, worked by hand.

    A subclass says how messages get in, and in what way the index may remember them.
    """

    remembers = True

    def __init__(self, app: Celery) -> None:
        self.app = app
        app.conf.update(task_default_queue=f"tasks{uuid4().hex}", accept_content=["json"])
        self.watchers = [WATCHER]
        self.handled: Counter[tuple[Any, ...]] = Counter()
        self.batcher = Batcher(BATCHER, app=app)
        self.watcher = self.batcher.watcher(name=WATCHER, max_dead_letters=ROOM)(self._handle)
        self.store = self.batcher.store

    def _handle(self, batch: Batch) -> None:
        self.handled.update(
            (op.id, op.cost, op.key, op.priority, op.attempt, repr(op.payload)) for op in batch
        )

    def put(self, raws: Iterable[bytes]) -> None:
        """Lay messages into the lane."""
        raise NotImplementedError

    def left(self) -> int:
        """Messages that are still in it."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget all of it."""
        self.batcher.stop()
        close(self.batcher.connections)
        self.app.close()

    def round(self, mutants: Sequence[Mutant]) -> Tally:
        """Bring messages through the lane and account for every one of them."""
        mutants = _dear_ones_last(mutants)
        books = Books(self.remembers)
        self.put(mutant.raw for mutant in mutants)
        self._flush(books)
        assert self.left() == 0
        assert books.messages.total() == len(mutants)
        books.check_aside(self.store.set_asides(len(mutants)))
        self._run()
        return self._account(books, mutants)

    def _flush(self, books: Books) -> None:
        """Take everything in, as a turn does, and release it."""
        token = uuid4().hex
        assert self.store.take_turn(token, 600_000).mine
        self.batcher._duties.configure()
        flusher = Flusher(
            token=token,
            store=Witness(self.store, books),  # type: ignore[arg-type]
            intake=self.batcher.connections.intake(),
            publish=self._note,
            on_taken_back=self.batcher._duties.on_taken_back,
            new_batch_id=lambda: uuid4().hex,
            listeners=self.batcher._listeners,
            announcer=self.batcher._announcer,
            clock=self.batcher.clock,
        )
        self._released: list[str] = []
        flusher.adopt()
        try:
            while flusher.take_in(self.watchers, ROOM, inf):
                pass
            counts = self.store.counts()
            assert (counts.waiting, counts.waiting_cost) == (len(books.staged), books.cost)
            assert counts.set_aside == len(books.aside)
            self._release(flusher)
        finally:
            flusher.close()

    def _release(self, flusher: Flusher) -> None:
        while flusher.flush(self.batcher.limits()).reason == "open":
            self._run()

    def _note(self, batches: Sequence[Any]) -> list[str]:
        ids = [batch.id for batch in batches]
        self._released += ids
        return ids

    def _run(self) -> None:
        released, self._released = self._released, []
        for batch in released:
            self.batcher.run_batch(self.watcher, batch)

    def _account(self, books: Books, mutants: Sequence[Mutant]) -> Tally:
        counts = self.store.counts()
        assert (counts.waiting, counts.open, counts.running) == (0, 0, 0)
        assert counts.unsettled_cost == 0
        assert self.handled == books.handled()
        dead = Counter(letter.entry for letter in self.store.dead(WATCHER, ROOM))
        assert dead == books.dead()
        assert (counts.done, counts.dead) == (self.handled.total(), dead.total())
        assert sum(1 for _ in self.watcher.dead_letters) == dead.total()
        run = {seen[0] for seen in self.handled}
        assert [name for one in mutants for name in one.good if name not in run] == []
        return Tally(
            books.messages,
            Counter(handled=self.handled.total(), dead=dead.total(), duplicate=books.dropped),
            Counter(mutant.kind for mutant in mutants),
        )


def _dear_ones_last(mutants: Sequence[Mutant]) -> list[Mutant]:
    """All costs together stay below 2**53: the dearest would leave no room for good ones."""

    def dear(mutant: Mutant) -> bool:
        arrival = as_arrival(mutant.raw)
        entries = None if arrival.fault else plain_entries(arrival.entries)
        return sum(entry.cost for entry in entries or []) > _DEAR

    return sorted(mutants, key=dear)


def as_arrival(raw: bytes) -> Arrival:
    """A message of a list on Redis as the intake reads it."""
    try:
        message = wire.Envelope.of(BATCHER, WATCHER, lane_name(BATCHER, WATCHER)).read(raw)
    except wire.MalformedError as exc:
        return Arrival(exc.id or wire.fingerprint(raw), WATCHER, raw, fault=str(exc))
    return Arrival(message.id, WATCHER, message.entries)


class MemoryLane(Lane):
    """A lane in memory; its messages were read as those of Redis are."""

    def __init__(self) -> None:
        self._url = f"memory://{uuid4().hex}"
        super().__init__(Celery("fuzz", broker=self._url, set_as_current=False))
        self._queue = memory_lanes(self._url).queues[lane_name(BATCHER, WATCHER)]

    def put(self, raws: Iterable[bytes]) -> None:
        for raw in raws:
            memory_lanes(self._url).put(lane_name(BATCHER, WATCHER), as_arrival(raw), 1)

    def left(self) -> int:
        return len(self._queue)

    def close(self) -> None:
        super().close()
        memory._servers.pop(self._url, None)


class RedisLane(Lane):
    """A list of a Redis server that is broker and store, which must be empty."""

    remembers = False  # staged and acknowledged in one act

    def __init__(self, url: str) -> None:
        app = Celery("fuzz", broker=url, set_as_current=False)
        app.conf.batcher_key_prefix = f"fuzz{uuid4().hex}:"
        self.client = Redis.from_url(url)
        super().__init__(app)

    def put(self, raws: Iterable[bytes]) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for raw in raws:
                pipeline.lpush(lane_name(BATCHER, WATCHER), raw)
            pipeline.execute()

    def left(self) -> int:
        return sum(
            self.client.llen(key)
            for key in self.client.scan_iter(f"*celery_batcher.{BATCHER}*", _type="list")
        )

    def close(self) -> None:
        self.client.flushdb()
        self.client.close()
        super().close()


class RabbitLane(Lane):
    """A queue of RabbitMQ, with a store in memory."""

    def __init__(self, url: str) -> None:
        self._store = f"memory://{uuid4().hex}"
        app = Celery("fuzz", broker=url, set_as_current=False)
        app.conf.batcher_store_url = self._store
        super().__init__(app)
        self._connection = Connection(url)
        self._channel = self._connection.channel()
        self._lane = lane_name(BATCHER, WATCHER)
        self._channel.queue_declare(queue=self._lane, durable=True, auto_delete=False)
        self._channel.queue_purge(self._lane)

    def put(self, raws: Iterable[bytes]) -> None:
        for raw in raws:
            body, headers = _as_amqp(raw)
            message = self._channel.prepare_message(body, headers=headers, properties={})
            self._channel.basic_publish(message, exchange="", routing_key=self._lane)

    def left(self) -> int:
        return int(self._channel.queue_declare(queue=self._lane, passive=True).message_count)

    def close(self) -> None:
        self._channel.queue_delete(self._lane)
        self._connection.release()
        super().close()
        memory._servers.pop(self._store, None)


def _as_amqp(raw: bytes) -> tuple[bytes, dict[str, Any]]:
    """Body and headers of a message of Redis; where AMQP has no such thing, all is the body."""
    try:
        whole = json.loads(raw)
        body, headers = whole["body"], whole["headers"]
        base64 = whole["properties"]["body_encoding"] == "base64"
        data = b64decode(body) if base64 else body.encode()
        as_amqp_table("F", [headers])
        json.dumps(headers, allow_nan=False)  # RabbitMQ ends connections that bring such numbers
    except Exception:  # noqa: BLE001 - the message is spoilt
        return raw, {}
    return data, headers
