"""A fixed capacity, shared by every process that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..config import check_name, flag, milliseconds, seconds
from ..costs import MAX_COST, PLAIN, Cost, named
from ..errors import ConfigurationError
from ..store.options import Limit, ResourceOptions
from .base import check_sharing, checked_capacity

if TYPE_CHECKING:
    from ..batcher import Batcher

MAX_LIMITS = 32
"""Limits of a resource: each release and claim checks all of them."""
MAX_WINDOW_MS = 366 * 24 * 60 * 60 * 1000

Figures = int | Sequence[int] | Mapping[str, int | Sequence[int]]
"""A number, or one for each window; or a mapping of these by dimension."""
Windows = (
    float
    | timedelta
    | Sequence[float | timedelta]
    | Mapping[str, float | timedelta | Sequence[float | timedelta]]
)


class ProvisionedResource:
    """A capacity per window that a datastore or an API was provisioned with.

    In every window, measured where handlers start, the cost of started operations is at most the
    capacity: over all processes, workers and batchers that name the resource on one store.

    Args:
        capacity: cost per window, an integer from 0 to 2**53 - 1. With 0 only operations of cost
            0 run. Several, for as many windows: ``(10, 1_000)``. By dimension, where costs have
            them: ``{"requests": 500, "tokens": 90_000}``; the first one is what `needs_capacity`
            and fairness count. At most 32 limits in all.
        name: the resource's name in the store; by default that of the batcher that uses it.
        window: seconds, up to 366 days; in the shape of the capacity, or one for all dimensions. A
            dimension has each window once.
        adaptive: after a `Throttled` go on with half of the capacity, and come back to all of it by
            a twentieth a second.
        ramp: ``(step, every)``: of a raised capacity, use so much more every so many seconds, for
            stores that scale up slowly. The step has the shape of the capacity, or is one for all.

    Raises:
        ConfigurationError: a capacity, window, or step that is none, or of another shape.
        InvalidNameError: a name of the resource or of a dimension that a key could not carry.

    Example::

        Batcher("cosmos", app=app, rate_limiter=ProvisionedResource(20_000))
        ProvisionedResource((10, 1_000), window=(1.0, 60.0))
        ProvisionedResource({"requests": 500, "tokens": 90_000}, window=60.0)

    Its weakness: it counts costs that producers state. An operation that costs more than was said
    takes capacity from others that nobody sees, until its handler says so (`Batch.charge`).
    """

    def __init__(
        self,
        capacity: Figures,
        *,
        name: str | None = None,
        window: Windows = 1.0,
        adaptive: bool = False,
        ramp: tuple[Figures, float | timedelta] | None = None,
    ) -> None:
        self.name = None if name is None else check_name(name, "resource")
        self.window = window
        self._capacity = capacity
        self._adaptive = _flag("adaptive", adaptive)
        self._limits = _limits(capacity, window)
        self.dimensions = tuple(capacity) if isinstance(capacity, Mapping) else PLAIN
        self._ramp, self._every_ms = self._read_ramp(ramp)
        self._batcher: Batcher | None = None

    def __repr__(self) -> str:
        return f"ProvisionedResource({self._capacity}, name={self.name!r}, window={self.window})"

    def capacity(self) -> Figures:
        """The capacity per window, as the code has it."""
        return self._capacity

    def max_capacity(self) -> Cost:
        """The most that an operation may cost: the capacity as the code has it."""
        most = [MAX_COST] * len(self.dimensions)
        for limit in self._limits:
            most[limit.dimension - 1] = min(most[limit.dimension - 1], limit.capacity)
        return named(tuple(most), self.dimensions)

    def limits(self) -> tuple[Limit, ...]:
        """Its limits, in the order of their dimensions."""
        return self._limits

    def options(self) -> ResourceOptions:
        """What else the store must know."""
        return ResourceOptions(
            dimensions=self.dimensions,
            ramp=self._ramp,
            every_ms=self._every_ms,
            adaptive=self._adaptive,
        )

    def bind(self, batcher: Batcher) -> None:
        """A batcher uses it: through its store the capacity can be changed for the fleet.

        Raises:
            ConfigurationError: another one does, and without a name they would not share it.
        """
        check_sharing(self, self._batcher, batcher)
        self._batcher = batcher

    def set_capacity(self, capacity: Figures) -> None:
        """Change the capacity for the whole fleet, from the next release and claim on.

        The store remembers it: it outlives processes and deployments, and beats what the code says.
        A lowered capacity binds batches that are released already: no window that begins after
        the change has more. What an operation may cost at most does not change.

        Args:
            capacity: in the shape of the one in the code.

        Raises:
            ConfigurationError: it is none, of another shape than that in the code or in the store,
                or no batcher uses the resource.
            StoreUnavailableError: the store does not answer; nothing was changed.
        """
        batcher = self._batcher
        if batcher is None:
            raise ConfigurationError(
                f"{self!r} is used by no batcher: set_capacity writes to the batcher's store"
            )
        figures = self._in_shape("capacity", capacity)
        batcher.set_capacities([checked_capacity(one, "capacity") for one in figures])

    def _in_shape(self, what: str, figures: Any) -> list[Any]:
        """Figures by limit, given in the shape of the capacity."""
        shape = self._capacity
        if isinstance(shape, Mapping) != isinstance(figures, Mapping) or (
            isinstance(shape, Mapping) and set(shape) != set(figures)
        ):
            raise _shapeless(what, figures, shape)
        pairs = (
            [(shape[name], figures[name]) for name in shape]
            if isinstance(shape, Mapping)
            else [(shape, figures)]
        )
        given: list[Any] = []
        for figure, one in pairs:
            if len(_several(figure)) != len(_several(one)):
                raise _shapeless(what, figures, shape)
            given += _several(one)
        return given

    def _read_ramp(self, ramp: Any) -> tuple[tuple[int, ...], int]:
        if ramp is None:
            return (), 1000
        try:
            step, every = ramp
            every_ms = milliseconds(seconds(every))
        except (TypeError, ValueError) as exc:
            raise ConfigurationError(
                f"ramp={ramp!r}, but it is (step, every): cost, and seconds above 0"
            ) from exc
        if isinstance(step, int):
            steps = [step] * len(self._limits)
        else:
            steps = self._in_shape("the ramp's step", step)
        checked = tuple(checked_capacity(one, "the ramp's step") for one in steps)
        if not all(checked):
            raise ConfigurationError(f"ramp={ramp!r}: with a step of 0 nothing ever rises")
        return checked, every_ms


def _several(figure: Any) -> list[Any]:
    """One figure, or one for each window."""
    if isinstance(figure, Sequence) and not isinstance(figure, str | bytes):
        return list(figure)
    return [figure]


def _shapeless(what: str, figures: object, shape: object) -> ConfigurationError:
    return ConfigurationError(
        f"{what} {figures!r} has not the shape of the capacity {shape!r}: give as many figures, by "
        "the same names"
    )


def _limits(capacity: Any, window: Any) -> tuple[Limit, ...]:
    by_dimension = _by_dimension(capacity)
    if isinstance(window, Mapping) and set(window) != set(by_dimension):
        raise ConfigurationError(
            f"window={window!r} and capacity {capacity!r} have different dimensions: name a window "
            "for each dimension of the capacity, or give one for all"
        )
    limits: list[Limit] = []
    for dimension, (name, figures) in enumerate(by_dimension.items(), 1):
        capacities = [checked_capacity(one) for one in _several(figures)]
        windows = _several(window[name] if isinstance(window, Mapping) else window)
        if not capacities or len(capacities) != len(windows):
            raise ConfigurationError(
                f"window={window!r} has not the shape of the capacity {capacity!r}: "
                "one window for each figure, such as (10, 1_000) with window=(1.0, 60.0)"
            )
        of_dimension = [_window_ms(one) for one in windows]
        if len(set(of_dimension)) < len(of_dimension):
            raise ConfigurationError(
                f"window={window!r} has the same window twice: of two capacities only the smaller "
                "one would count, so leave the other out"
            )
        pairs = zip(capacities, of_dimension, strict=True)
        limits += [Limit(dimension, one, window_ms) for one, window_ms in pairs]
    if len(limits) > MAX_LIMITS:
        raise ConfigurationError(
            f"capacity {capacity!r} has {len(limits)} limits, and a resource has at most "
            f"{MAX_LIMITS}: each release checks all of them"
        )
    return tuple(limits)


def _by_dimension(capacity: Any) -> Mapping[str, Any]:
    if not isinstance(capacity, Mapping):
        return {"": capacity}
    if not capacity:
        raise ConfigurationError(
            "capacity {} has no dimensions: name one at least, or give a number"
        )
    return {check_name(name, "dimension"): figures for name, figures in capacity.items()}


def _window_ms(window: Any) -> int:
    try:
        window_ms = milliseconds(seconds(window))
        if window_ms > MAX_WINDOW_MS:
            raise ValueError
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"window={window!r}, but it is seconds above 0, up to 366 days"
        ) from exc
    return window_ms


def _flag(name: str, value: object) -> bool:
    try:
        return flag(value)
    except ValueError as exc:
        raise ConfigurationError(f"{name}={value!r}, but it is True or False") from exc
