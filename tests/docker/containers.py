"""The image of docker/, built and run by podman on a stand-in for its base: `make containers`."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import missing
from eventually import eventually

HERE = Path(__file__).parent
BASE = "localhost/celery-batcher-base:bookworm"
IMAGE = "localhost/celery-batcher-proj"
GUARDED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")
ROLES = {
    "handlers": ["worker", "--queues=celery", "--concurrency=2", "--hostname=handlers@%h"],
    "control": ["worker", "--queues=control", "--concurrency=1", "--hostname=control@%h"],
    "beat": ["beat", "--schedule=/tmp/schedule", "--pidfile="],
}


class Podman:
    """Podman with the images of `stand_ins.sh`; what it has started is removed at the end."""

    def __init__(self) -> None:
        lines = subprocess.check_output([HERE / "stand_ins.sh", "env"], text=True).splitlines()
        self._env = {**os.environ, **dict(line.split("=", 1) for line in lines)}
        self._names: list[str] = []

    def __call__(self, *args: str) -> str:
        done = self.tried(*args)
        assert done.returncode == 0, f"podman {' '.join(args)}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def tried(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *args], env=self._env, capture_output=True, text=True, check=False
        )

    def start(self, role: str, *args: str) -> str:
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        self._names.append(name)
        self("run", "--detach", "--name", name, *args)
        return name

    def remove(self) -> None:
        for name in reversed(self._names):
            self.tried("rm", "--force", "--time=0", name)


pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def podman() -> Iterator[Podman]:
    podman = Podman()
    if podman.tried("image", "exists", IMAGE).returncode != 0:
        missing(f"{IMAGE} (make containers builds it)", required=False)
    yield podman
    podman.remove()


@pytest.fixture
def fleet(podman: Podman) -> dict[str, str]:
    """The containers of compose.yaml that need no other image, on one network without a way out."""
    redis = podman.start("redis", "--network=none", BASE, "redis-server", "--save", "")
    near = (f"--network=container:{redis}", *GUARDED, "--env=BROKER_URL=redis://localhost:6379/0")
    names = {role: podman.start(role, *near, IMAGE, *args) for role, args in ROLES.items()}
    producer = podman.start("producer", *near, "--entrypoint=python", IMAGE, "produce.py")
    return {**names, "producer": producer}


def test_the_image_is_no_roots_and_has_what_it_needs(podman: Podman) -> None:
    inside = ("run", "--rm", "--network=none", *GUARDED, "--entrypoint=sh", IMAGE, "-c")

    assert podman(*inside, "id -u") == "10001"
    assert {"flowerconfig.py", "produce.py", "proj.py"} <= set(podman(*inside, "ls").split())
    assert podman(*inside, "ls /src 2>/dev/null || true") == ""
    podman(*inside, "python -c 'import celery_batcher, flower, prometheus_client'")
    assert "store" in podman(*inside, "BROKER_URL=memory:// celery -A proj batcher list")


def test_a_fleet_settles_batches_and_turns_healthy(podman: Podman, fleet: dict[str, str]) -> None:
    done = "from proj import store; print(store.status().done)"

    def settled() -> bool:
        return int(podman("exec", fleet["control"], "python", "-c", done)) >= 20

    eventually(settled, timeout=90, interval=1)
    for name in fleet.values():
        eventually(
            lambda name=name: podman.tried("healthcheck", "run", name).returncode == 0, timeout=60
        )
        assert podman("inspect", "--format={{.State.Running}}", name) == "true"


def test_who_no_longer_reaches_the_broker_turns_unhealthy(
    podman: Podman, fleet: dict[str, str]
) -> None:
    def healthy(role: str) -> bool:
        return podman.tried("healthcheck", "run", fleet[role]).returncode == 0

    for role in fleet:
        eventually(lambda role=role: healthy(role), timeout=90)

    podman("exec", fleet["beat"], "redis-cli", "shutdown", "nosave")

    for role in ("beat", "producer"):
        eventually(lambda role=role: not healthy(role), timeout=90, interval=1)
