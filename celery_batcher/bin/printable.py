"""Texts that others made, so that a terminal shows them and obeys none of them."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from ..plain import plain

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories that terminals obey or do not show: control characters, changes of direction."""


def printable(value: object, *, lines: bool = False) -> str:
    """The text of a value with its control characters spelled out: ``\\x1b``.

    Args:
        lines: keep the ends of lines, and tabs as spaces.
    """
    text = str(value)
    if lines:
        return "\n".join(printable(line.expandtabs(4)) for line in text.splitlines())
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in _UNSEEN else one
        for one in text
    )


def payload_text(payload: Any, most: int | None = None) -> str:
    """A payload as JSON, in one line; of more than ``most`` characters the beginning."""
    text = printable(json.dumps(plain(payload), ensure_ascii=False))
    if most is None or len(text) <= most:
        return text
    return f"{text[:most]}... ({len(text)} characters)"
