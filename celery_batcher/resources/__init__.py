"""Capacity limits.

`provisioned` has the one that a store of requests or tokens gives you, `shared` the one that
several fleets divide among themselves.
"""

from .provisioned import ProvisionedResource
from .shared import SharedResource

__all__ = ["ProvisionedResource", "SharedResource"]
