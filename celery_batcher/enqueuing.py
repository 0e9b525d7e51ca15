"""Enqueuing: admit to the books, publish, and what to do when either goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .clock import Clock
from .costs import MAX_COST
from .errors import (
    BatcherStoppedError,
    BrokerUnavailableError,
    BufferFullError,
    EnqueueError,
    EnqueueUncertainError,
    StoreUnavailableError,
)
from .publishers.base import Outgoing, Publisher, UncertainError
from .store.base import Store

_FIRST_WAIT, _LONGEST_WAIT = 0.01, 0.25


@dataclass(slots=True)
class Patience:
    """Waits that double, up to a deadline."""

    clock: Clock
    deadline: float
    wait: float = _FIRST_WAIT

    def over(self) -> bool:
        """Whether the deadline has passed; if not, wait a little."""
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            return True
        self.clock.wait(threading.Event(), min(self.wait, left))
        self.wait = min(2 * self.wait, _LONGEST_WAIT)
        return False


class Enqueuer:
    """Brings messages from a producer into lanes.

    A message is in the books before it is published, so that the buffer is bounded and
    `needs_capacity` complete at any moment; a refusal takes it out again.
    """

    def __init__(
        self, store: Store, publisher: Publisher, clock: Clock, check: Callable[[], None]
    ) -> None:
        self._store, self._publisher, self._clock = store, publisher, clock
        self._check = check  # raises once this process enqueues no more

    def send(
        self, messages: Sequence[Outgoing], *, buffer_size: int, block: bool, timeout: float
    ) -> None:
        """Admit and publish messages, in order.

        Raises:
            BatcherStoppedError: the batcher was stopped in this process or is drained, before or
                meanwhile.
            BufferFullError: no room until the time-out (at once without ``block``).
            BrokerUnavailableError, StoreUnavailableError: nothing of the message was enqueued.
            EnqueueUncertainError: the broker did not say whether it took a message.
            Each carries in ``enqueued`` the operations that were enqueued before.
        """
        patience = Patience(self._clock, self._clock.monotonic() + timeout)
        sent = operations = 0
        try:
            while sent < len(messages):
                self._check()
                pending = messages[sent:]
                answer = self._store.admit([one.admission for one in pending], buffer_size)
                for message in self._published(pending[: answer.messages], patience):
                    sent += 1
                    operations += message.admission.operations
                if answer.draining:
                    raise BatcherStoppedError(
                        "the batcher is being drained and takes no operations anywhere, until "
                        "resume() is called"
                    )
                if answer.too_dear:
                    raise BufferFullError(
                        f"the costs of all operations would pass {MAX_COST} (2**53 - 1)",
                        size=answer.buffered,
                        limit=buffer_size,
                    )
                if sent < len(messages) and (not block or patience.over()):
                    raise BufferFullError(
                        f"the buffer holds {answer.buffered} of at most {buffer_size} operations"
                        + (f", for {timeout} s now" if block else "")
                        + ": enqueue slower, or raise buffer_size",
                        size=answer.buffered,
                        limit=buffer_size,
                    )
        except EnqueueError as exc:
            exc.enqueued += operations
            raise

    def _published(self, admitted: Sequence[Outgoing], patience: Patience) -> Sequence[Outgoing]:
        if not admitted:
            return admitted
        try:
            self._publisher.publish(admitted)
        except BrokerUnavailableError:
            self._store.withdraw([one.admission.id for one in admitted])
            raise
        except UncertainError as exc:
            arrived = 0
            for message in admitted:
                try:
                    self._publish_again(message, patience, exc)
                except EnqueueUncertainError as error:
                    error.enqueued += arrived
                    error.uncertain = sum(one.admission.operations for one in admitted) - arrived
                    raise
                arrived += message.admission.operations
        return admitted

    def _publish_again(self, message: Outgoing, patience: Patience, cause: UncertainError) -> None:
        """Publish a message that may have arrived, until the books or the broker say it has."""
        id = message.admission.id
        while True:
            try:
                if self._store.repeat(id):
                    self._publisher.publish([message])
                return
            except (UncertainError, BrokerUnavailableError, StoreUnavailableError):
                if patience.over():
                    break
        raise EnqueueUncertainError(
            f"the connection to the broker broke during a publish ({cause}), and did not come "
            "back in time: the operations may have arrived. Enqueue again with their ids: that is "
            "safe while they live, and without ids it may double them",
            id=id,
        ) from cause
