"""A fixed capacity, shared by every process that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..config import check_name, milliseconds, seconds
from ..costs import MAX_COST, PLAIN, Cost, named
from ..errors import ConfigurationError
from ..store.base import Limit, ResourceOptions
from .base import checked_capacity

if TYPE_CHECKING:
    from ..batcher import Batcher

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
            and fairness count.
        name: the resource's name in the store; by default that of the batcher that uses it.
        window: seconds; in the shape of the capacity, or one for all.
        adaptive: after a `Throttled` go on with half of the capacity, and come back to all of it by
            a twentieth a second.
        ramp: ``(step, every)``: of a raised capacity, use so much more every so many seconds, for
            stores that scale up slowly. The step has the shape of the capacity, or is one for all.

    Raises:
        ConfigurationError: a capacity, window, or step that is none, or of another shape.

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
        self._adaptive = adaptive
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
        """A batcher uses it: through its store the capacity can be changed for the fleet."""
        self._batcher = batcher

    def set_capacity(self, capacity: Figures) -> None:
        """Change the capacity for the whole fleet, from the next release and claim on.

        The store remembers it: it outlives processes and deployments, and beats what the code says.
        A lowered capacity binds batches that are released already: no window that begins after
        the change has more. What an operation may cost at most does not change.

        Args:
            capacity: in the shape of the one in the code.

        Raises:
            ConfigurationError: it is none, of another shape, or no batcher uses the resource.
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
    return ConfigurationError(f"{what} {figures!r} has not the shape of the capacity {shape!r}")


def _limits(capacity: Any, window: Any) -> tuple[Limit, ...]:
    by_dimension = capacity if isinstance(capacity, Mapping) else {"": capacity}
    if not by_dimension or not all(isinstance(name, str) for name in by_dimension):
        raise ConfigurationError(f"capacity {capacity!r}: names of dimensions and their capacities")
    if isinstance(window, Mapping) and set(window) != set(by_dimension):
        raise ConfigurationError(
            f"window={window!r} and capacity {capacity!r} have different dimensions"
        )
    limits: list[Limit] = []
    for dimension, (name, figures) in enumerate(by_dimension.items(), 1):
        of_dimension = window[name] if isinstance(window, Mapping) else window
        capacities, windows = _several(figures), _several(of_dimension)
        if len(windows) == 1:
            windows *= len(capacities)
        if not capacities or len(capacities) != len(windows):
            raise ConfigurationError(
                f"window={window!r} has not the shape of the capacity {capacity!r}"
            )
        limits += [
            Limit(dimension, checked_capacity(one, "capacity"), _window_ms(seconds_))
            for one, seconds_ in zip(capacities, windows, strict=True)
        ]
    return tuple(limits)


def _window_ms(window: Any) -> int:
    try:
        return milliseconds(seconds(window))
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"window={window!r}, but it is seconds above 0") from exc
