"""Batching under a shared capacity, for teams that run Celery."""

from .backfill import Backfill, BackfillProgress
from .batch import Batch
from .batcher import Batcher
from .binding import Reason
from .checks import Problem
from .dead_letters import DeadLetter
from .errors import (
    BackfillRunningError,
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
    LeaseStoreUnavailableError,
    NoBatcherError,
    NoOperationError,
    NoWatcherError,
    OperationFailedError,
    OutcomeError,
    PartitionsOutOfRangeError,
    PayloadError,
    StoreUnavailableError,
    Throttled,
    TooExpensiveError,
    TooManyAttemptsError,
)
from .explaining import Explanation
from .leases import AzureBlobLeaseManager, MemoryLeaseManager, RedisLeaseManager
from .metrics import Meters, RecentBatch
from .operation import Operation
from .resources import ProvisionedResource, SharedResource
from .rows import Row
from .status import Status
from .watcher import Watcher

__all__ = [
    # what users make and get
    "AzureBlobLeaseManager",
    "Backfill",
    "BackfillProgress",
    "Batch",
    "Batcher",
    "DeadLetter",
    "Explanation",
    "MemoryLeaseManager",
    "Meters",
    "Operation",
    "Problem",
    "ProvisionedResource",
    "Reason",
    "RecentBatch",
    "RedisLeaseManager",
    "Row",
    "SharedResource",
    "Status",
    "Watcher",
    # errors, as drawn in errors.py
    "BatcherError",
    "BackfillRunningError",
    "BatcherStoppedError",
    "BrokerUnavailableError",
    "BufferFullError",
    "ClaimExpiredError",
    "ConfigurationError",
    "EnqueueUncertainError",
    "ImproperOrderError",
    "InvalidCostError",
    "InvalidNameError",
    "LeaseStoreUnavailableError",
    "NoBatcherError",
    "NoOperationError",
    "NoWatcherError",
    "OperationFailedError",
    "OutcomeError",
    "PartitionsOutOfRangeError",
    "PayloadError",
    "StoreUnavailableError",
    "Throttled",
    "TooExpensiveError",
    "TooManyAttemptsError",
]
