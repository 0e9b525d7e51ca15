"""The errors of celery_batcher: one tree, each with the numbers that explain it.

::

    BatcherError
      ConfigurationError (ValueError)      an option, a setting or a name of a setting is wrong
      ImproperOrderError (RuntimeError)    a method was called at the wrong time
      BatcherStoppedError (RuntimeError)   enqueuing was stopped here, or is drained
      NoOperationError (TypeError)         enqueue was given something else than an operation
      NoWatcherError (LookupError)         an operation names a watcher nobody registered
      NoBatcherError (LookupError)         a batcher that the app does not have in this process
      InvalidNameError (ValueError)        a name that a broker or a key cannot carry
      InvalidCostError (ValueError)        a cost that is not an integer from 0 to 2**53 - 1
      TooExpensiveError (ValueError)       a cost above a capacity: it could never run
      TooManyAttemptsError (RuntimeError)  an operation that has used its attempts
      PayloadError (TypeError)             a payload that cannot be serialised or is too large
      BufferFullError (queue.Full)         the buffer is full
      EnqueueUncertainError (ConnectionError)   published, or not: enqueue again with the id
      StoreUnavailableError (ConnectionError)   the store did not answer
      BrokerUnavailableError (ConnectionError)  the broker did not answer
      LeaseStoreUnavailableError (ConnectionError)  the lease manager's store did not answer
      PartitionsOutOfRangeError (ValueError)    a shared capacity in more than 500 partitions
      BackfillRunningError (RuntimeError)  another process runs the back-fill
      OperationFailedError (RuntimeError)  an operation is dead: what its result raises
      OutcomeError (ValueError)            an outcome for a wrong operation, or one decided before
      ClaimExpiredError (TimeoutError)     the handler was too late; its outcome was refused
    Throttled                              raised by handlers: the store asked for less
"""

from __future__ import annotations

import math
import queue
from datetime import datetime, timedelta


class BatcherError(Exception):
    """Base of every error that celery_batcher raises."""


class ConfigurationError(BatcherError, ValueError):
    """An option or a setting is missing, unknown or out of range."""


class ImproperOrderError(BatcherError, RuntimeError):
    """A method was called at a time at which it has no meaning."""


class NoOperationError(BatcherError, TypeError):
    """``Batcher.enqueue`` was given something that is not an operation."""


class NoWatcherError(BatcherError, LookupError):
    """No watcher of this name is registered with the batcher."""


class NoBatcherError(BatcherError, LookupError):
    """The app has no batcher of this name in this process; ``near`` are names that look like it."""

    def __init__(self, message: str, *, name: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.near = near


class InvalidNameError(BatcherError, ValueError):
    """A name contains characters that a broker's queue or a store's key cannot carry."""


class InvalidCostError(BatcherError, ValueError):
    """A cost is not an integer from 0 to 2**53 - 1."""


class TooExpensiveError(BatcherError, ValueError):
    """An operation costs more than the capacity, or its key's: it could never be released."""

    def __init__(self, message: str, *, cost: int, capacity: int) -> None:
        super().__init__(message)
        self.cost = cost
        self.capacity = capacity


class TooManyAttemptsError(BatcherError, RuntimeError):
    """An operation has used all its attempts."""

    def __init__(self, message: str, *, attempt: int, max_attempts: int) -> None:
        super().__init__(message)
        self.attempt = attempt
        self.max_attempts = max_attempts


class OperationFailedError(BatcherError, RuntimeError):
    """An operation is dead, and no error of its handler says why: its reason is the message."""


class PayloadError(BatcherError, TypeError):
    """A payload cannot be serialised, or is larger than an operation may be."""


class EnqueueError(BatcherError):
    """Base of the errors that can end an ``enqueue_many`` half-way.

    ``enqueued`` is the number of operations that were enqueued before the error.
    """

    enqueued: int = 0


class BatcherStoppedError(EnqueueError, RuntimeError):
    """The batcher takes no more operations: it was stopped in this process, or is drained."""


class BufferFullError(EnqueueError, queue.Full):
    """The buffer held ``size`` operations of at most ``limit`` for longer than the time-out."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class EnqueueUncertainError(EnqueueError, ConnectionError):
    """The connection broke while publishing: the broker may or may not have the message.

    Enqueuing again with ``id=error.id`` is safe: while the operation lives it is taken once. In
    `enqueue_many` the ``uncertain`` payloads behind the first ``enqueued`` are in doubt: enqueue
    them again if you gave them ids; without, some may run twice.
    """

    def __init__(self, message: str, *, id: str) -> None:
        super().__init__(message)
        self.id = id
        self.uncertain = 1


class StoreUnavailableError(EnqueueError, ConnectionError):
    """The store did not answer; nothing was changed, or what was changed will be repaired."""


class BrokerUnavailableError(EnqueueError, ConnectionError):
    """The broker did not answer; nothing was enqueued."""


class LeaseStoreUnavailableError(BatcherError, ConnectionError):
    """The store of a lease manager did not answer, or asked for fewer requests.

    What is leased stays leased until it ends.
    """


class PartitionsOutOfRangeError(BatcherError, ValueError):
    """A shared capacity would be cut into more partitions than there may be.

    ``partitions`` is how many, ``factor`` the smallest with which they fit.
    """

    def __init__(self, message: str, *, partitions: int, factor: int) -> None:
        super().__init__(message)
        self.partitions = partitions
        self.factor = factor


class BackfillRunningError(BatcherError, RuntimeError):
    """Another process of the fleet runs the back-fill: ``owner``, ``since``, for ``left`` s more.

    It keeps the right to run while it lives; a dead one's is free after ``left`` seconds.
    """

    def __init__(
        self, message: str, *, name: str, owner: str, since: datetime | None, left: float
    ) -> None:
        super().__init__(message)
        self.name = name
        self.owner = owner
        self.since = since
        self.left = left


class OutcomeError(BatcherError, ValueError):
    """A handler decided about an operation of another batch, or about one it had committed."""


class ClaimExpiredError(BatcherError, TimeoutError):
    """A handler settled after its claim had ended; the operations have been given to others."""


class Throttled(Exception):  # noqa: N818 - raised by handlers as a signal, not an error of ours
    """Raised by a handler whose datastore asked for less: gives undecided operations back.

    Args:
        retry_after: seconds for which nothing of the resource starts, in the whole fleet; a
            number, a timedelta, or the text of a Retry-After header in seconds. None: up to a
            second, and up to twice as long each time it is raised again soon, up to a minute.

    Raises:
        ValueError: the text is no number.
    """

    def __init__(self, retry_after: float | timedelta | str | None = None) -> None:
        super().__init__(f"throttled, retry after {retry_after} s")
        if isinstance(retry_after, timedelta):
            retry_after = retry_after.total_seconds()
        seconds = None if retry_after is None else float(retry_after)
        self.retry_after = seconds if seconds is not None and math.isfinite(seconds) else None
