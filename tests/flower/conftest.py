"""One running system for all tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_batcher.embedded import binaries
from conftest import missing
from flower_stack import Stack, running


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running system."""
    if not binaries():
        missing("an embedded server")
    with running(tmp_path_factory.mktemp("flower")) as made:
        yield made
