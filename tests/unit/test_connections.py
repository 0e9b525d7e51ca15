"""Which store, publisher and intake an app gets, without connecting to anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_batcher import ConfigurationError
from celery_batcher.connections import Connections, broker_url, connections, store_url
from celery_batcher.publishers.kombu import KombuPublisher
from celery_batcher.publishers.memory import MemoryPublisher
from celery_batcher.publishers.redis import RedisPublisher
from celery_batcher.store.memory import MemoryStore
from celery_batcher.store.redis import RedisStore

AMQP = "amqp://guest:secret@rabbit//"
REDIS = "redis://redis:6379/1"


@pytest.fixture
def made() -> Iterator[list[Celery]]:
    apps: list[Celery] = []
    yield apps
    for app in apps:
        app.close()


def app_of(made: list[Celery], **conf: Any) -> Celery:
    app = Celery("connections", set_as_current=False)
    app.conf.update(conf)
    made.append(app)
    return app


def linked(app: Celery) -> Connections:
    return connections(app, batcher="b", resource="r")


@pytest.mark.parametrize(
    ("conf", "url"),
    [
        ({"broker_url": REDIS}, REDIS),
        ({"broker_url": AMQP, "result_backend": REDIS}, REDIS),
        ({"broker_url": REDIS, "result_backend": "redis://other"}, REDIS),
        ({"broker_url": REDIS, "batcher_store_url": "redis://third"}, "redis://third"),
        ({"broker_url": "memory://"}, "memory://"),
        ({"broker_url": "memory://", "result_backend": REDIS}, REDIS),
        ({"broker_url": "rediss://safe:6380/0"}, "rediss://safe:6380/0"),
        ({"broker_url": "redis+socket:///run/redis.sock"}, "redis+socket:///run/redis.sock"),
    ],
)
def test_the_store_is_its_setting_else_the_broker_else_the_result_backend(
    made: list[Celery], conf: dict[str, Any], url: str
) -> None:
    assert store_url(app_of(made, **conf)) == url


def test_without_any_redis_the_error_says_what_to_set_and_shows_no_password(
    made: list[Celery],
) -> None:
    with pytest.raises(ConfigurationError, match="set batcher_store_url") as caught:
        linked(app_of(made, broker_url=AMQP, result_backend="rpc://"))

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://u:secret@db/x", "http://redis", "nonsense"])
def test_a_store_url_that_is_none_of_ours_is_refused_without_its_password(
    made: list[Celery], url: str
) -> None:
    with pytest.raises(ConfigurationError, match="batcher_store_url=") as caught:
        linked(app_of(made, broker_url=REDIS, batcher_store_url=url))

    assert "secret" not in str(caught.value)


def test_a_redis_url_that_cannot_be_read_is_a_configuration_error(made: list[Celery]) -> None:
    with pytest.raises(ConfigurationError, match="not one of Redis"):
        linked(app_of(made, broker_url=AMQP, batcher_store_url="redis://host:port/0"))


@pytest.mark.parametrize(
    ("broker", "publisher"),
    [
        ("memory://", MemoryPublisher),
        (REDIS, RedisPublisher),
        ("rediss://redis:6380/0", RedisPublisher),
        ("redis+socket:///run/redis.sock", RedisPublisher),
        (AMQP, KombuPublisher),
        ("sqs://", KombuPublisher),
    ],
)
def test_the_publisher_follows_the_broker(
    made: list[Celery], broker: str, publisher: type[Any]
) -> None:
    app = app_of(made, broker_url=broker, batcher_store_url=REDIS)

    found = linked(app)

    assert type(found.publisher) is publisher
    assert isinstance(found.store, RedisStore)
    assert found.store.url == REDIS


def test_the_store_shows_no_password(made: list[Celery]) -> None:
    found = linked(app_of(made, broker_url="redis://:secret@redis:6379/0"))

    assert "secret" not in found.store.url


def test_the_memory_store_is_shared_by_the_process(made: list[Celery]) -> None:
    one = linked(app_of(made, broker_url="memory://shared"))
    two = linked(app_of(made, broker_url="memory://shared"))

    assert isinstance(one.store, MemoryStore)
    one.store.pause(-1)
    assert two.store.counts().paused_ms == -1


def test_keys_have_the_prefix_of_the_setting_and_the_tag_of_the_resource(
    made: list[Celery],
) -> None:
    app = app_of(made, broker_url=REDIS, batcher_key_prefix="mine:")
    store = linked(app).store

    assert isinstance(store, RedisStore)
    assert store.keys["meta"] == "mine:{r}:b:meta"
    assert all(key.startswith("mine:{r}:") for key in store.keys.fixed)


@pytest.mark.parametrize(
    ("conf", "url"),
    [
        ({"broker_url": "redis://a;redis://b"}, "redis://a"),
        ({"broker_url": ["redis://a", "redis://b"]}, "redis://a"),
        ({"broker_url": "redis://read", "broker_write_url": "redis://write"}, "redis://write"),
    ],
)
def test_of_several_brokers_the_first_counts(
    made: list[Celery], conf: dict[str, Any], url: str
) -> None:
    assert broker_url(app_of(made, **conf)) == url
