"""Servers and names for the tests; every server is private to the session and started when used."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from redis import Redis

import celery_batcher
from celery_batcher.embedded import EmbeddedServer, binaries
from servers import (
    CHROMIUM_FLAGS,
    IN_CI,
    REDIS_SOURCES,
    AzuriteServer,
    Inventory,
    RabbitServer,
    azurite_script,
    chromium,
    rabbitmq_script,
)

# No deadline: a slow machine is not a failed property. Fixed examples in CI, new ones on a laptop.
settings.register_profile("batcher", deadline=None, derandomize=IN_CI, print_blob=True)
settings.load_profile("batcher")


def pytest_report_header() -> list[str]:
    """Say what this run tests, against what, and what it leaves out."""
    inventory = Inventory.take()
    header = [
        f"celery_batcher: {Path(celery_batcher.__file__).parent}",
        f"servers: {', '.join(inventory.present) or 'none'}",
    ]
    if inventory.missing:
        header.append(f"left out, as not installed: {', '.join(inventory.missing)}")
    return header


def pytest_configure(config: pytest.Config) -> None:
    """With `TEST_INSTALLED`, refuse to test the checkout where the installed package is meant."""
    package = Path(celery_batcher.__file__).parent
    if os.environ.get("TEST_INSTALLED") and package == config.rootpath / "celery_batcher":
        raise pytest.UsageError(f"{package} is the checkout; the installed package is wanted")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the fast layers first, and what is not named here last; of two at once, the slow ones.

    Two processes (`-n 2`) end together only when the long files are not the last to begin.
    """
    layers = ["unit", "contract", "simulation", "integration"]
    shared = hasattr(config, "workerinput")  # with a second process, by pytest-xdist

    def place(item: pytest.Item) -> int:
        layer = item.path.relative_to(config.rootpath / "tests").parts[0]
        at = layers.index(layer) if layer in layers else len(layers)
        return -at if shared else at

    items.sort(key=place)


def missing(what: str, *, required: bool = True) -> None:
    """Skip a test whose server is missing; in CI a required one is a failure."""
    if IN_CI and required:
        pytest.fail(f"{what} is missing, and CI is set", pytrace=False)
    pytest.skip(f"{what} is not installed")


@pytest.fixture
def unique() -> str:
    """A name that no other test has: for queues, batchers and resources on a shared server."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedServer]:
    """The session's private Redis-compatible server; do not kill it, start one for that."""
    if not binaries():
        missing("an embedded server")
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """An empty database of the private server, or `REDIS_URL`, which is used as it is.

    A database from `REDIS_URL` belongs to the user and is never flushed: a test names its queues
    after `unique` and puts its keys under `key_prefix`.
    """
    given = os.environ.get("REDIS_URL")
    if given:
        return given
    server: EmbeddedServer = request.getfixturevalue("redis_server")
    return flushed(server)


@pytest.fixture
def key_prefix(redis_url: str, unique: str) -> Iterator[str]:
    """A prefix for every key of a test in `redis_url`, all deleted after it."""
    prefix = f"{unique}:"
    yield prefix
    with Redis.from_url(redis_url) as client:
        for key in client.scan_iter(f"{prefix}*", count=1000):
            client.delete(key)


@pytest.fixture(scope="session", params=REDIS_SOURCES)
def redis_flavour(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """One private server per kind that is here: Valkey, Redis 6.2 and the Redis on the PATH."""
    binary = binaries().get(request.param)
    if binary is None:
        missing(request.param, required=request.param == REDIS_SOURCES[0])
    with EmbeddedServer(binary=binary) as server:
        yield server


@pytest.fixture
def flavour_url(redis_flavour: EmbeddedServer) -> str:
    """An empty database of each kind of server in turn."""
    return flushed(redis_flavour)


def flushed(server: EmbeddedServer) -> str:
    """Address of a private server whose databases are empty."""
    with Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture(scope="session")
def rabbitmq_installed() -> None:
    """For tests that start a RabbitMQ of their own."""
    if rabbitmq_script() is None:
        missing("rabbitmq-server")


@pytest.fixture(scope="session")
def rabbitmq_server(rabbitmq_installed: None) -> Iterator[RabbitServer]:
    """The session's private RabbitMQ; do not kill it, start one for that."""
    server = RabbitServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[AzuriteServer]:
    """The session's private emulator of Azure's blobs; do not kill it, start one for that."""
    if azurite_script() is None:
        missing("azurite", required=shutil.which("npm") is not None)
    server = AzuriteServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitServer) -> str:
    """The private RabbitMQ, shared by the session: name queues and exchanges after `unique`."""
    return rabbitmq_server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser, driven by Playwright: `browser.new_page(viewport=..., color_scheme=...)`."""
    path = chromium()
    if path is None:
        missing("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
