"""Which store, lanes and intake an app gets, from its URLs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.utils.url import maybe_sanitize_url

from .errors import ConfigurationError
from .intakes import redis as intakes_redis
from .intakes.base import Intake
from .intakes.kombu import KombuIntake
from .intakes.memory import MemoryIntake, MemoryLanes
from .intakes.redis import RedisIntake
from .publishers.base import Publisher
from .publishers.kombu import KombuPublisher
from .publishers.memory import MemoryPublisher
from .publishers.redis import RedisPublisher
from .store import memory
from .store.base import Store
from .store.counts import Facts
from .store.redis import RedisStore, connect

_REDIS = ("redis://", "rediss://", "unix://")
_KOMBU_SOCKET = "redis+socket://"
_REDIS_BROKERS = (*_REDIS, _KOMBU_SOCKET, "sentinel://")
_EAGER = "memory://eager"
_lanes: dict[str, MemoryLanes] = {}


@dataclass(frozen=True, slots=True)
class Connections:
    """What one batcher of one app talks to; ``eager``: to nothing but this process."""

    app: Celery
    batcher: str
    store: Store
    publisher: Publisher
    eager: bool = False

    def fits(self, app: Celery) -> bool:
        """Whether they are what this app needs, as it is configured now."""
        return self.app is app and self.eager is bool(app.conf.task_always_eager)

    def intake(self) -> Intake:
        """A new intake: each turn has its own."""
        url = _EAGER if self.eager else broker_url(self.app)
        if url.startswith("memory://"):
            return MemoryIntake(memory_lanes(url), self.batcher)
        if url.startswith(_REDIS_BROKERS):
            return RedisIntake(self.app, self.batcher, self.store)
        return KombuIntake(self.app, self.batcher)


def connections(app: Celery, *, batcher: str, resource: str) -> Connections:
    """The connections of a batcher.

    Raises:
        ConfigurationError: no store is configured, or its URL is none of ours.
    """
    if app.conf.task_always_eager:
        nothing = memory.MemoryStore(memory.MemoryServer(), batcher=batcher, resource=resource)
        return Connections(
            app, batcher, nothing, MemoryPublisher(MemoryLanes(), batcher), eager=True
        )
    return Connections(app, batcher, _store(app, batcher, resource), _publisher(app, batcher))


def _publisher(app: Celery, batcher: str) -> Publisher:
    url = broker_url(app)
    if url.startswith("memory://"):
        return MemoryPublisher(memory_lanes(url), batcher)
    if url.startswith(_REDIS_BROKERS):
        return RedisPublisher(app, batcher)
    return KombuPublisher(app, batcher)


def broker_url(app: Celery) -> str:
    """The URL of the app's broker; of several, the first."""
    url: Any = app.conf.broker_write_url or app.conf.broker_url or "amqp://"
    first = url[0] if isinstance(url, list | tuple) else str(url).split(";")[0]
    return str(first)


def broker_facts(app: Celery, store: Store) -> tuple[str, Facts] | None:
    """Where a Redis broker is and what it says of itself; None when it is none, or the store.

    Raises:
        BrokerUnavailableError: it does not answer.
    """
    is_redis = broker_url(app).startswith(_REDIS_BROKERS)
    return intakes_redis.broker_facts(app, store) if is_redis else None


def memory_lanes(url: str) -> MemoryLanes:
    """The lanes of this process behind an in-memory broker's URL."""
    return _lanes.setdefault(url, MemoryLanes())


def store_url(app: Celery) -> str:
    """Where the store is: its setting, else the broker, else the result backend.

    Raises:
        ConfigurationError: none of them is Redis (or memory).
    """
    configured = app.conf.get("batcher_store_url")
    if configured:
        return str(configured)
    broker, backend = broker_url(app), str(app.conf.result_backend or "")
    for url in (broker, backend):
        if url.startswith((*_REDIS, _KOMBU_SOCKET)):
            return url
    if broker.startswith("memory://"):
        return broker
    raise ConfigurationError(
        f"no store: neither the broker ({maybe_sanitize_url(broker)}) nor the result backend is "
        "Redis; set batcher_store_url, for example to 'redis://localhost:6379/0'"
    )


def _store(app: Celery, batcher: str, resource: str) -> Store:
    url = store_url(app)
    if url.startswith("memory://"):
        return memory.MemoryStore(memory.server(url), batcher=batcher, resource=resource, url=url)
    if url.startswith(_KOMBU_SOCKET):
        url = "unix://" + url.removeprefix(_KOMBU_SOCKET).replace("virtual_host=", "db=")
    if not url.startswith(_REDIS):
        raise ConfigurationError(
            f"batcher_store_url={maybe_sanitize_url(url)!r}, but it begins with redis://, "
            "rediss://, unix:// or memory://"
        )
    tls = app.conf.broker_use_ssl if url == broker_url(app) else None
    options = tls if isinstance(tls, dict) and url.startswith("rediss://") else {}
    return RedisStore(
        connect(url, **options),
        url=maybe_sanitize_url(url),
        batcher=batcher,
        resource=resource,
        prefix=app.conf.get("batcher_key_prefix") or "celery_batcher:",
    )
