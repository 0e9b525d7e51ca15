"""A plugin for pytest: batchers under test, as a fixture. It has no effect where it is not used.

    def test_orders_are_written(batcher_testing):
        place_order(id=1)
        batcher_testing.run_until_done()
        batcher_testing.assert_done("orders.write", payload={"id": 1})

It is loaded by its entry point; docs/testing.md tells more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..batcher import Batcher
    from ..testing import Rehearsal

_MARKER = (
    "batchers(*batchers): the batchers that batcher_testing tests with, or their names; without it "
    "all of the current Celery app"
)


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def batcher_testing(request: pytest.FixtureRequest) -> Iterator[Rehearsal]:
    """`celery_batcher.testing.Rehearsal` with all batchers of the app, for the time of a test.

    With a fixture ``celery_app`` in the same test, as `celery.contrib.pytest` has it, of that app.
    """
    from ..testing import rehearse

    with rehearse(*_batchers(request)) as rehearsal:
        yield rehearsal


def _batchers(request: pytest.FixtureRequest) -> list[Batcher]:
    from celery import current_app
    from celery.local import Proxy

    from ..tasks import batchers, the_batcher

    found: Any = current_app
    if "celery_app" in request.fixturenames:
        found = request.getfixturevalue("celery_app")
    app = found._get_current_object() if isinstance(found, Proxy) else found
    marker = request.node.get_closest_marker("batchers")
    if marker is not None and marker.args:
        return [the_batcher(app, one) if isinstance(one, str) else one for one in marker.args]
    if all_of_app := batchers(app):
        return all_of_app
    raise pytest.UsageError(
        f"batcher_testing: the Celery app ({app.main or 'without a name'}) has no batchers here. "
        "Import the module that makes them before the test, or name them: "
        "@pytest.mark.batchers(cosmos)"
    )
