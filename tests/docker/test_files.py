"""docker/: its files are well formed and say what production needs, and its app works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from celery import Celery

from celery_batcher import Batcher
from celery_batcher.embedded import GuardedProcess
from conftest import missing
from eventually import eventually

DOCKER = Path(__file__).parents[2] / "docker"
STACKS = {
    "redis": ["compose.yaml"],
    "rabbitmq": ["compose.yaml", "compose.rabbitmq.yaml"],
}


def beside_python(name: str) -> str:
    """A command that was installed with the tests."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        missing(name)
    return str(found)


def check(*command: str) -> None:
    done = subprocess.run(command, cwd=DOCKER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def services(stack: str) -> dict[str, dict[str, Any]]:
    """The services of a stack, merged as compose does with what these files have."""
    merged: dict[str, dict[str, Any]] = {}
    for name in STACKS[stack]:
        for service, options in yaml.safe_load((DOCKER / name).read_text())["services"].items():
            known = merged.setdefault(service, {})
            for key, value in options.items():
                both = isinstance(value, dict) and isinstance(known.get(key), dict)
                known[key] = {**known[key], **value} if both else value
    return merged


def test_the_dockerfile_passes_the_linter() -> None:
    check(beside_python("hadolint"), "Dockerfile")


@pytest.mark.parametrize("stack", STACKS)
def test_compose_files_keep_to_the_specification(stack: str) -> None:
    check(
        beside_python("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *STACKS[stack]
    )


@pytest.mark.parametrize("stack", STACKS)
def test_compose_takes_its_files(stack: str) -> None:
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if version.returncode != 0:
        missing("docker's plugin compose", required=False)
    check("docker", "compose", *(f"--file={name}" for name in STACKS[stack]), "config", "--quiet")


@pytest.mark.parametrize("stack", STACKS)
def test_services_come_back_wait_for_what_they_need_and_tell_how_they_are(stack: str) -> None:
    found = services(stack)
    for name, one in found.items():
        assert one["restart"] == "unless-stopped", name
        assert "build" in one or one["healthcheck"]["test"], name
        assert "build" in one or re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", one["image"]), name
        for needed, how in one.get("depends_on", {}).items():
            assert needed in found
            assert how == {"condition": "service_healthy"}
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ()))
        if "build" in one:
            assert one["read_only"] is True
            assert one["cap_drop"] == ["ALL"]
            assert ("rabbitmq" in one["depends_on"]) is (stack == "rabbitmq")
    assert {name for name, one in found.items() if "ports" in one} == {
        "flower",
        "prometheus",
        "grafana",
    }


@pytest.mark.parametrize("stack", STACKS)
def test_what_is_mounted_is_there(stack: str) -> None:
    named = set[str]()
    for name in STACKS[stack]:
        named |= set(yaml.safe_load((DOCKER / name).read_text())["volumes"])

    sources = [
        mount.split(":")[0] for one in services(stack).values() for mount in one.get("volumes", ())
    ]

    for source in sources:
        if source.startswith("."):
            assert (DOCKER / source).exists(), source
    assert {one for one in sources if not one.startswith(".")} == named


def health_check() -> str:
    """The command of the image's health check."""
    found = re.search(r'CMD \["sh", "-c", "(.*)"\]', (DOCKER / "Dockerfile").read_text())
    assert found is not None
    return found[1].replace('\\"', '"')


@pytest.fixture
def stack(redis_url: str, tmp_path: Path) -> Iterator[dict[str, GuardedProcess]]:
    """The app's processes as compose.yaml starts them."""
    running: dict[str, GuardedProcess] = {}
    for name in ("handlers", "control", "beat", "producer"):
        service = services("redis")[name]
        start = service.get("entrypoint", ["celery", "-A", "proj"]) + service["command"]
        place = tmp_path / name
        place.mkdir()
        command = [one.replace("/tmp/", f"{place}/") for one in start]
        modules = {"celery": ["-m", "celery"], "python": []}
        running[name] = GuardedProcess(
            [sys.executable, *modules[command[0]], *command[1:]],
            directory=DOCKER,
            log=place / "log",
            env={**os.environ, "BROKER_URL": redis_url, "ALIVE": str(place / "alive")},
        )
    yield running
    for process in reversed(running.values()):
        process.kill()


def test_the_apps_processes_settle_what_is_produced_and_turn_healthy(
    stack: dict[str, GuardedProcess], redis_url: str, tmp_path: Path
) -> None:
    app = Celery("test", broker=redis_url, set_as_current=False)
    store = Batcher("store", app=app)

    eventually(lambda: store.status().done >= 20, timeout=60)
    for name, process in stack.items():
        said = shlex.join(["sh", "-c", health_check().replace("/tmp/", f"{tmp_path / name}/")])
        eventually(lambda said=said: subprocess.run(shlex.split(said), check=False).returncode == 0)
        assert process.running, (tmp_path / name / "log").read_text()


def test_flower_has_the_page_and_the_metrics_that_prometheus_scrapes(
    redis_url: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [one.replace("5555", str(port)) for one in services("redis")["flower"]["command"]]
    flower = GuardedProcess(
        [sys.executable, "-m", "celery", "-A", "proj", *command],
        directory=DOCKER,
        log=tmp_path / "log",
        env={**os.environ, "BROKER_URL": redis_url},
    )

    def page(path: str) -> str:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    try:
        assert eventually(lambda: page("/healthcheck"), retry=(OSError,), timeout=30)
        assert "/batchers/static/overview.js" in page("/batchers")
        assert 'celery_batcher_up{batcher="store"}' in page("/metrics")
    finally:
        flower.kill()
