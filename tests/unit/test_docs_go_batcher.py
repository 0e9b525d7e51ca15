"""docs/go-batcher.md has all of go-batcher's surface, and names nothing here that is not here."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import celery_batcher
from celery_batcher import (
    Batch,
    Batcher,
    Operation,
    ProvisionedResource,
    SharedResource,
    Watcher,
    tasks,
)
from celery_batcher.config import BATCHER_OPTIONS, SETTINGS, WATCHER_OPTIONS
from celery_batcher.events import EVENTS

ANCESTOR = {
    "Batcher": """
        NewBatcher NewBatcherWithBuffer WithRateLimiter WithFlushInterval WithCapacityInterval
        WithAuditInterval WithMaxOperationTime WithPauseTime WithErrorOnFullBuffer WithEmitBatch
        WithEmitFlush WithEmitRequest WithMaxConcurrentBatches
        Enqueue Pause Flush OperationsInBuffer NeedsCapacity Inflight Start Stop AddListener
        RemoveListener""",
    "Operation and watcher": """
        NewOperation Payload Attempt Cost Watcher IsBatchable MakeAttempt
        NewWatcher WithMaxAttempts WithMaxBatchSize WithMaxOperationTime""",
    "Limiters": """
        Provision MaxCapacity Capacity GiveMe Start Stop
        NewProvisionedResource NewAzureSharedResource WithMasterKey WithFactor
        WithReservedCapacity WithMaxInterval NewSharedResource WithSharedCapacity
        SetSharedCapacity SetReservedCapacity NewAzureBlobLeaseManager""",
    "Lease managers": "RaiseEventsTo Provision CreatePartitions LeasePartition",
    "Events": """
        batch pause resume shutdown audit-pass audit-fail audit-skip request flush-start flush-done
        capacity target allocated released failed error created-container verified-container
        created-blob verified-blob provision-start provision-done""",
    "Errors": """
        UndefinedLeaseManagerError UndefinedSharedCapacityError NoWatcherError TooManyAttemptsError
        TooExpensiveError BufferFullError BufferNotAllocated RateLimiterImproperOrderError
        BatcherImproperOrderError NoOperationError PartitionsOutOfRangeError ImproperOrderError
        InitializationOnlyError BufferIsShutdown SharedCapacityNotProvisioned""",
}

OWNERS: dict[str, Any] = {
    "batcher": Batcher,
    "watcher": Watcher,
    "op": Operation,
    "batch": Batch,
    "resource": ProvisionedResource,
    "SharedResource": SharedResource,
    "celery_batcher": tasks,
}
WORDS = {*OWNERS, "True", "False", "None", "payloads"}
ELSEWHERE = {
    "timedelta",
    "queue.Full",
    "TypeError",
    "nil",
    "metadata",
    "azure",
}
"""Code of Python, Go, packaging and arithmetic, as it stands in the text."""

MANUAL = (Path(__file__).parents[2] / "docs" / "go-batcher.md").read_text()


def section(heading: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    text = re.split(r"\n## ", MANUAL.partition(f"## {heading}\n")[2])[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def exported() -> set[str]:
    """All that users can name: what is exported, its attributes and parameters, options, events."""
    names = {*celery_batcher.__all__, *BATCHER_OPTIONS, *WATCHER_OPTIONS, *EVENTS, *SETTINGS}
    names |= {f"batcher_{option}" for option in BATCHER_OPTIONS}
    for name in celery_batcher.__all__:
        one = getattr(celery_batcher, name)
        public = {attribute for attribute in dir(one) if not attribute.startswith("_")}
        names |= public
        for function in (one, *(getattr(one, attribute) for attribute in public)):
            if callable(function):
                names |= set(_parameters(function))
    return names


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # an error's constructor, in C
        return []


KNOWN = exported() | WORDS


@pytest.mark.parametrize("heading", ANCESTOR)
def test_every_name_of_the_ancestor_has_its_row(heading: str) -> None:
    rows = section(heading)

    assert sorted(row[0].strip("`") for row in rows) == sorted(ANCESTOR[heading].split())
    for name, since, _, different in rows:
        assert since in {"both", "v1", "v2"}, name
        assert different, name


@pytest.mark.parametrize("heading", ANCESTOR)
def test_what_is_here_is_told_or_why_there_is_none(heading: str) -> None:
    for name, _, here, different in section(heading):
        assert here or different.startswith(("Nothing to call", "Cannot happen")), name


def code() -> set[str]:
    """What is written as code, but for the ancestor's own names."""
    text = re.sub(r"(?m)^\| `[^`]+` ", "", re.sub(r"```.*?```", "", MANUAL, flags=re.DOTALL))
    return set(re.findall(r"`([^`]+)`", text)) - ELSEWHERE


@pytest.mark.parametrize("span", sorted(code()))
def test_every_name_that_looks_like_code_exists(span: str) -> None:
    bare = re.sub(r'"[^"]*"', "", span)
    for owner, attribute in re.findall(r"(\w+)\.(\w+)", bare):
        if owner in OWNERS:
            assert hasattr(OWNERS[owner], attribute)
    names = set(re.findall(r"(?<!\w)[A-Za-z_][\w-]*", re.sub(r"celery_batcher\.\w+", "", bare)))
    assert names <= KNOWN
