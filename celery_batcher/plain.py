"""Values of ours as JSON has them: what the command line, pages and views say to programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from enum import Enum
from typing import Any

_DEEPEST = 50
"""Levels of a payload that are shown."""


def plain(value: Any) -> Any:
    """The value in dicts, lists, texts, numbers, booleans and None; `json.dumps` takes it.

    Dataclasses become dicts, dates and times ISO texts, timedeltas seconds, sets lists; keys
    become texts. What JSON has no word for (bytes, infinities, any other object) becomes its repr,
    and what is nested deeper than 50 levels ``"..."``. It never fails.
    """
    return _plain(value, _DEEPEST)


def _plain(value: Any, levels: int) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return _nested(value, levels)


def _nested(value: Any, levels: int) -> Any:
    if not levels:
        return "..."
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(one, levels - 1) for key, one in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [_plain(one, levels - 1) for one in value]
    return _repr(value)


def _key(value: Any) -> str:
    return str(value) if isinstance(value, str) else _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a payload's class is anybody's: what it is must do
        return f"<{type(value).__name__}>"
