"""Prometheus: the numbers of all batchers of an app, read from their stores at each scrape.

    from celery_batcher.contrib.prometheus import install

    install(app)  # and whatever exports prometheus_client's registry has them

Counters live in the stores and are the fleet's: scrape one process, whichever. No process counts
anything itself, so prefork needs no multiprocess mode. See docs/metrics.md.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from celery import Celery

from ..metrics import Histogram
from ..tasks import batchers
from .families import FAMILIES, PREFIX, Family, Reading

try:
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as exc:  # pragma: no cover
    raise ImportError(
        'prometheus_client is not installed: pip install "celery-batcher[metrics]"'
    ) from exc

if TYPE_CHECKING:
    from ..batcher import Batcher

logger = logging.getLogger("celery_batcher")

_KINDS: dict[str, Callable[..., Metric]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}
TIMEOUT = 2.0
"""Seconds that a scrape waits for the stores of all batchers together."""
_UP = "1 when the batcher's store answered, else 0: then its other metrics are missing."


class BatcherCollector(Collector):
    """All batchers of an app, as metrics.

    A scrape never fails and takes two seconds at most: a batcher whose store does not answer in
    time has ``celery_batcher_up`` 0 and nothing else, and the log says so when that begins and
    when it ends.

    Args:
        app: or several, by `add`. Of batchers with the same name the first counts.
    """

    def __init__(self, app: Celery) -> None:
        self._apps: WeakSet[Celery] = WeakSet()
        self._loaded: WeakSet[Celery] = WeakSet()
        self._readers: dict[str, _Reader] = {}
        self._lock = threading.Lock()
        self.add(app)

    def add(self, app: Celery) -> None:
        """Show the batchers of this app, too."""
        self._apps.add(app)

    def describe(self) -> Iterator[Metric]:
        """The metrics without values; nothing is read."""
        yield GaugeMetricFamily(f"{PREFIX}up", _UP, labels=["batcher"])
        for family in FAMILIES:
            yield _metric(family)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        with self._lock:
            readings = self._read()
        up = GaugeMetricFamily(f"{PREFIX}up", _UP, labels=["batcher"])
        for name, reading in readings.items():
            up.add_metric([name], float(reading is not None))
        yield up
        for family in FAMILIES:
            metric = _metric(family)
            for name, reading in readings.items():
                if reading is not None:
                    _fill(metric, family, name, reading)
            yield metric

    def _read(self) -> dict[str, Reading | None]:
        deadline = time.monotonic() + TIMEOUT
        found = self._batchers()
        for name, (app, batcher) in found.items():
            reader = self._readers.get(name)
            if reader is None or reader.batcher is not batcher:
                self._readers[name] = reader = _Reader(batcher)
            reader.begin(app)
        return {name: self._readers[name].end(deadline) for name in found}

    def _batchers(self) -> dict[str, tuple[Celery, Batcher]]:
        by_name: dict[str, tuple[Celery, Batcher]] = {}
        for app in list(self._apps):
            if app not in self._loaded:  # whoever scrapes has perhaps not imported the tasks
                self._loaded.add(app)
                _import_tasks(app)
            for batcher in batchers(app):
                by_name.setdefault(batcher.name, (app, batcher))
        return dict(sorted(by_name.items()))


def _import_tasks(app: Celery) -> None:
    try:
        app.loader.import_default_modules()
    except Exception:
        logger.exception("%s: its modules of tasks cannot be imported for its metrics", app.main)


class _Reader:
    """Reads a batcher in a thread, which nobody waits for longer than a scrape may take."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self._thread: threading.Thread | None = None
        self._found: Reading | Exception | None = None
        self._away = False

    def begin(self, app: Celery) -> None:
        """Start to read, unless an earlier read still waits for the store."""
        if self._thread is None or not self._thread.is_alive():
            self._found = None
            self._thread = threading.Thread(
                target=self._run,
                args=(app,),
                name=f"celery_batcher:metrics:{self.batcher.name}",
                daemon=True,
            )
            self._thread.start()

    def _run(self, app: Celery) -> None:
        app.set_current()  # of this thread: a batcher without an app of its own is of the current
        try:
            self._found = Reading(self.batcher.status(), self.batcher.meters())
        except Exception as exc:  # noqa: BLE001 - whatever it is, the scrape goes on without
            self._found = exc

    def end(self, deadline: float) -> Reading | None:
        """What was read; None when it failed, or takes too long."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        found, name = self._found, self.batcher.name
        if isinstance(found, Reading):
            if self._away:
                logger.info("%s: its metrics are back", name)
            self._away = False
            return found
        if not self._away:
            reason = found or f"the store did not answer within {TIMEOUT:g} s"
            logger.warning("%s: its metrics cannot be read: %s", name, reason)
        self._away = True
        return None


def _metric(family: Family) -> Metric:
    labels = ["batcher", *family.labels]
    return _KINDS[family.kind](f"{PREFIX}{family.name}", family.meaning, labels=labels)


def _fill(metric: Metric, family: Family, name: str, reading: Reading) -> None:
    for labels, value in family.samples(reading):
        values = [name, *labels]
        if isinstance(value, Histogram):
            bounds = map(floatToGoString, (*value.bounds, math.inf))
            buckets = list(zip(bounds, map(float, value.counts), strict=True))
            metric.add_metric(values, buckets, value.sum)  # type: ignore[attr-defined]
        else:
            metric.add_metric(values, value)  # type: ignore[attr-defined]


_installed: WeakKeyDictionary[CollectorRegistry, BatcherCollector] = WeakKeyDictionary()
_own: WeakKeyDictionary[Celery, CollectorRegistry] = WeakKeyDictionary()


def install(app: Celery, registry: CollectorRegistry = REGISTRY) -> BatcherCollector:
    """Add the batchers of an app to a registry, once.

    Returns:
        The collector of that registry, which every app that is added shares.
    """
    collector = _installed.get(registry)
    if collector is None:
        collector = _installed[registry] = BatcherCollector(app)
        registry.register(collector)
    collector.add(app)
    return collector


def exposition(app: Celery) -> tuple[bytes, str]:
    """The metrics of an app's batchers and nothing else, for a view: its body and content type."""
    registry = _own.get(app)
    if registry is None:
        registry = _own[app] = CollectorRegistry(auto_describe=False)
        registry.register(BatcherCollector(app))
    return generate_latest(registry), CONTENT_TYPE_LATEST
