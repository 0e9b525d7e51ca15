"""What a fleet is like: everything that a seed decides before anything happens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from celery_batcher.costs import Cost
from celery_batcher.store.options import Limits

from .resources import Provision
from .world import SECOND


@dataclass(frozen=True)
class Plan:
    """A fleet, drawn from a seed."""

    provision: Provision | None
    neighbour: bool
    weight: int
    charges: float
    options: dict[str, Any]
    watchers: dict[str, dict[str, Any]]
    costs: tuple[Cost, ...]
    processes: int
    producers: int
    operations: int
    pace: int
    troubled_us: int
    decides: float
    troubles: float
    soft_limits: bool
    hands_back: float
    poisoned: frozenset[str]

    @classmethod
    def drawn(cls, random: Random) -> Plan:
        provision = Provision.drawn(random)
        operations = random.randint(3, 40)
        poison = random.choice((0.0, 0.0, 0.05))
        return cls(
            provision=provision,
            neighbour=provision is not None and random.random() < 0.4,
            weight=random.choice((1, 3)),
            charges=random.choice((0.0, 0.9)),
            options=_options(random),
            watchers={name: _watcher(random) for name in ("v", "w")[: random.choice((1, 1, 2))]},
            costs=(0, 1, 1, 5) if provision is None else provision.costs(random),
            processes=random.randint(1, 3),
            producers=random.randint(1, 3),
            operations=operations,
            pace=random.choice((SECOND // 100, SECOND // 4)),
            troubled_us=random.randint(2, 6) * SECOND,
            decides=random.choice((0.0, 0.5)),
            troubles=random.choice((0.0, 0.2, 0.5)),
            soft_limits=random.random() < 0.5,
            hands_back=random.choice((0.0, 0.9)),
            poisoned=frozenset(f"op{n}" for n in range(operations) if random.random() < poison),
        )

    def limits(self) -> Limits:
        """What a batcher of the fleet tells the store of the resource."""
        provision, options = self.provision, self.options
        limits = Limits(
            grace_ms=round(options["start_grace"] * 1000),
            flush_ms=round(options["flush_interval"] * 1000),
        )
        if provision is None:
            return limits
        resource = provision.resource()
        first, *others = resource.limits()
        return replace(
            limits,
            capacity=first.capacity,
            window_ms=first.window_ms,
            others=tuple(others),
            resource=resource.options(),
        )


def _options(random: Random) -> dict[str, Any]:
    return {
        "flush_interval": random.choice((0.05, 0.1, 0.25)),
        "capacity_interval": 1.0,
        "audit_interval": random.choice((0.5, 2.0)),
        "beat_interval": random.choice((1, 2)),
        "flush_mode": random.choice(("turn", "turn", "turn", "tick")),
        "max_operation_time": random.choice((0.5, 2.0)),
        "claim_grace": random.choice((0.2, 1.0)),
        "start_grace": random.choice((0.01, 0.05)),
        "pause_time": 0.5,
        "buffer_size": random.choice((5, 1000)),
        "intake_limit": random.choice((None, 4)),
        "error_on_full_buffer": random.random() < 0.3,
        "enqueue_timeout": random.choice((0.3, 2.0)),
        "max_concurrent_batches": random.choice((None, None, 3)),
        "max_open_batches": random.choice((2, 256)),
        "emit_batch": False,
        "weight": random.choice((1, 2)),
        "floor": random.choice((0.0, 0.5)),
        "dead_letter_retention": 1_000_000.0,
    }


def _watcher(random: Random) -> dict[str, Any]:
    return {
        "max_batch_size": random.choice((1, 3, 500)),
        "max_attempts": random.choice((1, 3, 5)),
        "bisect": random.random() < 0.5,
        "max_concurrent_batches": random.choice((None, None, 1)),
        "batch_by_key": random.random() < 0.2,
        "retry_backoff": random.choice((False, False, 1)),
        "retry_backoff_max": 2,
    }
