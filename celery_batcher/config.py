"""Options and settings: what they are, their defaults, and the errors of wrong ones.

A constructor's argument beats the app's setting ``batcher_<option>`` (``CELERY_BATCHER_<OPTION>``
in Django), which beats the default. Settings are read when they are used.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

from .errors import ConfigurationError, InvalidNameError

MAX_BATCH_SIZE = 1000
MIN_GRACE = 0.002


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its default, its check, and what the check wants."""

    default: Any
    check: Callable[[Any], Any]
    wants: str


def seconds(value: Any) -> float:
    """Seconds above zero, from a number or a timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    if not math.isfinite(value) or value <= 0:
        raise ValueError
    return float(value)


def checked_seconds(value: float | timedelta, what: str) -> float:
    """Seconds above 0.

    Raises:
        ConfigurationError: they are not.
    """
    try:
        return seconds(value)
    except ValueError as exc:
        raise ConfigurationError(f"{what}={value!r}, but it is seconds above 0") from exc


def delay(value: Any) -> float:
    """Seconds from zero, from a number or a timedelta."""
    zero = not isinstance(value, bool) and value in {0, timedelta(0)}
    return 0.0 if zero else seconds(value)


def grace(value: Any) -> float:
    """Seconds, at least 0.002: a handler never starts in the instant of its claim."""
    if (checked := seconds(value)) < MIN_GRACE:
        raise ValueError
    return checked


def count(least: int, most: int | None = None, *, optional: bool = False) -> Callable[[Any], Any]:
    """A check for integers in a range, or None where that is allowed."""

    def check(value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        if most is not None and value > most:
            raise ValueError
        return value

    return check


def part(value: Any) -> float:
    """A part of the whole: 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError
    return float(value)


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def backoff(value: Any) -> int:
    """Whole seconds from 1; True is 1, False is 0: none."""
    if isinstance(value, bool):
        return int(value)
    return int(count(1)(value))


def errors(value: Any) -> tuple[type[BaseException], ...]:
    """Classes of errors."""
    classes = tuple(value)
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        raise ValueError
    return classes


def function(value: Any) -> Any:
    """Something to call, or None."""
    if value is not None and not callable(value):
        raise ValueError
    return value


def one_of(*choices: str) -> Callable[[Any], str]:
    """A check for a fixed set of words."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return check


def _beats(value: Any) -> int:
    whole = seconds(value)
    if whole != int(whole):
        raise ValueError
    return int(whole)


def _optional_seconds(value: Any) -> float | None:
    return None if value is None else seconds(value)


class Unset(Enum):
    """An argument that was not given, where None means something."""

    option = "the option decides"


_PART = "a part of the capacity, 0 to 1"
_SECONDS = "seconds above 0, a number or a timedelta"
DELAY = Option(None, delay, "seconds from 0, a number or a timedelta")

BATCHER_OPTIONS: Mapping[str, Option] = {
    "flush_interval": Option(0.1, seconds, _SECONDS),
    "capacity_interval": Option(0.1, seconds, _SECONDS),
    "audit_interval": Option(10.0, seconds, _SECONDS),
    "beat_interval": Option(1, _beats, "whole seconds, at least 1"),
    "flush_mode": Option("turn", one_of("turn", "tick"), "'turn' or 'tick'"),
    "max_operation_time": Option(60.0, seconds, _SECONDS),
    "claim_grace": Option(1.0, seconds, _SECONDS),
    "start_grace": Option(0.01, grace, "seconds from 0.002, a number or a timedelta"),
    "pause_time": Option(0.5, seconds, _SECONDS),
    "buffer_size": Option(1_000_000, count(1), "operations, at least 1"),
    "intake_limit": Option(None, count(1, optional=True), "operations, at least 1, or None"),
    "error_on_full_buffer": Option(False, flag, "True or False"),
    "enqueue_timeout": Option(30.0, seconds, _SECONDS),
    "max_concurrent_batches": Option(None, count(1, optional=True), "at least 1, or None"),
    "max_open_batches": Option(256, count(1), "batches, at least 1"),
    "weight": Option(1, count(1), "an integer, at least 1"),
    "floor": Option(0.0, part, _PART),
    "backfill_floor": Option(0.05, part, _PART),
    "emit_batch": Option(False, flag, "True or False"),
    "mask": Option(None, function, "a function of the payload, or None"),
    "send_events": Option(False, flag, "True or False"),
    "dead_letter_retention": Option(timedelta(days=14).total_seconds(), seconds, _SECONDS),
}

WATCHER_OPTIONS: Mapping[str, Option] = {
    "max_batch_size": Option(500, count(1, MAX_BATCH_SIZE), f"1 to {MAX_BATCH_SIZE} operations"),
    "max_attempts": Option(3, count(0), "tries in all, 0 for no limit"),
    "max_operation_time": Option(None, _optional_seconds, f"{_SECONDS}, or None"),
    "max_concurrent_batches": Option(None, count(1, optional=True), "at least 1, or None"),
    "weight": Option(1, count(1), "an integer, at least 1"),
    "batch_by_key": Option(False, flag, "True or False"),
    "key_capacity": Option(None, count(1, 2**53 - 1, optional=True), "a cost, at least 1, or None"),
    "key_window": Option(1.0, seconds, _SECONDS),
    "key_concurrency": Option(None, count(1, optional=True), "batches, at least 1, or None"),
    "max_dead_letters": Option(10_000, count(1), "letters, at least 1"),
    "retry_backoff": Option(0, backoff, "True, False, or whole seconds from 1"),
    "retry_backoff_max": Option(600, count(1), "whole seconds, at least 1"),
    "retry_jitter": Option(True, flag, "True or False"),
    "autoretry_for": Option((Exception,), errors, "a tuple of exception classes"),
    "dont_autoretry_for": Option((), errors, "a tuple of exception classes"),
    "bisect": Option(True, flag, "True or False"),
    "estimate": Option(False, flag, "True or False"),
    "cost_key": Option(None, function, "a function of the payload, or None"),
}

BACKFILL_OPTIONS: Mapping[str, Option] = {
    "priority": Option(
        "backfill", one_of("high", "normal", "backfill"), "high, normal or backfill"
    ),
    "max_waiting": Option(50_000, count(1), "operations, at least 1"),
    "chunk": Option(500, count(1, MAX_BATCH_SIZE), f"1 to {MAX_BATCH_SIZE} rows"),
    "lease_time": Option(30.0, seconds, _SECONDS),
    "slice": Option(60.0, seconds, _SECONDS),
}

SETTINGS: Mapping[str, Any] = {
    "batcher_store_url": None,
    "batcher_control_queue": None,
    "batcher_serializer": "json",
    "batcher_key_prefix": "celery_batcher:",
}


def checked(options: Mapping[str, Option], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Check options against their table.

    Raises:
        ConfigurationError: one is unknown (with the nearest known) or has a wrong value.
    """
    values = {}
    for name, value in given.items():
        if name not in options:
            raise ConfigurationError(f"{what} has no option {name!r}{did_you_mean(name, options)}")
        values[name] = check_value(options[name], name, value, what)
    return values


def check_value(option: Option, name: str, value: Any, what: str) -> Any:
    """Check one value.

    Raises:
        ConfigurationError: it is not what the option wants.
    """
    try:
        return option.check(value)
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(f"{what}: {name}={value!r}, but it is {option.wants}") from exc


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WATCHER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,150}")


def check_name(name: Any, what: str) -> str:
    """A name of a batcher or resource: 1 to 100 letters, digits, ``_`` or ``-``.

    Raises:
        InvalidNameError: it is not.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise InvalidNameError(f"{what} {name!r}: 1 to 100 letters, digits, '_' or '-' are allowed")


def check_watcher_name(name: Any) -> str:
    """A watcher's name: the dotted name of a task.

    Raises:
        InvalidNameError: it is not.
    """
    if isinstance(name, str) and _WATCHER_NAME.fullmatch(name):
        return name
    raise InvalidNameError(
        f"watcher {name!r}: 1 to 150 letters, digits, '_', '-' or '.' are allowed"
    )


def milliseconds(value: float) -> int:
    """Whole milliseconds, rounded up."""
    return math.ceil(value * 1000)
