"""What several unit tests start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from in_memory import InMemory


@pytest.fixture
def site() -> Iterator[InMemory]:
    """An app in this process, with a broker and a store of its own."""
    site = InMemory()
    yield site
    site.close()
