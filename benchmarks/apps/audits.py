"""Walks one pass of the audit: `python -m apps.audits`.

Reports as JSON how many scripts that took, and the server's seconds of the longest and of the mean.
"""

from __future__ import annotations

import json
from typing import Any

import redis

from apps.batched import SETTINGS, batcher
from celery_batcher.operation import new_id

LOGGED_US = 200

client = redis.Redis.from_url(SETTINGS.url)


def walk() -> int:
    """To the end of a pass; return how many steps that took."""
    steps = 1
    while not (step := batcher.store.audit(new_id(), 0)).over:
        steps += 1
    assert not step.wrong, step
    return steps


def main() -> None:
    walk()  # the intake has begun one
    client.config_set("slowlog-log-slower-than", LOGGED_US)
    client.config_set("slowlog-max-len", 1_000_000)
    client.slowlog_reset()
    client.config_resetstat()
    steps = walk()
    scripts: dict[str, Any] = client.info("commandstats")["cmdstat_evalsha"]  # type: ignore[index]
    logged = [entry for entry in client.slowlog_get(1_000_000) if entry["command"][:4] == b"EVAL"]
    longest = max([LOGGED_US, *(entry["duration"] for entry in logged)])
    mean = scripts["usec_per_call"]
    print(json.dumps({"steps": steps, "mean": mean / 1e6, "longest": longest / 1e6}))


if __name__ == "__main__":
    main()
