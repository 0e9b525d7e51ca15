"""Options: every wrong one is refused, with its name, its value and what is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from celery_batcher import Batcher, ConfigurationError, ProvisionedResource
from celery_batcher.config import BATCHER_OPTIONS, WATCHER_OPTIONS, milliseconds

SECONDS = [0, -1, math.nan, math.inf, "1", True, [], timedelta(0), timedelta(seconds=-1)]
COUNT = [0, -1, 1.0, "1", True, []]
WRONG: dict[str, list[Any]] = {
    "flush_interval": [*SECONDS, None],
    "capacity_interval": [*SECONDS, None],
    "audit_interval": [*SECONDS, None],
    "claim_grace": [*SECONDS, None],
    "pause_time": [*SECONDS, None],
    "max_operation_time": [*SECONDS, None],
    "start_grace": [-1, 0, 0.001, math.nan, "1", True, None],
    "beat_interval": [*SECONDS, 0.5, 1.5, None],
    "flush_mode": ["thread", "", None, 1, "TURN"],
    "buffer_size": [*COUNT, None],
    "intake_limit": COUNT,
    "error_on_full_buffer": [0, 1, "yes", None],
    "enqueue_timeout": [-1, math.nan, "1", True, None],
    "max_concurrent_batches": COUNT,
    "max_open_batches": [*COUNT, None],
    "emit_batch": [0, 1, "yes", None],
    "mask": [1, "payload", []],
    "send_events": [0, 1, "yes", None],
    "weight": [*COUNT, None],
    "floor": [-0.1, 1.1, math.nan, "1", True, None],
    "backfill_floor": [-0.1, 1.1, math.nan, "1", True, None],
    "dead_letter_retention": [*SECONDS, None],
}
WRONG_WATCHER: dict[str, list[Any]] = {
    "max_batch_size": [*COUNT, 1001, None],
    "max_attempts": [-1, 1.5, "3", True, None],
    "max_operation_time": SECONDS,
    "max_concurrent_batches": COUNT,
    "weight": [*COUNT, None],
    "batch_by_key": [0, 1, "yes", None],
    "key_capacity": [*COUNT, 2**53],
    "key_window": [*SECONDS, None],
    "key_concurrency": COUNT,
    "max_dead_letters": [*COUNT, None],
    "retry_backoff": [-1, 0, 1.5, "1", None],
    "retry_backoff_max": [*COUNT, None],
    "retry_jitter": [0, 1, "yes", None],
    "autoretry_for": [ValueError, [1], ["ValueError"], None],
    "dont_autoretry_for": [ValueError, [object], None],
    "bisect": [0, 1, "yes", None],
    "estimate": [0, 1, "yes", None],
    "cost_key": [1, "key", []],
}


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("config", broker="memory://config", set_as_current=False)
    yield app
    app.close()


def test_every_option_is_tested_here() -> None:
    assert set(WRONG) == set(BATCHER_OPTIONS)
    assert set(WRONG_WATCHER) == set(WATCHER_OPTIONS)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_of_a_batchers_option_is_refused_with_name_and_value(
    app: Celery, name: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Batcher("b", app=app, **{name: value})

    assert f"Batcher: {name}={value!r}, but it is {BATCHER_OPTIONS[name].wants}" == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG_WATCHER.items() for value in values],
)
def test_a_wrong_value_of_a_watchers_option_is_refused_with_name_and_value(
    app: Celery, name: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Batcher("b", app=app).watcher(**{name: value})

    assert f"{name}={value!r}" in str(caught.value)


@pytest.mark.parametrize("name", BATCHER_OPTIONS)
def test_every_default_is_a_value_that_the_option_takes(app: Celery, name: str) -> None:
    default = BATCHER_OPTIONS[name].default

    assert Batcher("b", app=app, **{name: default}).option(name) == default


def test_an_unknown_option_is_answered_with_the_nearest_known(app: Celery) -> None:
    with pytest.raises(
        ConfigurationError, match="'flush_intervall': did you mean 'flush_interval'"
    ):
        Batcher("b", app=app, flush_intervall=1)
    with pytest.raises(ConfigurationError, match="'max_attempt': did you mean 'max_attempts'"):
        Batcher("b", app=app).watcher(max_attempt=1)
    with pytest.raises(ConfigurationError, match=r"no option 'xyz'$"):
        Batcher("b", app=app, xyz=1)


def test_the_constructor_beats_the_setting_and_the_setting_the_default(app: Celery) -> None:
    app.conf.batcher_flush_interval = 0.5
    app.conf.batcher_buffer_size = 7

    batcher = Batcher("b", app=app, flush_interval=0.25)

    assert batcher.option("flush_interval") == 0.25
    assert batcher.option("buffer_size") == 7
    assert batcher.option("max_open_batches") == 256


def test_a_setting_is_read_when_it_is_used(app: Celery) -> None:
    batcher = Batcher("b", app=app)
    app.conf.batcher_pause_time = 3.0

    assert batcher.option("pause_time") == 3.0


def test_a_wrong_setting_is_refused_with_its_name_and_value(app: Celery) -> None:
    app.conf.batcher_flush_mode = "thread"

    with pytest.raises(ConfigurationError, match="settings: batcher_flush_mode='thread', but"):
        Batcher("b", app=app).option("flush_mode")


def test_times_may_be_timedeltas_and_milliseconds_are_rounded_up(app: Celery) -> None:
    batcher = Batcher("b", app=app, flush_interval=timedelta(milliseconds=250), start_grace=0.0101)

    assert batcher.limits().flush_ms == 250
    assert batcher.limits().grace_ms == 11
    assert milliseconds(0.0001) == 1


def test_limits_are_what_the_options_say(app: Celery) -> None:
    batcher = Batcher(
        "b",
        app=app,
        rate_limiter=ProvisionedResource(7, window=timedelta(minutes=1)),
        max_concurrent_batches=3,
        max_open_batches=2,
        claim_grace=2,
    )

    limits = batcher.limits()

    assert (limits.capacity, limits.window_ms, limits.hold_ms) == (7, 60_000, 60_010)
    assert (limits.max_concurrent_batches, limits.max_open_batches) == (3, 2)
    assert limits.claim_grace_ms == 2000


def test_a_rate_limiter_that_is_none_is_refused(app: Celery) -> None:
    with pytest.raises(ConfigurationError, match="rate_limiter=20000, but it is a resource"):
        Batcher("b", app=app, rate_limiter=20_000)  # type: ignore[arg-type]
