"""A scrape of a real fleet says what was done in it."""

from __future__ import annotations

from pathlib import Path

from celery_processes import Fleet
from scraping import scrape

CAPACITY = 500


def test_a_scrape_of_any_process_says_what_the_fleet_has_done(
    redis_url: str, unique: str, key_prefix: str, tmp_path: Path
) -> None:
    batchers = {
        unique: {
            "capacity": CAPACITY,
            "resource": unique,
            "watchers": {"work": {"max_batch_size": 10}},
        }
    }
    conf = {"batcher_key_prefix": key_prefix, "task_default_queue": unique}
    with Fleet(tmp_path, broker=redis_url, batchers=batchers, conf=conf) as fleet:
        fleet.worker(beat=True, queues=unique)
        work = fleet.project.watchers["work"]
        work.enqueue_many([{"n": n} for n in range(95)], cost=3)
        work.enqueue({"n": 95, "do": ["fail"]}, batchable=False)
        work.enqueue({"n": 96, "do": ["raise"]}, batchable=False)
        work.enqueue({"n": 97, "do": ["die"]}, batchable=False)
        fleet.await_settled(unique)
        starts = fleet.journal.starts()
        recent = fleet.project.batchers[unique].recent_batches(100)
        flush = fleet.project.batchers[unique].status().last_flush

        value = scrape(fleet.project.app)

    of = {"batcher": unique, "watcher": "work"}
    assert value("operations_enqueued_total", **of) == 98
    assert value("operations_settled_total", outcome="done", **of) == 97
    assert value("operations_settled_total", outcome="dead", **of) == 1
    assert value("operations_settled_total", outcome="retried", **of) == 2
    assert value("claims_abandoned_total", **of) == 1
    unclaimed = value("batches_recalled_total", **of)
    assert value("batches_total", **of) - unclaimed == len(starts)
    assert value("batches_total", trigger="single", **of) >= 3
    assert value("batch_duration_seconds_count", **of) == len(starts)
    assert value("operation_wait_seconds_count", **of) == value("batches_total", **of)
    if not unclaimed:
        assert value("cost_released_total", **of) == sum(one.cost for one in starts)
        handled = sum(len(one.operations) for one in starts)
        assert value("batch_size_operations_sum", **of) == handled
    assert value("capacity", batcher=unique) == CAPACITY
    assert value("dead_operations", **of) == 1
    assert value("flushes_total", batcher=unique) > 0
    assert flush is not None  # another process did it
    assert {one.id for one in recent} >= {one.batch for one in starts}
    assert {one.state for one in recent} - {"recalled"} == {"settled", "abandoned"}
    assert sum(one.done for one in recent) == 97
