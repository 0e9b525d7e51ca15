"""The built wheel in an environment that has nothing else but what it declares."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from celery_batcher.embedded import GuardedProcess

pytestmark = pytest.mark.timeout(300)  # the first test installs

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".venv" / "wheel"
"""Where `make test` has put the wheel that it tests."""
PROJECT = """
from celery import Celery
from celery_batcher import Batcher, ProvisionedResource

app = Celery("proj", broker={url!r})
store = Batcher("store", app=app, rate_limiter=ProvisionedResource(1_000))

@store.watcher(name="write", max_batch_size=10)
def write(batch):
    for one in batch:
        batch.charge(one, 1)
"""
END_TO_END = """
import time
from proj import store, write
assert write.enqueue_many(range(95), cost=2) == 95
until = time.monotonic() + 60
while store.status().done < 95 and time.monotonic() < until:
    time.sleep(0.05)
status = store.status()
print(status.done, status.waiting, status.dead)
store.pause(None)
"""
EXTRAS = """
import importlib
from celery_batcher import AzureBlobLeaseManager
from celery_batcher.embedded import EmbeddedServer

def load(name):
    return lambda: importlib.import_module(f"celery_batcher.contrib.{name}")

tried = {
    "azure": lambda: AzureBlobLeaseManager("a", container="c", master_key="k").provision(1),
    "embedded": lambda: EmbeddedServer(binary=None).start(),
    "django": load("django.commits"),
    "flask": load("flask"),
    "flower": load("flower"),
    "metrics": load("prometheus"),
}
for extra, use in tried.items():
    try:
        use()
    except Exception as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name.startswith("celery_batcher."):
            continue  # it is not written yet
        print(extra, "|", str(exc).replace(chr(10), " "))
    else:
        print(extra, "| nothing was missing")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `make test` built, or one built now."""
    built = [*BUILT.glob("*.whl")] if os.environ.get("TEST_INSTALLED") else []
    if not built:
        directory = tmp_path_factory.mktemp("wheel")
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, ROOT)
        built = [*directory.glob("*.whl")]
    (found,) = built
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and what it depends on."""
    directory = tmp_path_factory.mktemp("empty")
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "-q", "--no-compile", "--disable-pip-version-check", wheel)
    return python


@pytest.fixture
def project(redis_url: str, tmp_path: Path) -> Path:
    """A directory with a project in it."""
    (tmp_path / "proj.py").write_text(PROJECT.format(url=redis_url))
    return tmp_path


@pytest.fixture
def fleet(python: Path, project: Path) -> Iterator[GuardedProcess]:
    """A worker of the project, with a beat in it."""
    worker = ("-A", "proj", "worker", "-B", "-P", "threads", "-c", "2", "-s", "schedule")
    process = GuardedProcess(
        [python, "-m", "celery", *worker],
        directory=project,
        log=project / "worker.log",
        env=environment(),
    )
    yield process
    process.stop()


def environment() -> dict[str, str]:
    """What this process has, but for ways to modules of the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*args: str | Path, directory: Path | None = None) -> str:
    """Run a command in an environment without the checkout; return what it printed."""
    done = subprocess.run(
        args, cwd=directory, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    listed = run(
        "git", "ls-files", "-co", "--exclude-standard", "celery_batcher", directory=ROOT
    ).split()

    assert inside == set(listed)
    kinds = {Path(name).suffix for name in inside}
    assert {".py", ".typed", ".lua"} <= kinds


def test_the_metadata_name_what_is_needed_and_what_is_plugged_in(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (metadata, points) = (
            archive.read(next(one for one in archive.namelist() if one.endswith(name))).decode()
            for name in ("/METADATA", "/entry_points.txt")
        )
    fields: Message = Parser().parsestr(metadata)

    needed = {
        re.split(r"\W", one)[0] for one in fields.get_all("Requires-Dist", []) if "extra" not in one
    }
    assert needed >= {"celery", "kombu", "packaging", "redis"}
    assert "[pytest11]\ncelery_batcher.contrib.pytest = celery_batcher.contrib.pytest" in points
    assert fields["License-File"] == "LICENSE"


def test_a_fleet_handles_operations(python: Path, project: Path, fleet: GuardedProcess) -> None:
    printed = run(python, "-c", END_TO_END, directory=project)

    assert printed.split() == ["95", "0", "0"], (project / "worker.log").read_text()


def test_the_command_line_is_there(python: Path, project: Path) -> None:
    if importlib.util.find_spec("celery_batcher.bin") is None:
        pytest.skip("there is no command line yet")

    printed = run(python, "-m", "celery", "-A", "proj", "batcher", "list", directory=project)

    assert "store" in printed


def test_what_an_extra_would_bring_is_named_with_the_line_for_pip(python: Path) -> None:
    printed = run(python, "-c", EXTRAS)

    said = dict(line.split(" | ") for line in printed.splitlines())
    assert {"azure", "flask", "metrics"} <= set(said)
    for extra, message in said.items():
        if extra == "embedded" and "celery-batcher" not in message:
            continue  # a server on the PATH will do
        assert f'pip install "celery-batcher[{extra}]"' in message
