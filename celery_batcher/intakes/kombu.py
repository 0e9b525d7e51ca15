"""Lanes on any broker that Kombu speaks to; proved on RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError

from .. import wire
from ..errors import BrokerUnavailableError
from ..store.base import Arrival
from .base import Leased, Taken, lane_name

MOST, MOST_BYTES = 500, 256 * 1024
HEARTBEAT = 10.0


class KombuIntake:
    """Takes messages one by one, and acknowledges them in one step.

    What a turn has taken and not acknowledged is the broker's to give back: it does so when the
    connection ends. An acknowledgement has no answer; it has arrived once a later request of the
    same channel was answered.
    """

    def __init__(self, app: Celery, batcher: str) -> None:
        self._app = app
        self._batcher = batcher
        self._connection: Any = None
        self._channel: Any = None
        self._declared: set[str] = set()
        self._acknowledged: list[str] = []
        self._arrived: list[str] = []

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            errors: tuple[type[BaseException], ...] = (OSError, KombuError)
            if self._connection is not None:
                errors += self._connection.connection_errors + self._connection.channel_errors
            if not isinstance(exc, errors):
                raise
            url = self._connection.as_uri() if self._connection is not None else "the broker"
            self._drop()
            raise BrokerUnavailableError(f"the broker at {url} does not answer: {exc}") from exc

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        self._acknowledged.clear()
        if connection is not None:
            connection.collect()

    def _open(self, lane: str) -> Any:
        if self._connection is None:
            self._connection = self._app.connection_for_read(heartbeat=HEARTBEAT)
            self._connection.ensure_connection(max_retries=1, timeout=5.0)
            self._channel = self._connection.channel()
        if lane not in self._declared:
            self._channel.queue_declare(queue=lane, durable=True, auto_delete=False)
            self._declared.add(lane)
        return self._channel

    def adopt(self, token: str) -> None:
        """The broker has given other turns' messages back when their connections ended."""

    def take(self, token: str, watchers: Sequence[str]) -> Taken:
        leased: list[Leased] = []
        empty: list[str] = []
        size = 0
        with self._translated():
            for watcher in watchers:
                lane = lane_name(self._batcher, watcher)
                channel = self._open(lane)
                while len(leased) < MOST and size < MOST_BYTES:
                    message = channel.basic_get(lane, no_ack=False)
                    if message is None:
                        empty.append(watcher)
                        break
                    size += len(message.body)
                    leased.append(_leased(watcher, message))
        self._arrived += self._acknowledged
        self._acknowledged = []
        return Taken(leased, empty)

    def leases(self, token: str) -> str:
        return ""

    def acknowledge(self, token: str, leased: Sequence[Leased]) -> list[str]:
        if leased:
            with self._translated():
                for one in leased:
                    self._channel.basic_ack(one.handle)
            self._acknowledged += [one.arrival.id for one in leased]
        arrived, self._arrived = self._arrived, []
        return arrived

    def keep_alive(self) -> None:
        if self._connection is not None and self._connection.supports_heartbeats:
            with self._translated():
                self._connection.heartbeat_check()

    def close(self, token: str) -> None:
        if self._connection is not None:
            self._connection.release()
            self._connection = self._channel = None


def _leased(watcher: str, message: Any) -> Leased:
    try:
        ours = wire.decode_message(message.headers or {}, message.body)
    except wire.MalformedError as exc:
        whole = wire.envelope_of(message)
        return Leased(
            Arrival(exc.id or wire.fingerprint(whole), watcher, whole, fault=str(exc)),
            1,
            message.delivery_tag,
        )
    return Leased(Arrival(ours.id, watcher, ours.entries), ours.operations, message.delivery_tag)
