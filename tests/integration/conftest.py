"""What the tests with real processes share."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from celery_processes import Fleet


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the Celery processes of a test that failed."""
    report = yield
    if report.failed:
        for fleet in list(Fleet.running):
            report.sections.append(("Celery processes", fleet.logs()))
    return report
