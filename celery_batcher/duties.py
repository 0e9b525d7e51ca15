"""What a turn does for its batcher: when, and with what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from celery.utils import uuid

from . import beat, tasks
from .announcing import Announcer
from .audit import Auditor
from .checks import Checker
from .clock import Clock
from .config import milliseconds
from .errors import ConfigurationError
from .events import Listeners, logger
from .flusher import Flusher
from .limiter import Limiter
from .resources.base import Resource
from .results import results_for
from .store.base import Released, Standing, Store, TakenBack
from .store.options import Limit, Limits

if TYPE_CHECKING:
    from .batcher import Batcher

_AUDIT_STEP = 500
_LONGEST_PUBLISH = 60.0
_RENAME = "Windows change with the name: give the resource another one"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a turn does what, in seconds; and how much the index may hold."""

    flush_interval: float
    capacity_interval: float
    audit_interval: float
    beat_interval: float
    intake_limit: int

    def tick_after(self, now: float) -> float:
        """The next multiple of the flush interval; one just reached counts as over."""
        return (math.floor(now / self.flush_interval + 1e-6) + 1) * self.flush_interval

    @property
    def lasts_ms(self) -> int:
        """How long the turn lasts when its holder falls silent."""
        return int(self.beat_interval * 1000)


class Duties:
    """What a turn does for its batcher, in whatever process it is held."""

    def __init__(
        self, batcher: Batcher, listeners: Listeners, announcer: Announcer, checker: Checker
    ) -> None:
        self._batcher = batcher
        self._listeners = listeners
        self._announcer = announcer
        self._checker = checker
        self.limiter = Limiter(batcher, listeners)
        self.auditor = Auditor(
            batcher.name,
            store=lambda: batcher.store,
            clock=batcher.clock,
            listeners=listeners,
            every_ms=lambda: milliseconds(batcher.option("audit_interval")),
        )

    @property
    def store(self) -> Store:
        return self._batcher.store

    @property
    def clock(self) -> Clock:
        return self._batcher.clock

    def watchers(self) -> tuple[str, ...]:
        return tuple(self._batcher.watchers)

    def limits(self) -> Limits:
        """What bounds the batches, in the units of the store."""
        resource, option = self._batcher.rate_limiter, self._batcher.option
        limits = Limits() if resource is None else _limits_of(resource)
        shares = replace(
            limits.resource,
            weight=option("weight"),
            floor=option("floor"),
            backfill_floor=option("backfill_floor"),
        )
        return replace(
            limits,
            resource=shares,
            grace_ms=milliseconds(option("start_grace")),
            flush_ms=milliseconds(self._flush_interval()),
            max_open_batches=option("max_open_batches"),
            max_concurrent_batches=option("max_concurrent_batches") or 0,
            claim_grace_ms=milliseconds(option("claim_grace")),
            outage_ms=beat.wanted_ms(option("beat_interval")),
        )

    def _flush_interval(self) -> float:
        """Seconds between flushes: in tick mode, between beats."""
        tick = self._batcher.option("flush_mode") == "tick"
        return float(self._batcher.option("beat_interval" if tick else "flush_interval"))

    def rhythm(self) -> Rhythm:
        option = self._batcher.option
        return Rhythm(
            flush_interval=self._flush_interval(),
            capacity_interval=option("capacity_interval"),
            audit_interval=option("audit_interval"),
            beat_interval=option("beat_interval"),
            intake_limit=option("intake_limit") or option("buffer_size"),
        )

    def configure(self) -> None:
        """Tell the store what the code says of watchers and capacity."""
        limits = self.limits()
        options = [watcher.store_options() for watcher in self._batcher.watchers.values()]
        standing = self.store.configure(limits, options)
        if standing is not None and limits.limited:
            self._compare_dimensions(standing, limits)
            self._compare(standing, limits)
            self._listeners.emit("capacity", standing.limits[0].capacity)
        self._checker.log_once()

    def check_shape(self) -> None:
        """Whether the resource has as many limits in the store as in the code, and the same.

        Raises:
            ConfigurationError: it has other dimensions or windows: figures would be mixed up.
        """
        limits = self.limits()
        standing = self.store.configure(limits, [])
        if standing is None:
            return
        self._compare_dimensions(standing, limits)
        if not _same_windows(standing, limits):
            raise ConfigurationError(
                f"the capacity of resource {self._batcher.resource_name} is "
                f"{_figures(standing.limits)} in the store and {_figures(limits.all)} in the code: "
                f"figures would be mixed up. {_RENAME}"
            )

    def _compare_dimensions(self, standing: Standing, limits: Limits) -> None:
        """Whether costs have the dimensions in the store that they have in the code.

        Raises:
            ConfigurationError: they have not.
        """
        if standing.dimensions != limits.resource.dimensions:
            raise ConfigurationError(
                f"resource {self._batcher.resource_name} has the dimensions "
                f"{_names(standing.dimensions)} in the store and "
                f"{_names(limits.resource.dimensions)} in the code: costs would be mixed up. "
                "Name them alike and in that order, or give the resource another name"
            )

    def _compare(self, standing: Standing, limits: Limits) -> None:
        """Warn if the store has other figures than the code: the store's count."""
        if standing.limits == limits.all:
            return
        advice = "set_capacity() changes it for the fleet"
        logger.warning(
            "%s: the capacity of resource %s is %s in the store and %s in the code: that of "
            "the store counts. %s",
            self._batcher.name,
            self._batcher.resource_name,
            _figures(standing.limits),
            _figures(limits.all),
            advice if _same_windows(standing, limits) else _RENAME,
        )

    def flusher(self, token: str) -> Flusher:
        """The flusher of the turn that has this token."""
        return Flusher(
            token=token,
            store=self.store,
            intake=self._batcher.connections.intake(),
            publish=self.publish,
            on_taken_back=self.on_taken_back,
            new_batch_id=uuid,
            listeners=self._listeners,
            announcer=self._announcer,
            clock=self.clock,
        )

    def publish(self, batches: Sequence[Released]) -> list[str]:
        """Send the tasks of batches; return the ids of those that the broker has."""
        return tasks.publish_batches(self._batcher.app, self._batcher.watchers, batches)

    def on_taken_back(self, taken: TakenBack, reason: str) -> None:
        """Tell what died; store its results, if its watcher keeps them and is known here."""
        self._announcer.dead(taken.watcher, taken.id, [(one, reason) for one in taken.died])
        results = results_for(self._batcher.app, self._batcher.watchers.get(taken.watcher))
        if results is not None:
            results.store_died(taken.died, reason)

    def limit(self) -> None:
        """One step of the limiter."""
        self.limiter.step_apart()

    def audit(self) -> None:
        """Forget what needs no remembering, void what never came, and walk the audit."""
        name, option = self._batcher.name, self._batcher.option
        self._checker.watch_clock()
        self.store.forget([])
        patience = milliseconds(max(_LONGEST_PUBLISH, 2 * option("enqueue_timeout")))
        void = self.store.void(patience, _AUDIT_STEP)
        if void:
            logger.warning("%s: %d admissions were void, their messages never came", name, void)
        oldest = self.clock.now_ms() - milliseconds(option("dead_letter_retention"))
        retired = self.store.retire(oldest, _AUDIT_STEP)
        if retired:
            logger.warning("%s: %d dead letters were too old and are gone", name, retired)
        self.auditor.walk()

    def on_error(self, exc: Exception) -> None:
        self._listeners.emit("error", 1, str(exc))


def _limits_of(resource: Resource) -> Limits:
    first, *others = resource.limits()
    return Limits(
        capacity=first.capacity,
        window_ms=first.window_ms,
        others=tuple(others),
        resource=resource.options(),
    )


def _names(dimensions: tuple[str, ...]) -> str:
    return ", ".join(dimensions) or "of plain numbers"


def _same_windows(standing: Standing, limits: Limits) -> bool:
    """Whether both have the same limits, but for their capacities."""
    return [one.with_capacity(0) for one in standing.limits] == [
        one.with_capacity(0) for one in limits.all
    ]


def _figures(limits: Sequence[Limit]) -> str:
    return ", ".join(f"{one.capacity} per {one.window_ms / 1000:g} s" for one in limits)
