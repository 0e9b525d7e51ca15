"""Flushes by hand, and does what workers do with the batches: `python -m apps.flushes`.

Every round is the same work, whatever waits: it enqueues as many operations as it then releases.
Reports as JSON the medians, by operation, of the CPU seconds of a flush and of the server.
"""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

import redis

from apps.batched import SETTINGS, app, batcher, in_tens
from celery_batcher.turn import one_flush
from producer import rows

ROUNDS, WARM = 100, 10
OPERATIONS = SETTINGS.batch_size * SETTINGS.max_concurrent_batches

client = redis.Redis.from_url(SETTINGS.url)


def server_cpu() -> float:
    usage: dict[str, Any] = client.info("cpu")  # type: ignore[assignment]
    return float(usage["used_cpu_user_main_thread"] + usage["used_cpu_sys_main_thread"])


def flush() -> float:
    """CPU seconds of one flush: messages into the index, batches out of it, tasks to Celery."""
    before = time.process_time()
    one_flush(batcher._duties)
    return time.process_time() - before


def run_batches() -> int:
    """Handle what was released; return how many operations that were."""
    handled = 0
    while raw := client.rpop(app.conf.task_default_queue):
        headers = json.loads(raw)["headers"]  # type: ignore[arg-type]
        handled += batcher.run_batch(batcher.watchers[headers["task"]], headers["id"])["done"]
    return handled


def main() -> None:
    flusher, server = [], []
    for _ in range(ROUNDS):
        in_tens(rows(OPERATIONS))
        before = server_cpu()
        flusher.append(flush() / OPERATIONS)
        handled = run_batches()
        assert handled == OPERATIONS, handled
        server.append((server_cpu() - before) / OPERATIONS)
    print(json.dumps({"flusher": median(flusher[WARM:]), "server": median(server[WARM:])}))


if __name__ == "__main__":
    main()
