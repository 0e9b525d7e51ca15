"""Batching under a shared capacity, for teams that run Celery."""

from .batch import Batch
from .batcher import Batcher
from .checks import Problem
from .dead_letters import DeadLetter
from .errors import (
    BatcherError,
    BatcherStoppedError,
    BrokerUnavailableError,
    BufferFullError,
    ClaimExpiredError,
    ConfigurationError,
    EnqueueUncertainError,
    ImproperOrderError,
    InvalidCostError,
    InvalidNameError,
    NoOperationError,
    NoWatcherError,
    OperationFailedError,
    OutcomeError,
    PayloadError,
    StoreUnavailableError,
    Throttled,
    TooExpensiveError,
    TooManyAttemptsError,
)
from .operation import Operation
from .resources import ProvisionedResource
from .status import Status
from .watcher import Watcher

__all__ = [
    # what users make and get
    "Batch",
    "Batcher",
    "DeadLetter",
    "Operation",
    "Problem",
    "ProvisionedResource",
    "Status",
    "Watcher",
    # errors, as drawn in errors.py
    "BatcherError",
    "BatcherStoppedError",
    "BrokerUnavailableError",
    "BufferFullError",
    "ClaimExpiredError",
    "ConfigurationError",
    "EnqueueUncertainError",
    "ImproperOrderError",
    "InvalidCostError",
    "InvalidNameError",
    "NoOperationError",
    "NoWatcherError",
    "OperationFailedError",
    "OutcomeError",
    "PayloadError",
    "StoreUnavailableError",
    "Throttled",
    "TooExpensiveError",
    "TooManyAttemptsError",
]
