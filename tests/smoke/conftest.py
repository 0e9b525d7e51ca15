"""pytest-celery's fixtures on processes and, where a container engine answers, on containers."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from docker.errors import DockerException
from pytest_celery import (
    CELERY_REDIS_BACKEND,
    CELERY_REDIS_BROKER,
    DEFAULT_WORKER_VOLUME,
    CeleryTestSetup,
    CeleryWorkerContainer,
    RedisContainer,
)
from pytest_docker_tools import build, container, fxtr, image
from pytest_docker_tools.wrappers import container as wrapper

import docker
from celery_batcher.embedded import EmbeddedServer
from smoke import batches, project
from smoke.nodes import RedisProcess, start_worker

ROOT = Path(__file__).parents[2]
_IMAGE = os.environ.get("SMOKE_WORKER_IMAGE")
"""An image with celery_batcher in it, for engines that cannot build one."""


@cache
def engine_answers() -> bool:
    """Whether docker-py finds an engine, by its environment variables or at the usual place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it forgets sockets that do not connect
        try:
            docker.from_env(timeout=5).close()
            found = True
        except DockerException:
            found = False
        gc.collect()
    return found


@pytest.fixture(params=["processes", "containers"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What nodes are."""
    # pytest-celery calls nodes by published ports; in a container, the tools forget about these.
    monkeypatch.setattr(wrapper, "tests_inside_container", lambda: False)
    if request.param == "containers" and not engine_answers():
        pytest.skip("no container engine answers; DOCKER_HOST says where one is")
    if request.param == "processes":
        request.getfixturevalue("redis_server")  # that is: there is a server to embed
    return str(request.param)


@pytest.fixture(params=[CELERY_REDIS_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> Any:
    """Redis, which is the store, too."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[CELERY_REDIS_BACKEND])
def celery_backend(request: pytest.FixtureRequest) -> Any:
    """Redis."""
    return request.getfixturevalue(request.param)


# Servers


def _redis(request: pytest.FixtureRequest, kind: str, role: str) -> Iterator[RedisContainer]:
    if kind == "containers":
        yield request.getfixturevalue(f"redis_{role}_container")
        return
    node = RedisProcess(role, EmbeddedServer())
    yield node
    node.end()


@pytest.fixture
def default_redis_broker(request: pytest.FixtureRequest, kind: str) -> Iterator[RedisContainer]:
    """The broker's node."""
    yield from _redis(request, kind, "broker")


@pytest.fixture
def default_redis_backend(request: pytest.FixtureRequest, kind: str) -> Iterator[RedisContainer]:
    """The result backend's node."""
    yield from _redis(request, kind, "backend")


def _redis_container() -> Any:
    return container(
        image="{default_redis_broker_image}",
        ports=fxtr("default_redis_broker_ports"),
        network="{default_pytest_celery_network.name}",
        wrapper_class=RedisContainer,
        timeout=60,
        command=RedisContainer.command(),
    )


redis_broker_container = _redis_container()
redis_backend_container = _redis_container()


# Worker


@pytest.fixture
def default_worker_app_module() -> ModuleType:
    """The module that makes the workers' app."""
    return project


@pytest.fixture
def default_worker_tasks() -> set[ModuleType]:
    """The module with the watchers."""
    return {batches}


@pytest.fixture
def default_worker_command() -> list[str]:
    """A worker with the scheduler in it."""
    options = ("--beat", "--schedule=/tmp/schedule", "--concurrency=2", "--without-mingle")
    return CeleryWorkerContainer.command(*options)


@pytest.fixture
def default_worker_container(
    request: pytest.FixtureRequest,
    kind: str,
    tmp_path: Path,
    default_worker_initial_content: dict[str, Any],
    default_worker_env: dict[str, str],
    default_worker_command: list[str],
) -> Iterator[CeleryWorkerContainer]:
    """The worker's node."""
    if kind == "containers":
        yield request.getfixturevalue("worker_container")
        return
    command = [one.replace("/tmp/", f"{tmp_path}/") for one in default_worker_command]
    env = {**os.environ, **default_worker_env}
    worker = start_worker(tmp_path, default_worker_initial_content, env, command)
    yield worker
    worker.end()


celery_base_worker_image = (
    image(name=_IMAGE)
    if _IMAGE
    else build(path=str(ROOT), dockerfile="docker/Dockerfile", tag="celery-batcher/smoke")
)
worker_container = container(
    image="{celery_base_worker_image.id}",
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes={"{default_worker_volume.name}": DEFAULT_WORKER_VOLUME},
    working_dir=DEFAULT_WORKER_VOLUME["bind"],
    entrypoint=[],
    wrapper_class=CeleryWorkerContainer,
    timeout=60,
    command=fxtr("default_worker_command"),
)


# The test's own process


@pytest.fixture
def celery_setup_app(
    celery_setup_cls: type[CeleryTestSetup],
    celery_setup_config: dict[str, Any],
    celery_setup_name: str,
) -> Iterator[Celery]:
    """The app of a setup, which is closed with it."""
    app = celery_setup_cls.create_setup_app(celery_setup_config, celery_setup_name)
    yield app
    app.backend.client.close()
    app.close()
