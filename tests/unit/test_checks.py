"""Checks: what would lose, delay or repeat work is named, with a code that stays."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_batcher import Batcher, BrokerUnavailableError
from celery_batcher import checks as checking
from celery_batcher.checks import (
    ClockWatch,
    pool_problems,
    queue_problems,
    server_problems,
    timing_problems,
)
from celery_batcher.clock import ManualClock
from celery_batcher.store.counts import Facts
from in_memory import InMemory


@pytest.fixture
def site() -> Iterator[InMemory]:
    site = InMemory()
    yield site
    site.close()


def codes(problems: Any) -> list[str]:
    return [one.code.removeprefix("celery_batcher.") for one in problems]


def shop(url: str = "redis://", **conf: Any) -> Batcher:
    """A batcher on a broker that nobody connects to."""
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.update(conf)
    return Batcher("b", app=app)


@pytest.mark.parametrize(
    ("eviction", "append_only", "expected"),
    [
        ("noeviction", True, []),
        ("allkeys-lru", True, ["E001"]),
        ("allkeys-random", True, ["E001"]),
        ("volatile-lru", True, ["W002"]),
        ("noeviction", False, ["W001"]),
        ("allkeys-lfu", False, ["E001", "W001"]),
        (None, None, ["I001"]),
        (None, False, ["I001", "W001"]),
    ],
)
def test_a_server_that_may_lose_keys_is_named(
    eviction: str | None, append_only: bool | None, expected: list[str]
) -> None:
    found = list(server_problems("the store at x", Facts(0, eviction, append_only)))

    assert codes(found) == expected
    assert all(one.message.startswith("the store at x ") for one in found)


def test_a_level_follows_from_the_code() -> None:
    error, warning = server_problems("it", Facts(0, "allkeys-lru", False))

    assert (error.level, warning.level) == ("error", "warning")


@pytest.mark.parametrize(("step", "says"), [(-30_000, "back by 30.0 s"), (90_000, "forward by 90")])
def test_a_step_of_the_stores_clock_is_told_once_with_its_size(step: int, says: str) -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    watch.ask()
    assert list(watch.jumps(1_000)) == []

    clock.advance(10)
    watch.ask()
    (jump,) = watch.jumps(1_000 + 10_000 + step)
    clock.advance(10)
    watch.ask()

    assert codes([jump]) == ["W003"]
    assert says in jump.message
    assert list(watch.jumps(1_000 + 20_000 + step)) == []


def test_a_store_that_takes_long_to_answer_is_no_step_of_its_clock() -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    watch.ask()
    list(watch.jumps(clock.now_ms()))
    watch.ask()
    told = clock.now_ms()
    clock.advance(4.0)

    assert list(watch.problems(told)) == []


@pytest.mark.parametrize(("apart", "says"), [(6_000, "6.0 s behind"), (-7_000, "7.0 s ahead of")])
def test_clocks_that_differ_are_told_with_the_difference(apart: int, says: str) -> None:
    clock = ManualClock()
    watch = ClockWatch(clock)
    watch.ask()

    (problem,) = watch.problems(clock.now_ms() + apart)

    assert codes([problem]) == ["W004"]
    assert says in problem.message


TIMING: dict[str, tuple[str, dict[str, Any], float, list[str]]] = {
    "as it comes": ("redis://", {}, 60.0, []),
    "early acknowledgement": ("redis://", {}, 7200.0, []),
    "shorter than Redis waits": ("redis://", {"task_acks_late": True}, 3000.0, []),
    "longer than Redis waits": ("redis://", {"task_acks_late": True}, 3600.0, ["W005"]),
    "longer than it is told to wait": (
        "rediss://",
        {"task_acks_late": True, "broker_transport_options": {"visibility_timeout": 30}},
        60.0,
        ["W005"],
    ),
    "longer than SQS waits": ("sqs://", {"task_acks_late": True}, 1800.0, ["W005"]),
    "longer than RabbitMQ waits": ("amqp://", {"task_acks_late": True}, 1800.0, ["W006"]),
    "shorter than RabbitMQ waits": ("amqp://", {"task_acks_late": True}, 600.0, []),
    "no time to settle": ("redis://", {"batcher_claim_grace": 0.1}, 60.0, ["W007"]),
    "no time to shut down": ("redis://", {"worker_soft_shutdown_timeout": 10.0}, 60.0, ["I003"]),
    "time to shut down": ("redis://", {"worker_soft_shutdown_timeout": 90.0}, 60.0, []),
    "limits of all tasks": (
        "redis://",
        {"task_time_limit": 5, "task_soft_time_limit": 4},
        60.0,
        [],  # the tasks of batches carry their own
    ),
}


@pytest.mark.parametrize(("url", "conf", "time", "expected"), TIMING.values(), ids=TIMING)
def test_times_that_do_not_go_together_are_named(
    url: str, conf: dict[str, Any], time: float, expected: list[str]
) -> None:
    batcher = shop(url, **conf)
    batcher.watcher(name="long", max_operation_time=time)(lambda batch: None)
    batcher.watcher(name="short", max_operation_time=1.0)(lambda batch: None)

    found = list(timing_problems(batcher))

    assert codes(found) == expected
    assert all("long" in one.message for one in found if "W007" not in one.code)


def test_a_queue_that_nobody_consumes_is_named_and_a_lane_that_somebody_does() -> None:
    batcher = shop(batcher_control_queue="control")
    batcher.watcher(name="fast")(lambda batch: None)
    batcher.watcher(name="slow", queue="slow")(lambda batch: None)

    assert list(queue_problems(batcher, {"control", "celery", "slow"})) == []
    assert codes(queue_problems(batcher, set())) == ["W008", "W009", "W009"]
    (problem,) = queue_problems(batcher, {"control", "celery"})
    assert "'slow', the queue of slow" in problem.message
    (lane,) = queue_problems(batcher, {"control", "celery", "slow", "celery_batcher.b.fast"})
    assert (lane.level, codes([lane])) == ("error", ["E002"])


def test_the_control_queue_is_celerys_default_where_none_is_set() -> None:
    (problem,) = queue_problems(shop(task_default_queue="tasks"), {"celery"})

    assert "'tasks'" in problem.message


def test_a_pool_that_interrupts_no_handler_is_named_with_its_worker() -> None:
    stats: dict[str, Any] = {
        "b": {"pool": {"implementation": "celery.concurrency.thread:TaskPool"}},
        "a": {"pool": {"implementation": "celery.concurrency.prefork:TaskPool"}},
        "c": {},
    }

    (problem,) = pool_problems(stats)

    assert codes([problem]) == ["I002"]
    assert "worker b runs celery.concurrency.thread" in problem.message


def test_without_remote_control_it_is_unknown_who_consumes(site: InMemory) -> None:
    site.app.conf.worker_enable_remote_control = False

    (problem,) = site.batcher().check()

    assert (problem.level, codes([problem])) == ("info", ["I004"])


def test_where_no_worker_answers_nothing_is_consumed(site: InMemory) -> None:
    (problem,) = site.batcher().check(timeout=0.01)

    assert (problem.level, codes([problem])) == ("warning", ["W008"])


def test_a_broker_that_is_away_is_an_error_of_ours() -> None:
    batcher = shop("redis://127.0.0.1:1/0", batcher_store_url="memory://away")

    with pytest.raises(BrokerUnavailableError):
        batcher.check()


def test_the_first_turn_of_a_process_logs_what_is_wrong_once(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    site.app.conf.batcher_claim_grace = 0.1
    batcher = site.batcher(flush_mode="tick")

    for _ in range(3):
        batcher.tick()

    assert caplog.text.count("celery_batcher.W007") == 1
    assert [one.levelno for one in caplog.records if "W007" in one.message] == [logging.WARNING]


def test_a_check_that_fails_does_not_break_the_turn(
    site: InMemory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("of a check")

    monkeypatch.setattr(checking, "timing_problems", fail)
    batcher = site.batcher(flush_mode="tick")
    done: list[Any] = []
    batcher.watcher(name="work")(lambda batch: done.append(len(batch))).enqueue({})

    site.tick(batcher)

    assert done == [1]
    assert "b could not be checked" in caplog.text


def test_a_step_of_the_stores_clock_is_logged_by_the_audit(
    site: InMemory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = site.batcher()
    batcher.audit()
    stepped = site.clock.now_ms() - 60_000
    monkeypatch.setattr(type(batcher.store), "facts", lambda self: Facts(stepped))

    batcher.audit()

    assert "stepped back by 60.0 s" in caplog.text


def test_every_code_is_in_the_manual() -> None:
    source = Path(checking.__file__).read_text()
    manual = Path(__file__).parents[2] / "docs" / "production.md"

    assert sorted(set(re.findall(r'"([EWI]\d{3})"', source))) == sorted(
        set(re.findall(r"^\| `celery_batcher\.([EWI]\d{3})`", manual.read_text(), re.MULTILINE))
    )
