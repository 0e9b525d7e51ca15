"""Lease managers: who may use which part of a capacity that fleets without a common store share."""

from .azure import AzureBlobLeaseManager
from .base import MAX_PARTITIONS, Demand, LeaseManager, Leases
from .memory import MemoryLeaseManager
from .redis import RedisLeaseManager

__all__ = [
    "MAX_PARTITIONS",
    "AzureBlobLeaseManager",
    "Demand",
    "LeaseManager",
    "Leases",
    "MemoryLeaseManager",
    "RedisLeaseManager",
]
