"""The private RabbitMQ of the test session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kombu import Connection

from servers import RabbitServer


@pytest.fixture
def own_rabbitmq(rabbitmq_server: RabbitServer) -> Iterator[RabbitServer]:
    """A second node beside the session's, to be killed."""
    server = RabbitServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def put(url: str, queue: str, text: str) -> None:
    """Publish, and return once the broker has confirmed that it keeps the message."""
    options = {"confirm_publish": True}
    with (
        Connection(url, transport_options=options) as connection,
        connection.SimpleQueue(queue) as lane,
    ):
        lane.put(text)


def get(url: str, queue: str) -> str:
    with Connection(url) as connection, connection.SimpleQueue(queue) as lane:
        message = lane.get(timeout=5)
        message.ack()
        return str(message.payload)


def test_messages_pass_through_it(rabbitmq_url: str, unique: str) -> None:
    put(rabbitmq_url, unique, "hello")

    assert get(rabbitmq_url, unique) == "hello"


def test_durable_messages_survive_a_crash_and_a_restart(own_rabbitmq: RabbitServer) -> None:
    put(own_rabbitmq.url, "first", "one")
    put(own_rabbitmq.url, "second", "two")

    own_rabbitmq.kill()
    own_rabbitmq.start()
    assert get(own_rabbitmq.url, "first") == "one"

    own_rabbitmq.restart()
    assert get(own_rabbitmq.url, "second") == "two"
