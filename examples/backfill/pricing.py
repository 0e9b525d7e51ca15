"""What the store sells, and what a write costs there. The batcher is told both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

CAPACITY = 10_000  # request units in any second

Document = Mapping[str, Any]


def encode(document: Document) -> bytes:
    """The bytes a document occupies in the store."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def request_units(document: Document) -> int:
    """5 units for the write, and 1 for every 100 bytes begun."""
    return 5 + ceil(len(encode(document)) / 100)
