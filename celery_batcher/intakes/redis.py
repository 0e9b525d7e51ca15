"""Lanes on Redis: messages that Kombu published are leased in bulk by one script.

Kombu's own way to take a message is not crash-safe (it pops, and notes that in a second step), and
shares its ``unacked`` keys with every consumer of the database. A lease here belongs to a turn and
has no deadline: the first act of the next turn puts it back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, cast

import redis
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from .. import wire
from ..errors import BrokerUnavailableError
from ..operation import new_id
from ..store.base import Arrival
from ..store.counts import Facts
from ..store.redis import RedisStore, server_facts
from .base import Leased, Taken, lane_name

logger = logging.getLogger("celery_batcher")

MOST, MOST_BYTES, LANES = 500, 256 * 1024, 50
_LUA = resources.files(__package__) / "lua"


class BrokerDatabase:
    """The database of a Redis broker, reached as Kombu reaches it.

    TLS, Sentinel, ``global_keyprefix``, ``sep`` and ``priority_steps`` are those of the app.

    Raises:
        BrokerUnavailableError: it does not answer.
    """

    def __init__(self, app: Celery) -> None:
        self._connection: Any = app.connection_for_write()
        self.url: str = self._connection.as_uri()
        with self.translated():
            self._connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
            channel: Any = self._connection.default_channel
        self._channel = channel
        self.client = redis.Redis(connection_pool=channel.pool)
        self.prefix: str = getattr(channel, "global_keyprefix", "") or ""

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of the driver into ours."""
        try:
            yield
        except (RedisError, KombuError, OSError, *self._connection.connection_errors) as exc:
            raise BrokerUnavailableError(
                f"the broker at {self.url} does not answer ({exc}): is it up?"
            ) from exc

    def list_of(self, lane: str) -> str:
        """The list that a message without priority goes to."""
        return self.prefix + str(self._channel._q_for_pri(lane, 0))

    def lists_of(self, lane: str) -> list[str]:
        """All lists of a lane, in the order in which they are emptied."""
        channel = self._channel
        return [self.prefix + channel._q_for_pri(lane, step) for step in channel.priority_steps]

    def close(self) -> None:
        """Let the connections go."""
        self._connection.release()


class RedisIntake:
    """Takes messages from lanes in the broker's database."""

    def __init__(self, app: Celery, batcher: str, store: Any) -> None:
        self._batcher = batcher
        self._database = BrokerDatabase(app)
        client = self._database.client
        self._registry = f"{self._database.prefix}celery_batcher.{batcher}:leases"
        self._lease = client.register_script((_LUA / "lease.lua").read_text())
        self._restore = client.register_script((_LUA / "restore.lua").read_text())
        self._acknowledge = client.register_script((_LUA / "acknowledge.lua").read_text())
        self._envelopes: dict[str, wire.Envelope] = {}
        self._wrong: set[str] = set()
        self._turn_key = store.keys["meta"] if same_database(client, store) else ""

    def _leases_key(self, token: str) -> str:
        return f"{self._registry}:{token}"

    def adopt(self, token: str) -> None:
        own = self._leases_key(token).encode()
        self._put_back(lambda key: key != own)

    def _put_back(self, chosen: Callable[[bytes], bool]) -> None:
        with self._database.translated():
            for key in cast(set[bytes], self._database.client.smembers(self._registry)):
                if chosen(key):
                    self._restore(keys=[key, messages_key(key.decode()), self._registry])

    def take(self, token: str, watchers: Sequence[str]) -> Taken:
        looked = watchers[:LANES]
        lanes = [self._database.lists_of(lane_name(self._batcher, one)) for one in looked]
        turn_key = self._turn_key or self._registry
        leases = self._leases_key(token)
        keys = [leases, messages_key(leases), self._registry, turn_key]
        keys += [key for lists in lanes for key in lists]
        args: list[Any] = [token, new_id(), MOST, MOST_BYTES, int(bool(self._turn_key))]
        with self._database.translated():
            numbers, messages, empty, wrong = self._lease(keys=keys, args=[*args, len(lanes[0])])
        self._complain({looked[int(lane)] for lane in wrong.decode().split()})
        leased, at = [], 0
        for row in numbers.decode().split():
            number, size, lane = row.split(":")
            raw = messages[at : (at := at + int(size))]
            leased.append(self._leased(looked[int(lane)], number, raw))
        return Taken(leased, [looked[int(lane)] for lane in empty.decode().split()])

    def _complain(self, wrong: set[str]) -> None:
        """Say once a turn which lanes no message can be in; the others go on."""
        for watcher in sorted(wrong - self._wrong):
            lane = lane_name(self._batcher, watcher)
            logger.error("the key of lane %s is no list: rename or delete it", lane)
        self._wrong |= wrong

    def _leased(self, watcher: str, number: str, raw: bytes) -> Leased:
        lease = number if self._turn_key else ""
        try:
            message = self._envelope(watcher).read(raw)
        except wire.MalformedError as exc:
            id = exc.id or wire.fingerprint(raw)
            return Leased(Arrival(id, watcher, raw, lease, str(exc)), 1, number)
        arrival = Arrival(message.id, watcher, message.entries, lease)
        return Leased(arrival, message.operations, number)

    def _envelope(self, watcher: str) -> wire.Envelope:
        envelope = self._envelopes.get(watcher)
        if envelope is None:
            lane = lane_name(self._batcher, watcher)
            envelope = self._envelopes[watcher] = wire.Envelope.of(self._batcher, watcher, lane)
        return envelope

    def leases(self, token: str) -> str:
        return self._leases_key(token) if self._turn_key else ""

    def acknowledge(self, token: str, leased: Sequence[Leased]) -> list[str]:
        if self._turn_key or not leased:
            return []
        with self._database.translated():
            key, args = self._leases_key(token), [leased[0].handle, leased[-1].handle]
            removed = self._acknowledge(keys=[key, messages_key(key)], args=args)
        # Fewer: another turn has put some back. Their ids stay noted, so that they are dropped.
        return [one.arrival.id for one in leased] if removed == len(leased) else []

    def keep_alive(self) -> None:
        """Redis needs no heartbeats."""

    def close(self, token: str) -> None:
        own = self._leases_key(token).encode()
        try:
            self._put_back(lambda key: key == own)
        finally:
            self._database.close()


def messages_key(leases: str) -> str:
    """The list of the messages that are under these leases."""
    return f"{leases}:messages"


def broker_facts(app: Celery, store: Any) -> tuple[str, Facts] | None:
    """Where the broker is and what it says of itself; None when its server is the store's.

    Raises:
        BrokerUnavailableError: it does not answer.
    """
    database = BrokerDatabase(app)
    try:
        with database.translated():
            if isinstance(store, RedisStore) and _server(database.client) == _server(store.client):
                return None
            return database.url, server_facts(database.client)
    finally:
        database.close()


def _server(client: redis.Redis) -> tuple[Any, ...] | None:
    options = client.connection_pool.connection_kwargs
    known = "host" in options or "path" in options
    return _address(client)[:3] if known else None  # Sentinel names a service, not a server


def same_database(client: redis.Redis, store: Any) -> bool:
    """Whether the store keeps its keys in the database that this client talks to."""
    if not isinstance(store, RedisStore):
        return False
    options = client.connection_pool.connection_kwargs
    if "host" not in options and "path" not in options:
        return False  # Sentinel names a service, not a server
    return _address(client) == _address(store.client)


def _address(client: redis.Redis) -> tuple[Any, ...]:
    options = client.connection_pool.connection_kwargs
    host = options.get("host", "localhost")
    return (
        options.get("path"),
        "127.0.0.1" if host == "localhost" else host,
        int(options.get("port") or 6379),
        int(options.get("db") or 0),
    )
