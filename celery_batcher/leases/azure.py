"""Leases on blobs of Azure Storage, as go-batcher had them: one blob per partition."""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from ..clock import Clock, SystemClock
from ..errors import ConfigurationError, ImproperOrderError
from ..events import Listener
from ..fairness import water_fill
from .azure_errors import LeaseTakenError, import_azure, translated
from .base import Demand, Leases, check_partitions, no_listener

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_AT_ONCE = 8
_PATIENCE = 2
_LOOK_EVERY = 1.0
_SHORTEST, _LONGEST = 15, 60
_ENTRY = "owner-"
_CONTAINER = re.compile(r"[a-z0-9](-?[a-z0-9]){2,62}")


@dataclass(slots=True)
class _Held:
    """A lease of this process: its end on the clock, and the blob's tag when it was taken."""

    ends: float
    tag: str


@dataclass(slots=True)
class _Owner:
    """What this process knows of an owner.

    ``share`` and ``free`` are from the last look at the container, at ``looked``.
    """

    id: str
    turn: str
    held: dict[int, _Held] = field(default_factory=dict)
    looked: float = float("-inf")
    share: int = 0
    free: list[int] = field(default_factory=list)


class AzureBlobLeaseManager:
    """Leases partitions as exclusive leases of blobs, named 0, 1, 2, ... in one container.

    No partition is ever leased to two owners. What owners want beyond what there is they get in
    shares that are max-min fair by weight: each writes what it wants to a blob of its own, sees
    those of the others, and keeps its share. That is agreed in seconds, and only among owners
    that play by the rules; the leases are Azure's, and hold whatever an owner does.

    Args:
        account: the storage account's name, or the address of its blob service.
        container: holds the blobs, and nothing else; the same in every fleet that shares.
        credential: what ``azure-identity`` gives, or another that the SDK takes.
        master_key: the account's key, instead.
        connection_string: instead of account and credentials.
        lease_time: whole seconds from 15 to 60; the same in every fleet.
        clock: measures leases.

    Raises:
        ConfigurationError: an argument is wrong, or ``celery-batcher[azure]`` is not installed.

    Its weakness: each partition that is taken, renewed or given back is a request, and so is each
    look, once a second; Azure bills them. A fleet that died keeps its partitions for up to the
    lease time. Choose the factor so that there are no more partitions than needed.

    Example::

        manager = AzureBlobLeaseManager("myaccount", container="cosmos", master_key=key)
        SharedResource(20_000, factor=1_000, lease_manager=manager)
    """

    fair = True

    def __init__(
        self,
        account: str | None = None,
        *,
        container: str,
        credential: Any = None,
        master_key: str | None = None,
        connection_string: str | None = None,
        lease_time: int = _SHORTEST,
        clock: Clock | None = None,
    ) -> None:
        import_azure()
        if isinstance(lease_time, bool) or lease_time not in range(_SHORTEST, _LONGEST + 1):
            raise ConfigurationError(
                f"lease_time={lease_time!r}, but Azure leases for {_SHORTEST} to {_LONGEST} whole "
                "seconds"
            )
        if not _CONTAINER.fullmatch(container):
            raise ConfigurationError(
                f"container={container!r}, but it is 3 to 63 small letters, digits and single '-'"
            )
        given = [one for one in (credential, master_key, connection_string) if one is not None]
        if len(given) != 1 or (account is None) != (connection_string is not None):
            raise ConfigurationError(
                "AzureBlobLeaseManager takes an account and either credential or master_key, "
                "or a connection_string alone"
            )
        self.lease_time = float(lease_time)
        self._name, self._address = container, _address(account)
        self._credential = credential
        if master_key is not None:
            name = _account_name(account or "")
            self._credential = {"account_name": name, "account_key": master_key}
        self._connection_string = connection_string
        self._clock = clock or SystemClock()
        self._client: tuple[int, ContainerClient] | None = None
        self._place = self._container().primary_endpoint  # a malformed address is told now
        self._count: int | None = None
        self._owners: dict[str, _Owner] = {}
        self._emit: Listener = no_listener

    def __repr__(self) -> str:
        return f"AzureBlobLeaseManager({self._place})"

    def raise_events_to(self, listener: Listener) -> None:
        self._emit = listener

    def provision(self, partitions: int) -> None:
        count = check_partitions(partitions)
        self._create_container()
        with translated(self._place):
            there = set(self._container().list_blob_names())
        for at in range(count):
            if str(at) in there:
                self._emit("verified-blob", at, "", None)
        self._each(self._create_blob, [at for at in range(count) if str(at) not in there])
        self._count = count

    def lease(self, owner: str, demand: Demand) -> Leases:
        if self._count is None:
            raise ImproperOrderError("nothing was provisioned: call provision(partitions) first")
        began = self._clock.monotonic()
        one = self._owners.get(owner)
        if one is None or one.turn != demand.turn:
            one = self._owners[owner] = _Owner(_guid(owner), demand.turn)
        held = one.held
        for at in [at for at in held if held[at].ends <= began]:
            del held[at]
        if began >= one.looked + _LOOK_EVERY:
            self._look(one, min(demand.partitions, self._count), demand.weight)
            one.looked = began
        share = min(demand.partitions, one.share)
        own = sorted((at in demand.unused, at) for at in held if at < self._count)
        kept = [at for _, at in own[:share]]
        over = held.keys() - set(kept)
        unused = [at for at in over if demand.unused.get(at, 1.0) <= 0]
        soon = began + max(self.lease_time / 2, demand.hold + 4 * _PATIENCE)
        self._each(lambda at: self._give_back(one, at), unused)
        self._each(lambda at: self._renew(one, at), [at for at in kept if held[at].ends < soon])
        self._take(one, share - len(kept))
        left = {at: held[at].ends - began for at in held.keys() - over}
        return Leases(left, _LOOK_EVERY if len(left) < share else None)

    def release(self, owner: str) -> None:
        one = self._owners.pop(owner, None)
        if one is not None:
            self._each(lambda at: self._give_back(one, at), list(one.held))
            self._look(one, 0, 1)

    # What there is

    def _create_container(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        event = "created-container"
        with translated(self._place):
            try:
                self._container().create_container()
            except ResourceExistsError as exc:
                if exc.error_code != "ContainerAlreadyExists":  # as when it is being deleted
                    raise
                event = "verified-container"
        self._emit(event, 0, self._place, None)

    def _create_blob(self, at: int) -> None:
        from azure.core.exceptions import ResourceExistsError

        event = "created-blob"
        with translated(self._place):
            try:
                self._container().upload_blob(str(at), b"", overwrite=False)
            except ResourceExistsError:  # another fleet was faster
                event = "verified-blob"
        self._emit(event, at, "", None)

    def _look(self, one: _Owner, wanted: int, weight: int) -> None:
        """Say what the owner wants, and see its share and what is free.

        All times are the server's: an entry counts for a lease time after it was written, and
        "now" is when the owner's own was.
        """
        with translated(self._place):
            metadata = {"wanted": str(wanted), "weight": str(weight)}
            name = _ENTRY + one.id
            self._container().upload_blob(name, b"", overwrite=True, metadata=metadata)
            blobs = list(self._container().list_blobs(include=["metadata"]))
        entries = {blob.name: blob for blob in blobs if blob.name.startswith(_ENTRY)}
        oldest = entries[name].last_modified - timedelta(seconds=self.lease_time)
        live = sorted(name for name, blob in entries.items() if _counts(blob, oldest))
        count = self._count or 0
        demands = [min(int(entries[name].metadata["wanted"]), count) for name in live]
        weights = [int(entries[name].metadata["weight"]) for name in live]
        one.share = water_fill(demands, weights, count)[live.index(name)]
        one.free = [
            int(blob.name)
            for blob in blobs
            if blob.name.isdigit()
            and (blob.lease.state != "leased" or (blob.metadata or {}).get("owner") == one.id)
        ]

    # Leases

    def _take(self, one: _Owner, most: int) -> None:
        """Lease some of what is free, at random, so that owners seldom meet."""
        free = [at for at in one.free if at not in one.held and at < (self._count or 0)]
        chosen = random.sample(free, min(len(free), max(0, most), _AT_ONCE))
        one.free = [at for at in one.free if at not in chosen]
        self._each(lambda at: self._acquire(one, at), chosen)

    def _acquire(self, one: _Owner, at: int) -> None:
        """Lease a blob, and mark it as leased by this process.

        The mark gives the blob another tag. Another process of the fleet that leased it before,
        and gives it back too late, names the old tag and is refused.
        """
        sent = self._clock.monotonic()
        mark = {"owner": one.id, "taken": uuid4().hex}
        try:
            with translated(self._place):
                blob = self._container().get_blob_client(str(at))
                blob.acquire_lease(int(self.lease_time), lease_id=one.id)
                tag = str(blob.set_blob_metadata(mark, lease=one.id)["etag"])
        except LeaseTakenError:
            self._emit("failed", at, "", None)
        else:
            one.held[at] = _Held(sent + self.lease_time, tag)

    def _renew(self, one: _Owner, at: int) -> None:
        sent = self._clock.monotonic()
        try:
            with translated(self._place):
                self._leased(one, at).renew(**_if_tag(one.held[at].tag))
        except LeaseTakenError:  # by another process of the fleet, or it came too late
            del one.held[at]
        else:
            one.held[at].ends = sent + self.lease_time

    def _give_back(self, one: _Owner, at: int) -> None:
        held = one.held.pop(at)
        try:
            with translated(self._place):
                self._leased(one, at).release(**_if_tag(held.tag))
        except LeaseTakenError:
            return  # it is another's, or another process of the fleet has taken it again

    def _leased(self, one: _Owner, at: int) -> Any:
        from azure.storage.blob import BlobLeaseClient

        return BlobLeaseClient(self._container().get_blob_client(str(at)), lease_id=one.id)

    def _each(self, act: Callable[[int], None], indexes: Iterable[int]) -> None:
        """Do a few at once; when one fails, begin no others."""
        failed = threading.Event()

        def attempt(at: int) -> None:
            if failed.is_set():
                return
            try:
                act(at)
            except BaseException:
                failed.set()
                raise

        todo = list(indexes)
        if len(todo) == 1:
            attempt(todo[0])
        elif todo:
            with ThreadPoolExecutor(min(_AT_ONCE, len(todo))) as pool:
                list(pool.map(attempt, todo))

    def _container(self) -> ContainerClient:
        """The client of this process: forks do not share connections."""
        from azure.storage.blob import ContainerClient

        if self._client is None or self._client[0] != os.getpid():
            options: dict[str, Any] = {
                "retry_total": 0,  # there is another round soon
                "connection_timeout": _PATIENCE,
                "read_timeout": _PATIENCE,
            }
            try:
                if self._connection_string is not None:
                    client = ContainerClient.from_connection_string(
                        self._connection_string, self._name, **options
                    )
                else:
                    client = ContainerClient(
                        self._address, self._name, credential=self._credential, **options
                    )
            except ValueError as exc:
                raise ConfigurationError(f"the account's address or string is none: {exc}") from exc
            self._client = os.getpid(), client
        return self._client[1]


def _address(account: str | None) -> str:
    if account is None or "://" in account:
        return account or ""
    return f"https://{account}.blob.core.windows.net"


def _account_name(account: str) -> str:
    """The account's name: given, or the first part of the host, or of an emulator's path."""
    if "://" not in account:
        return account
    host, _, path = account.partition("://")[2].partition("/")
    return path.strip("/") or host.partition(".")[0]


def _guid(owner: str) -> str:
    """Ids of leases are GUIDs: the owner's id, if it is one, or one that follows from it."""
    try:
        return str(UUID(owner))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, owner))


def _counts(blob: Any, oldest: datetime) -> bool:
    """Whether an entry is recent, and one of ours."""
    metadata = blob.metadata or {}
    numbers = (metadata.get("wanted", ""), metadata.get("weight", ""))
    return all(one.isdigit() for one in numbers) and blob.last_modified > oldest


def _if_tag(tag: str) -> dict[str, Any]:
    from azure.core import MatchConditions

    return {"etag": tag, "match_condition": MatchConditions.IfNotModified}
