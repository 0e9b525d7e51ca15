"""Capacity limits. `provisioned` has the one that a store of requests or tokens gives you."""

from .provisioned import ProvisionedResource

__all__ = ["ProvisionedResource"]
