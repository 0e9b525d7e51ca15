"""What the driver tells an app: one JSON object in the environment variable `BENCHMARK`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

VARIABLE = "BENCHMARK"
SHARED = "shared"
"""The name of the resource that batchers share."""
THROTTLE, RETRY_AFTER = "throttle", 2.0
"""A file in the fleet's directory: the next handler that sees it gets a 429, of so many seconds."""


@dataclass(frozen=True)
class Settings:
    """Everything in which two runs of an app may differ."""

    url: str
    directory: str
    """Where handlers leave their records, see `tape`."""
    batch_size: int = 500
    cost: Any = 1
    """Of an operation; by dimension where capacities are."""
    capacity: Any = 0
    """Units per window, or what else a resource takes; 0 is unlimited."""
    window: Any = 1.0
    handler_cpu_ms: int = 0
    control_queue: str = ""
    watchers: int = 1
    keys: int = 0
    max_concurrent_batches: int = 0
    batcher: str = "bench"
    options: dict[str, Any] = field(default_factory=dict)
    """The batcher's own."""
    resource: str = "provisioned"
    """The kind of resource that batchers share, of those in `apps.sharing`."""

    @classmethod
    def load(cls) -> Settings:
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}
