"""The protocol of an intake: how a turn takes messages from lanes.

A lane is the Kombu queue in which a watcher's operations arrive. Messages are taken whole; they
stay the broker's until they are acknowledged, which happens after the index has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..store.base import Arrival


def lane_name(batcher: str, watcher: str) -> str:
    """The name of a watcher's lane: a queue on the app's broker."""
    return f"celery_batcher.{batcher}.{watcher}"


@dataclass(frozen=True, slots=True)
class Leased:
    """A message taken from a lane, and what the intake needs to acknowledge it."""

    arrival: Arrival
    operations: int
    handle: Any = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look at lanes brought: messages, and the watchers whose lanes are now empty."""

    leased: list[Leased]
    empty: list[str]

    def unread(self, watchers: Sequence[str]) -> list[str]:
        """The watchers whose lanes may have more: those not looked at yet come first."""
        seen = {one.arrival.watcher for one in self.leased}
        done = set(self.empty)
        rest = [one for one in watchers if one not in seen and one not in done]
        return rest + [one for one in watchers if one in seen and one not in done]


class Intake(Protocol):
    """Takes messages from the lanes of one batcher, for the turn with this token."""

    def adopt(self, token: str) -> None:
        """Put back, in order, what other turns have taken and not acknowledged."""

    def take(self, token: str, watchers: Sequence[str]) -> Taken:
        """The oldest messages of lanes, one lane after the other, up to some hundreds in all.

        Raises:
            BrokerUnavailableError: the broker does not answer.
        """

    def leases(self, token: str) -> str:
        """The key of the leases when they are in the store's database, else ""."""

    def acknowledge(self, token: str, leased: Sequence[Leased]) -> list[str]:
        """Acknowledge what the index has; return the ids whose acknowledgement has arrived.

        In the order in which they were taken, from the oldest on.
        """

    def keep_alive(self) -> None:
        """Called a few times a second, for heartbeats."""

    def close(self, token: str) -> None:
        """Give back what was not acknowledged, and let connections go."""
