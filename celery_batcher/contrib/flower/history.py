"""The last minutes of every batcher, sampled by Flower's process."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from celery import Celery

from ...batcher import Batcher
from ...errors import BatcherError
from ...metrics import Meters, RecentBatch
from ...status import Status
from ...tasks import batchers

logger = logging.getLogger("celery_batcher")

INTERVAL = 1.0
MINUTES = 10
BATCHES = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """A point of the plots; after ``at`` (seconds since 1970) all is None when nothing answered.

    Attributes:
        waiting: operations that are not released, those in lanes and the delayed included.
        limits: of each limit what it is, what of it may be used now, and what is held.
        spent: cost released per second since the sample before.
        batch_size: mean number of operations of the batches released since the sample before.
    """

    at: float
    waiting: int | None = None
    limits: tuple[tuple[int, int, int], ...] = ()
    spent: float | None = None
    batch_size: float | None = None


class History:
    """What is known of one batcher: its newest figures, and samples of the last minutes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=int(MINUTES * 60 / INTERVAL))
        self._totals: tuple[float, int, int, float] | None = None
        self._asked = time.monotonic()
        self.status: Status | None = None
        self.meters: Meters | None = None
        self.batches: Sequence[RecentBatch] = ()
        self.answered_at: float | None = None
        self.error = ""

    def ask(self, batcher: Batcher) -> None:
        """Ask the store, and keep what it says."""
        try:
            status, meters = batcher.status(), batcher.meters()
            batches = batcher.recent_batches(BATCHES)
        except BatcherError as exc:
            self._failed(str(exc))
        except Exception as exc:
            error = f"{type(exc).__name__}: {exc}"
            if error != self.error:
                logger.warning("%s: no figures for Flower", batcher.name, exc_info=exc)
            self._failed(error)
        else:
            self._answered(status, meters, batches)

    def samples(self, after: float) -> list[Sample]:
        """The samples after a time."""
        with self._lock:
            return [one for one in self._samples if one.at > after]

    @property
    def silent_for(self) -> float:
        """Seconds since the store answered, or since it was first asked."""
        return time.monotonic() - self._asked

    def _failed(self, error: str) -> None:
        with self._lock:
            self.error = error
            self._totals = None
            self._samples.append(Sample(time.time()))

    def _answered(self, status: Status, meters: Meters, batches: Sequence[RecentBatch]) -> None:
        totals = _totals(meters)
        before = self._totals or totals
        seconds, cost, count, size = (now - then for now, then in zip(totals, before, strict=True))
        sample = Sample(
            at=time.time(),
            waiting=status.admitted + status.waiting + status.delayed,
            limits=tuple((one.capacity, one.usable, one.held) for one in status.limits),
            spent=max(0.0, cost / seconds) if seconds else None,
            batch_size=size / count if count > 0 else None,
        )
        with self._lock:
            self._samples.append(sample)
            self._totals = totals
            self._asked = time.monotonic()
            self.status, self.meters, self.batches = status, meters, batches
            self.answered_at, self.error = sample.at, ""


def _totals(meters: Meters) -> tuple[float, int, int, float]:
    """Now, and since ever: the cost released, batches, and their operations."""
    rows = meters.watchers
    return (
        time.monotonic(),
        sum(one.cost_released for one in rows),
        sum(one.batch_size.count for one in rows),
        sum(one.batch_size.sum for one in rows),
    )


class Sampler:
    """Asks for the figures of all batchers of an app, every second, in a thread of its own.

    Pages are answered from what it has: a store that does not answer keeps nobody waiting but it.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._histories: dict[str, History] = {}

    def start(self) -> None:
        """Begin, until the process ends."""
        threading.Thread(target=self._run, name="celery_batcher:flower", daemon=True).start()

    def history(self, name: str) -> History:
        """What is known of a batcher."""
        return self._histories.setdefault(name, History())

    def _run(self) -> None:
        tick = threading.Event()
        while not tick.wait(INTERVAL):
            for batcher in batchers(self.app):
                self.history(batcher.name).ask(batcher)
