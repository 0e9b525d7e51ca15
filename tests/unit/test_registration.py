"""Batchers, watchers and their beat entries: what an app knows of them, and names used twice."""

from __future__ import annotations

import functools
import logging
from typing import Any

import pytest
from celery import Celery

from celery_batcher import Batcher, ConfigurationError, InvalidNameError, tasks
from in_memory import InMemory, collecting


def test_a_watcher_is_a_task_of_the_apps_own_class(site: InMemory) -> None:
    class Own(site.app.Task):  # type: ignore[name-defined, misc]
        pass

    site.app.Task = Own
    site.batcher().watcher(name="proj.write")(lambda batch: None)

    task = site.app.tasks["proj.write"]
    assert isinstance(task, Own)
    assert task.ignore_result is True


def test_a_watchers_name_is_the_functions_dotted_name(site: InMemory) -> None:
    def write_orders(batch: Any) -> None: ...

    write_orders.__module__ = "proj.batches"

    assert site.batcher().watcher()(write_orders).name == "proj.batches.write_orders"


def test_a_function_without_a_name_must_be_given_one(site: InMemory) -> None:
    batcher = site.batcher()
    with pytest.raises(InvalidNameError, match="<lambda>"):
        batcher.watcher()(lambda batch: None)

    batches: list[Any] = []
    write = batcher.watcher(name="write")(functools.partial(lambda into, b: into.append(len(b)),
                                                            batches))  # fmt: skip
    write.enqueue(1)
    batcher._options["flush_mode"] = "tick"
    site.tick(batcher)
    assert batches == [1]


def test_two_watchers_of_one_name_are_refused_with_both(site: InMemory) -> None:
    batcher = site.batcher()

    def first(batch: Any) -> None: ...

    def second(batch: Any) -> None: ...

    batcher.watcher(name="write")(first)
    with pytest.raises(ConfigurationError, match=r"has a watcher write already: .*first"):
        batcher.watcher(name="write")(second)

    assert batcher.watchers["write"].handler is first


def test_a_watcher_may_not_have_the_name_of_another_batchers_watcher(site: InMemory) -> None:
    site.batcher("one").watcher(name="write")(lambda batch: None)

    def second(batch: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="batcher one has a watcher write already"):
        site.batcher("two").watcher(name="write")(second)
    assert tasks.batchers(site.app)[1].watchers == {}


def test_the_same_function_registered_again_replaces_itself(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    versions: list[str] = []

    def load(version: str) -> Any:
        def write(batch: Any) -> None:
            versions.append(version)

        return batcher.watcher(name="write", max_batch_size=len(version))(write)

    load("1")
    write = load("22")
    write.enqueue(1)
    site.tick(batcher)

    assert versions == ["22"]
    assert batcher.watchers["write"].max_batch_size == 2


def test_a_module_that_is_loaded_again_replaces_batcher_and_watchers(site: InMemory) -> None:
    versions: list[str] = []

    def load(version: str) -> Batcher:
        batcher = site.batcher(flush_mode="tick")

        def write(batch: Any) -> None:
            versions.append(version)

        batcher.watcher(name="write")(write)
        return batcher

    old, new = load("old"), load("new")
    old.watchers["write"].enqueue(1)
    site.tick(new)

    assert versions == ["new"]
    assert tasks.batchers(site.app) == [new]


def test_two_batchers_of_one_name_are_refused_with_the_place_of_the_first(
    site: InMemory,
) -> None:
    Batcher("same", app=site.app)

    with pytest.raises(ConfigurationError, match=r"'same' already, made in .*test_registration"):
        Batcher("same", app=site.app)


def test_batchers_of_one_name_on_two_apps_know_nothing_of_each_other(site: InMemory) -> None:
    other = Celery("other", broker="memory://", set_as_current=False)
    one = Batcher("same", app=site.app)
    two = Batcher("same", app=other)

    assert tasks.find_batcher(site.app, "same") is one
    assert tasks.find_batcher(other, "same") is two
    other.close()


# Beat


def entries(app: Celery) -> dict[str, Any]:
    app.finalize()
    return {name: one for name, one in app.conf.beat_schedule.items() if "celery_batcher" in name}


def test_each_batcher_has_three_entries_in_whole_seconds_with_its_name(site: InMemory) -> None:
    site.batcher("one", beat_interval=2, capacity_interval=0.1, audit_interval=30.2)
    site.batcher("two")

    found = entries(site.app)

    assert found["celery_batcher:one:flush"] == {
        "task": "celery_batcher.flush",
        "schedule": 2.0,
        "args": ("one",),
    }
    assert {name: one["schedule"] for name, one in found.items()} == {
        "celery_batcher:one:flush": 2.0,
        "celery_batcher:one:limit": 1.0,
        "celery_batcher:one:audit": 30.0,
        "celery_batcher:two:flush": 1.0,
        "celery_batcher:two:limit": 1.0,
        "celery_batcher:two:audit": 10.0,
    }
    assert all(float(one["schedule"]).is_integer() for one in found.values())


def test_a_batcher_made_after_the_app_was_finalized_has_its_entries_too(site: InMemory) -> None:
    site.app.finalize()
    site.batcher("late")

    assert "celery_batcher:late:flush" in site.app.conf.beat_schedule


def test_entries_of_the_user_stay_and_beat_ours(site: InMemory) -> None:
    own = {"task": "celery_batcher.flush", "schedule": 5.0, "args": ("b",)}
    site.app.conf.beat_schedule = {"mine": {"task": "x", "schedule": 1.0},
                                   "celery_batcher:b:flush": own}  # fmt: skip
    site.batcher()
    site.app.finalize()

    assert site.app.conf.beat_schedule["mine"]["task"] == "x"
    assert site.app.conf.beat_schedule["celery_batcher:b:flush"] == own


def test_control_tasks_expire_keep_no_result_and_go_where_the_setting_says() -> None:
    site = InMemory(batcher_control_queue="control")
    site.batcher()
    site.app.finalize()

    for name in ("flush", "limit", "audit"):
        task = site.app.tasks[f"celery_batcher.{name}"]
        assert (task.expires, task.ignore_result, task.send_events) == (30, True, False)
        assert task.queue == "control"
    site.close()


@pytest.mark.parametrize("name", ["flush", "limit", "audit"])
def test_a_stale_entry_is_a_warning(
    site: InMemory, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    site.app.finalize()
    with caplog.at_level(logging.WARNING, "celery_batcher"):
        site.app.tasks[f"celery_batcher.{name}"].apply(("removed",), throw=True)

    assert "no batcher 'removed' in this process" in caplog.text


def test_the_control_tasks_do_what_their_batcher_does(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batches: list[Any] = []
    heard: list[str] = []
    batcher.watcher(name="write")(collecting(batches)).enqueue(1, id="a")
    batcher.add_listener(lambda event, *rest: heard.append(event))

    for name in ("flush", "limit", "audit"):
        site.app.tasks[f"celery_batcher.{name}"].apply(("b",), throw=True)
    site.work()

    assert batches == [["a"]]
    assert "request" in heard


def test_lanes_are_no_queues_of_the_app(site: InMemory) -> None:
    batcher = site.batcher(flush_mode="tick")
    batcher.watcher(name="write")(lambda batch: None).enqueue(1)
    site.tick(batcher)

    assert not [name for name in site.app.amqp.queues if "celery_batcher" in name]
