"""The protocol of a publisher: how a producer's messages get into lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..store.base import Admission


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish, and what the books say of it."""

    admission: Admission
    entries: bytes


class UncertainError(ConnectionError):
    """The connection broke while messages were published: they may have arrived, or not."""


class Publisher(Protocol):
    """Publishes messages into the lanes of one batcher."""

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish messages in order.

        Raises:
            BrokerUnavailableError: the broker does not answer; nothing was published.
            UncertainError: some or all may have been.
        """
