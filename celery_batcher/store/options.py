"""What the store must know of watchers, resources and batchers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class WatcherOptions:
    """What the store must know of a watcher to release its batches.

    ``key_capacity`` and ``key_concurrency`` are caps of each key; operations without one have none.
    """

    name: str
    max_batch_size: int = 500
    max_attempts: int = 3
    max_concurrent_batches: int = 0
    weight: int = 1
    batch_by_key: bool = False
    max_dead: int = 0
    bisect: bool = True
    key_capacity: int | None = None
    key_window_ms: int = 1000
    key_concurrency: int = 0

    @property
    def capped(self) -> bool:
        """Whether its keys have caps."""
        return self.key_capacity is not None or self.key_concurrency > 0

    @property
    def by_key(self) -> bool:
        """Whether a batch has operations of one key."""
        return self.batch_by_key or self.capped


@dataclass(frozen=True, slots=True)
class Limit:
    """A capacity per window of one dimension of cost; dimensions count from 1."""

    dimension: int
    capacity: int
    window_ms: int

    def with_capacity(self, capacity: int) -> Limit:
        """The same limit of another capacity."""
        return replace(self, capacity=capacity)


@dataclass(frozen=True, slots=True)
class ResourceOptions:
    """What the store must know of a resource, but for its capacity.

    Attributes:
        dimensions: the names of costs, in order; one of none is a plain number.
        ramp: by limit, how much more may be used every ``every_ms`` after a rise; () at once.
        adaptive: half the capacity after a throttling, and then ever more.
        factor: what a leased partition is worth; None: nothing is leased.
        reserved: what needs no lease.
        weight: of this batcher among those of the resource.
        floor: the part of the capacity that it gets before others, if it needs that much.
        backfill_floor: the same for its back-fills.
    """

    dimensions: tuple[str, ...] = ("",)
    ramp: tuple[int, ...] = ()
    every_ms: int = 1000
    adaptive: bool = False
    factor: int | None = None
    reserved: int | None = None
    weight: int = 1
    floor: float = 0.0
    backfill_floor: float = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the batches of one batcher.

    ``capacity`` and ``window_ms`` are the first limit of the resource, ``others`` the further ones,
    in the order of their dimensions.
    """

    capacity: int | None = None
    window_ms: int = 1000
    others: tuple[Limit, ...] = ()
    resource: ResourceOptions = field(default_factory=ResourceOptions)
    grace_ms: int = 10
    flush_ms: int = 100
    max_open_batches: int = 256
    max_concurrent_batches: int = 0
    claim_grace_ms: int = 1000
    outage_ms: int = 2500

    @property
    def limited(self) -> bool:
        """Whether there is a resource."""
        return self.capacity is not None

    @property
    def all(self) -> tuple[Limit, ...]:
        """The limits of the resource; none without one."""
        if self.capacity is None:
            return ()
        return Limit(1, self.capacity, self.window_ms), *self.others

    @property
    def hold_ms(self) -> int:
        """How long a hold of the first limit lasts after the claim."""
        return self.window_ms + self.grace_ms
