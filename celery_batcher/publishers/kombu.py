"""Publishing into lanes on any broker that Kombu speaks to; proved on RabbitMQ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu import Producer
from kombu.exceptions import KombuError

from .. import wire
from ..errors import BrokerUnavailableError
from ..intakes.base import lane_name
from .base import Outgoing, UncertainError
from .pool import Pool


class _Connection:
    """A connection with its channel, producer and the lanes declared on it."""

    connection: Any
    channel: Any
    producer: Any

    def __init__(self, app: Celery) -> None:
        options = {**app.conf.broker_transport_options, "confirm_publish": True}
        self.connection = app.connection_for_write(transport_options=options)
        try:
            self.connection.ensure_connection(max_retries=1, timeout=5)
        except self.errors as exc:
            raise BrokerUnavailableError(
                f"the broker at {self.connection.as_uri()} does not answer ({exc}): is it up?"
            ) from exc
        self.channel = self.connection.channel()
        driver = self.connection.transport.driver_type
        self.mandatory = driver == "amqp"
        on_return = self._on_return if self.mandatory else None
        self.producer = Producer(self.channel, auto_declare=False, on_return=on_return)
        self.declared: set[str] = set()
        self.returned = False

    def _on_return(self, *_args: Any) -> None:
        self.returned = True

    def publish(self, batcher: str, message: Outgoing) -> None:
        one = message.admission
        lane = lane_name(batcher, one.watcher)
        if lane not in self.declared:
            self.channel.queue_declare(queue=lane, durable=True, auto_delete=False)
            self.declared.add(lane)
        self.producer.publish(
            wire.message_body(batcher, one.watcher, message.entries),
            routing_key=lane,
            exchange="",
            content_type="application/json",
            content_encoding="utf-8",
            headers=wire.message_headers(one.id, one.operations),
            correlation_id=one.id,
            delivery_mode=2,
            mandatory=self.mandatory,
        )
        if self.returned:
            self.returned = False
            self.declared.discard(lane)
            raise UncertainError(f"the broker returned a message of lane {lane}")

    def publish_all(self, batcher: str, messages: Sequence[Outgoing]) -> None:
        if len(messages) > 1 and getattr(self.producer, "supports_batch_publish", False):
            with self.producer.batch():
                for message in messages:
                    self.publish(batcher, message)
        else:
            for message in messages:
                self.publish(batcher, message)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        connection = self.connection
        return (OSError, KombuError, *connection.connection_errors, *connection.channel_errors)

    def close(self) -> None:
        self.connection.collect()


class KombuPublisher:
    """Publishes through Kombu, with confirms where the broker has them."""

    def __init__(self, app: Celery, batcher: str) -> None:
        self._batcher = batcher
        self._pool = Pool(lambda: _Connection(app))

    def publish(self, messages: Sequence[Outgoing]) -> None:
        with self._pool.connection() as connection:
            try:
                connection.publish_all(self._batcher, messages)
            except connection.errors as exc:
                raise UncertainError(str(exc)) from exc
