"""Metrics for Prometheus: what a scrape says, and what it does when stores are away."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state
from prometheus_client import CollectorRegistry, generate_latest

from celery_batcher import Batch, Batcher, ProvisionedResource, tasks
from celery_batcher.contrib import prometheus
from celery_batcher.contrib.families import FAMILIES, PREFIX, RESULTS
from celery_batcher.contrib.prometheus import BatcherCollector, exposition, install
from in_memory import InMemory
from scraping import scrape

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"\| `(celery_batcher_\w+)` \| (\w+) \| (.*?) \| (.*?) \|")


@pytest.fixture
def site() -> Iterator[InMemory]:
    site = InMemory()
    yield site
    site.close()


@pytest.fixture
def worked(site: InMemory) -> InMemory:
    """An app whose batcher has worked: one operation is done, one dead, one waits for its retry."""

    def handle(batch: Batch) -> None:
        batch.fail(batch[0], "no")
        batch.retry(batch[1], after=60)

    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(100))
    batcher.watcher(name="write", max_batch_size=3)(handle).enqueue_many([1, 2, 3], cost=4)
    site.clock.advance(2)
    site.tick(batcher, 2)
    return site


def test_a_scrape_says_what_was_done_and_what_is(worked: InMemory) -> None:
    value = scrape(worked.app)

    of = {"batcher": "b", "watcher": "write"}
    assert value("up", batcher="b") == 1
    assert value("operations_enqueued_total", **of) == 3
    settled = {
        outcome: value("operations_settled_total", outcome=outcome, **of)
        for outcome in ("done", "retried", "halved", "given_back", "dead")
    }
    assert settled == {"done": 1, "retried": 1, "halved": 0, "given_back": 0, "dead": 1}
    assert value("cost_released_total", **of) == 12
    assert value("batches_total", trigger="size", **of) == 1
    assert value("batches_total", **of) == 1
    assert value("flushes_total", result="empty", batcher="b") == 2
    assert value("batch_size_operations_bucket", le="2.0", **of) == 0
    assert value("batch_size_operations_bucket", le="5.0", **of) == 1
    assert value("batch_size_operations_sum", **of) == 3
    assert value("operation_wait_seconds_sum", **of) == 2
    assert value("batch_duration_seconds_count", **of) == 1
    assert value("operations_delayed", **of) == 1
    assert value("operations_waiting", **of) == value("batches_in_flight", **of) == 0
    assert value("oldest_operation_age_seconds", **of) == 0
    assert value("dead_operations", **of) == 1
    assert value("capacity", batcher="b", dimension="", window="") == 100
    assert value("capacity_usable", batcher="b") == 100
    assert value("capacity_held", batcher="b") == 12
    assert value("last_flush_timestamp_seconds", batcher="b") == worked.clock.now_ms() / 1000 - 0.1
    assert value("paused", batcher="b") == 0


def test_what_waits_has_a_cost_and_an_age(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(10))
    batcher.watcher(name="write")(lambda batch: None).enqueue_many([1, 2, 3], cost=10)
    batcher.tick()
    site.clock.advance(3)
    batcher.pause(None)

    value = scrape(site.app)

    assert (value("operations_waiting"), value("cost_waiting")) == (2, 20)
    assert value("oldest_operation_age_seconds", watcher="write") == 3
    assert (value("batches_in_flight"), value("batches_running")) == (1, 0)
    assert (value("paused"), value("draining")) == (1, 0)


def test_limits_of_a_capacity_with_several_have_labels(site: InMemory) -> None:
    several = {
        "dimensions": ProvisionedResource({"requests": 500, "tokens": 9000}),
        "windows": ProvisionedResource((100, 250), window=(1.0, 5.0)),
    }
    for name, resource in several.items():
        site.batcher(name, rate_limiter=resource)._duties.configure()

    value = scrape(site.app)

    assert value("capacity", batcher="dimensions", dimension="requests", window="1") == 500
    assert value("capacity", batcher="dimensions", dimension="tokens", window="1") == 9000
    assert value("capacity_usable", batcher="windows", dimension="", window="5") == 250


def test_without_a_resource_there_is_no_capacity(site: InMemory) -> None:
    site.batcher()
    body, _ = exposition(site.app)

    assert b"celery_batcher_capacity{" not in body
    assert b"celery_batcher_last_flush_timestamp_seconds{" not in body
    assert b'celery_batcher_up{batcher="b"} 1.0' in body


def test_every_result_of_flushes_is_there_from_the_start(site: InMemory) -> None:
    site.batcher()
    value = scrape(site.app)

    assert [value("flushes_total", result=result) for result in RESULTS] == [0] * len(RESULTS)


def test_labels_are_escaped(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    state = batcher.store._state  # type: ignore[attr-defined]
    hostile = 'a"b\\c\n} 1'
    state.watcher(hostile)  # no watcher of ours has such a name, but a store may

    assert scrape(site.app)("operations_waiting", watcher=hostile) == 0


def test_a_batcher_without_an_app_is_that_of_the_app_that_is_scraped(
    worked: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state: Any = _state
    monkeypatch.setattr(tasks, "_of_any_app", {})
    monkeypatch.setattr(state, "_on_app_finalizers", set(state._on_app_finalizers))
    other, batcher = InMemory(), Batcher("anyone")
    monkeypatch.setattr(state._tls, "current_app", worked.app)
    batcher.pause(None)

    monkeypatch.setattr(state._tls, "current_app", None)

    assert scrape(worked.app)("paused", batcher="anyone") == 1
    assert scrape(other.app)("paused", batcher="anyone") == 0
    other.close()


# Stores that are away


class Away:
    """A store that raises, or never answers."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self._act()


def put_away(site: InMemory, name: str, act: Callable[[], Any]) -> Any:
    """A batcher whose store is away; returns what brings it back."""
    batcher = site.batcher(name)
    real = batcher.connections
    batcher._connections = type(real)(site.app, name, Away(act), real.publisher)  # type: ignore[arg-type]

    def back() -> None:
        batcher._connections = real

    return back


def test_a_store_that_refuses_is_down_and_the_others_are_read(
    worked: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise ConnectionError("refused")

    back = put_away(worked, "away", refuse)
    for _ in range(2):
        value = scrape(worked.app)
        assert (value("up", batcher="away"), value("up", batcher="b")) == (0, 1)
        assert value("operations_enqueued_total") == 3
    assert caplog.text.count("away: its metrics cannot be read: refused") == 1

    back()

    assert scrape(worked.app)("up", batcher="away") == 1


def test_a_scrape_does_not_wait_for_a_store_that_does_not_answer(
    worked: InMemory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "TIMEOUT", 0.2)
    answered, asked = threading.Event(), []

    def hang() -> None:
        asked.append(1)
        answered.wait(30)
        raise ConnectionError("at last")

    put_away(worked, "away", hang)
    for _ in range(3):
        value = scrape(worked.app)
        assert (value("up", batcher="away"), value("up", batcher="b")) == (0, 1)
    assert len(asked) == 1  # further scrapes do not pile up
    assert "away: its metrics cannot be read: the store did not answer within 0.2 s" in caplog.text

    answered.set()


def test_modules_of_tasks_that_cannot_be_imported_are_logged(
    worked: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    worked.app.conf.imports = ("no.such.module",)

    assert scrape(worked.app)("up", batcher="b") == 1

    assert "modules of tasks cannot be imported" in caplog.text


# Registries


def test_install_adds_each_app_once_to_a_registry(worked: InMemory) -> None:
    registry, other = CollectorRegistry(auto_describe=True), InMemory()
    other.batcher("second")

    assert install(worked.app, registry) is install(worked.app, registry)
    install(other.app, registry)

    body = generate_latest(registry).decode()
    assert body.count("# TYPE celery_batcher_up gauge") == 1
    assert re.findall(r'^celery_batcher_up\{batcher="(\w+)"', body, re.MULTILINE) == ["b", "second"]
    other.close()


def test_a_registry_learns_the_names_without_a_look_at_stores() -> None:
    registry = CollectorRegistry(auto_describe=True)
    app = Celery("none", broker="memory://", set_as_current=False)
    app.loader.import_default_modules = lambda: pytest.fail("it was read")
    registry.register(BatcherCollector(app))

    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(BatcherCollector(app))
    app.close()


# The documentation


def documented() -> list[tuple[str, str, str]]:
    return [row[:3] for row in ROW.findall(DOCS.read_text())]


def test_the_table_of_the_documentation_is_what_a_scrape_has(worked: InMemory) -> None:
    collected = {
        sample.name: (family.type, sample.labels)
        for family in BatcherCollector(worked.app).collect()
        for sample in family.samples
    }
    expected = []
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in ("batcher", *family.labels))
        expected.append((f"{PREFIX}{family.name}", family.kind, labels))
        name = f"{PREFIX}{family.name}" + "_bucket" * (family.kind == "histogram")
        kind, found = collected[name]
        assert (kind, set(found) - {"le"}) == (family.kind, {"batcher", *family.labels})

    assert documented() == [(f"{PREFIX}up", "gauge", "`batcher`"), *expected]


def test_the_documentation_has_the_meanings() -> None:
    meanings = {name: meaning for name, _, _, meaning in ROW.findall(DOCS.read_text())}

    assert meanings == {
        f"{PREFIX}up": prometheus._UP,
        **{f"{PREFIX}{family.name}": family.meaning for family in FAMILIES},
    }
