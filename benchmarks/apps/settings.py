"""What the driver tells an app: one JSON object in the environment variable `BENCHMARK`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

VARIABLE = "BENCHMARK"


@dataclass(frozen=True)
class Settings:
    """Everything in which two runs of an app may differ."""

    url: str
    directory: str
    """Where handlers leave their records, see `tape`."""
    batch_size: int = 500
    cost: int = 1
    capacity: int = 0
    """Units per second; 0 is unlimited."""
    handler_cpu_ms: int = 0
    control_queue: str = ""
    watchers: int = 1
    keys: int = 0
    max_concurrent_batches: int = 0

    @classmethod
    def load(cls) -> Settings:
        return cls(**json.loads(os.environ[VARIABLE]))

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}
