"""Errors of Azure Storage as ours, each with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import BatcherError, ConfigurationError, LeaseStoreUnavailableError

INSTALL = 'pip install "celery-batcher[azure]"'

_TAKEN = {
    "ConditionNotMet",
    "LeaseAlreadyPresent",
    "LeaseIdMismatchWithBlobOperation",
    "LeaseIdMismatchWithLeaseOperation",
    "LeaseIsBreakingAndCannotBeAcquired",
    "LeaseIsBreakingAndCannotBeChanged",
    "LeaseIsBrokenAndCannotBeRenewed",
    "LeaseLost",
    "LeaseNotPresentWithBlobOperation",
    "LeaseNotPresentWithLeaseOperation",
}
_REFUSED = {400, 401, 403}
_THROTTLED = {429, 503}
_NOT_FOUND = 404


class LeaseTakenError(Exception):
    """The lease is another's, or is over."""


def import_azure() -> None:
    """See that the SDK is here.

    Raises:
        ConfigurationError: it is not.
    """
    try:
        import azure.storage.blob  # noqa: F401
    except ImportError as exc:
        raise ConfigurationError(
            f"AzureBlobLeaseManager needs the package azure-storage-blob: {INSTALL}"
        ) from exc


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn errors of the SDK into ours; ``place`` is the container's address."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as exc:
        code = getattr(exc, "error_code", None)
        raise _as_ours(exc, str(getattr(code, "value", code) or ""), place) from exc


def _as_ours(exc: Any, code: str, place: str) -> BatcherError | LeaseTakenError:
    from azure.core.exceptions import ClientAuthenticationError

    status = getattr(exc, "status_code", None)
    what = code or str(exc).splitlines()[0]
    if code in _TAKEN:
        return LeaseTakenError(code)
    if status == _NOT_FOUND:
        return ConfigurationError(
            f"{place} lacks its container or a blob ({what}): was it deleted? provision() "
            "creates what is missing"
        )
    if isinstance(exc, ClientAuthenticationError) or status in _REFUSED:
        return ConfigurationError(
            f"{place} refuses ({what}): check account, container's name and key; a credential "
            "needs the role Storage Blob Data Contributor"
        )
    if status in _THROTTLED:
        return LeaseStoreUnavailableError(
            f"{place} is throttled ({what}): use a larger factor, so that there are fewer "
            "partitions, or a longer max_interval"
        )
    return LeaseStoreUnavailableError(f"{place} does not answer ({what}): is it reachable?")
