"""The public API is pinned: names, signatures, the tree of errors."""

from __future__ import annotations

import inspect
import queue

import pytest

import celery_batcher
from celery_batcher import errors, events

METHODS = {
    "Batcher": "(name, *, app=None, rate_limiter=None, clock=None, **options)",
    "Batcher.watcher": "(self, *, name=None, cost=1, queue=None, ignore_result=True, **options)",
    "Batcher.enqueue": "(self, operation)",
    "Batcher.pause": "(self, pause_time=<Unset.option: 'the option decides'>)",
    "Batcher.resume": "(self)",
    "Batcher.flush": "(self)",
    "Batcher.start": "(self)",
    "Batcher.stop": "(self)",
    "Batcher.status": "(self)",
    "Batcher.shown": "(self, payload)",
    "Batcher.peek": "(self, watcher=None, *, most=10)",
    "Batcher.purge": "(self, watcher=None)",
    "Batcher.leases": "(self)",
    "Batcher.check": "(self, timeout=1.0)",
    "Batcher.testing": "(self, *others)",
    "Batcher.explain": "(self, what, *, most=100000)",
    "Batcher.eta": "(self)",
    "Batcher.meters": "(self)",
    "Batcher.recent_batches": "(self, most=50)",
    "Batcher.operations_in_buffer": "(self)",
    "Batcher.needs_capacity": "(self)",
    "Batcher.inflight": "(self)",
    "Batcher.add_listener": "(self, listener)",
    "Batcher.remove_listener": "(self, listener_id)",
    "Watcher.operation": "(self, payload, *, cost=None, key=None, priority='normal', "
    "batchable=True, id=None, dedupe_key=None, dedupe_for=0)",
    "Watcher.enqueue": "(self, payload, *, cost=None, key=None, priority='normal', "
    "batchable=True, id=None, dedupe_key=None, dedupe_for=0)",
    "Watcher.enqueue_many": "(self, payloads, *, cost=None, key=None, priority='normal', "
    "batchable=True, id=None, dedupe_key=None, dedupe_for=0, pack=500)",
    "Watcher.backfill": "(self, name, *, total=None, queue=None, **options)",
    "Backfill.run": "(self, progress=None, *, again=False, max_time=None)",
    "Backfill.steps": "(self, *, again=False, max_time=None)",
    "Backfill.status": "(self)",
    "Backfill.pause": "(self)",
    "Backfill.resume": "(self)",
    "Backfill.reset": "(self)",
    "Backfill.schedule": "(self, when)",
    "Batcher.backfill_progress": "(self)",
    "Row": "(payload, *, checkpoint=None, cost=None, key=None, priority=None, batchable=True, "
    "id=None, dedupe_key=None, dedupe_for=0)",
    "ProvisionedResource": "(capacity, *, name=None, window=1.0, adaptive=False, ramp=None)",
    "ProvisionedResource.set_capacity": "(self, capacity)",
    "SharedResource": "(shared_capacity, *, reserved_capacity=0, factor=1, lease_manager=None, "
    "max_interval=0.5, name=None, window=1.0, clock=None)",
    "SharedResource.capacity": "(self)",
    "SharedResource.max_capacity": "(self)",
    "SharedResource.give_me": "(self, target)",
    "SharedResource.set_shared_capacity": "(self, capacity)",
    "SharedResource.set_reserved_capacity": "(self, capacity)",
    "SharedResource.provision": "(self)",
    "SharedResource.release": "(self, owner)",
    "SharedResource.raise_events_to": "(self, listener)",
    "MemoryLeaseManager": "(*, lease_time=4.0, clock=None, board=None)",
    "RedisLeaseManager": "(url, *, name, lease_time=4.0, prefix='celery_batcher:', clock=None)",
    "AzureBlobLeaseManager": "(account=None, *, container, credential=None, master_key=None, "
    "connection_string=None, lease_time=15, clock=None)",
    "ProvisionedResource.capacity": "(self)",
    "ProvisionedResource.max_capacity": "(self)",
    "Batch.done": "(self, operation, result=None)",
    "Batch.retry": "(self, operation, *, after=None)",
    "Batch.fail": "(self, operation, reason)",
    "Batch.charge": "(self, operation, actual)",
    "Batch.charge_many": "(self, actuals)",
    "Batch.commit": "(self)",
    "Throttled": "(retry_after=None)",
    "Operation": "(id, watcher, cost, payload, attempt=1, batchable=True, key=None, "
    "priority='normal', dedupe_for=None)",
}
BY_POSITION = {"Operation", "Batch.done", "Batch.fail", "Batch.charge"}
TREE = {
    "BackfillRunningError": RuntimeError,
    "ConfigurationError": ValueError,
    "ImproperOrderError": RuntimeError,
    "BatcherStoppedError": RuntimeError,
    "NoOperationError": TypeError,
    "NoBatcherError": LookupError,
    "NoWatcherError": LookupError,
    "InvalidNameError": ValueError,
    "InvalidCostError": ValueError,
    "TooExpensiveError": ValueError,
    "TooManyAttemptsError": RuntimeError,
    "PayloadError": TypeError,
    "BufferFullError": queue.Full,
    "EnqueueUncertainError": ConnectionError,
    "StoreUnavailableError": ConnectionError,
    "BrokerUnavailableError": ConnectionError,
    "OperationFailedError": RuntimeError,
    "OutcomeError": ValueError,
    "ClaimExpiredError": TimeoutError,
    "LeaseStoreUnavailableError": ConnectionError,
    "PartitionsOutOfRangeError": ValueError,
}


def test_the_package_exports_these_names() -> None:
    assert sorted(celery_batcher.__all__) == sorted(
        [
            "AzureBlobLeaseManager",
            "Backfill",
            "BackfillProgress",
            "Batch",
            "Batcher",
            "BatcherError",
            "DeadLetter",
            "Explanation",
            "MemoryLeaseManager",
            "Meters",
            "Operation",
            "Problem",
            "ProvisionedResource",
            "Reason",
            "RecentBatch",
            "RedisLeaseManager",
            "Row",
            "SharedResource",
            "Status",
            "Throttled",
            "Watcher",
            *TREE,
        ]
    )
    assert all(hasattr(celery_batcher, name) for name in celery_batcher.__all__)


def bare(signature: inspect.Signature) -> str:
    parameters = [
        one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("name", METHODS)
def test_signatures_are_pinned(name: str) -> None:
    owner, _, method = name.partition(".")
    found = getattr(celery_batcher, owner)

    assert bare(inspect.signature(getattr(found, method) if method else found)) == METHODS[name]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in BY_POSITION])
def test_one_argument_at_most_is_taken_by_position(name: str) -> None:
    owner, _, method = name.partition(".")
    found = getattr(celery_batcher, owner)
    parameters = inspect.signature(getattr(found, method) if method else found).parameters

    by_position = [one for one in parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]

    assert len([one for one in by_position if one.name != "self"]) <= 1


@pytest.mark.parametrize("name", TREE)
def test_errors_have_their_base_of_the_standard_library(name: str) -> None:
    error = getattr(celery_batcher, name)

    assert issubclass(error, celery_batcher.BatcherError)
    assert issubclass(error, TREE[name])
    assert name in (errors.__doc__ or "")


def test_throttled_is_no_error_of_ours() -> None:
    assert not issubclass(celery_batcher.Throttled, celery_batcher.BatcherError)
    assert celery_batcher.Throttled(2.0).retry_after == 2.0


@pytest.mark.parametrize("name", sorted(set(celery_batcher.__all__)))
def test_everything_public_is_documented(name: str) -> None:
    assert getattr(celery_batcher, name).__doc__


def test_the_events_are_those_of_go_batcher() -> None:
    assert set(events.EVENTS) >= {
        "batch",
        "pause",
        "resume",
        "shutdown",
        "request",
        "capacity",
        "flush-start",
        "flush-done",
        "target",
        "allocated",
        "released",
        "failed",
        "provision-start",
        "provision-done",
        "created-container",
        "verified-container",
        "created-blob",
        "verified-blob",
    }
