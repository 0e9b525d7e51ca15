"""The quickstart and the README, walked through on real processes: each file, each command."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest

from celery_batcher.embedded import GuardedProcess, free_port
from eventually import eventually
from pages import ROOT, blocks


class Walk:
    """Does what a page says, block by block, in a directory and with a Redis of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "processes.log"
        self._port = str(free_port())
        self._running: list[GuardedProcess] = []

    def through(self, page: str) -> None:
        """Write each file, run each command, and see what it prints."""
        for block in blocks(page):
            if block.file:
                (self.directory / block.file).write_text(self._here(block.text))
            elif block.language == "console":
                for command in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                    line, _, output = command.partition("\n")
                    self._run(line.partition("  #")[0].strip(), output.split("\n"))

    def stop(self) -> None:
        """End what was started, the newest first; nothing of it is needed any more."""
        for process in reversed(self._running):
            process.kill()

    def _here(self, text: str) -> str:
        return text.replace("6379", self._port)

    def _run(self, line: str, output: list[str]) -> None:
        if line.startswith("pip install "):
            extras = re.findall(r"\[(\w+)\]", line)
            assert set(extras) <= set(metadata("celery-batcher").get_all("Provides-Extra") or ())
        elif line.startswith("make "):
            assert f"\n{line.split()[1]}:" in (ROOT / "Makefile").read_text()
        elif line.endswith("&"):
            program = self._command(line.rpartition(" &")[0])
            self._running.append(
                GuardedProcess(program, directory=self.directory, log=self.log, env=self._env())
            )
        else:
            expected = [one for one in output if one]
            eventually(lambda: self._prints(line, expected), timeout=40.0, interval=0.5)

    def _prints(self, line: str, expected: list[str]) -> bool:
        """Run a command; whether it prints these lines, in which ``...`` is anything."""
        result = subprocess.run(
            self._command(line),
            cwd=self.directory,
            env=self._env(),
            check=False,
            capture_output=True,
            text=True,
        )
        if not result.returncode and not expected:
            return True
        lines = result.stdout.splitlines()
        found = len(lines) == len(expected) and all(
            fnmatch.fnmatchcase(said, one.replace("[", "[[]").replace("...", "*"))
            for said, one in zip(lines, expected, strict=True)
        )
        assert found, f"{line}\n{result.stdout}{result.stderr}"
        return True

    def _command(self, line: str) -> list[str]:
        program, *arguments = shlex.split(self._here(line))
        module = {"python": [], "celery": ["-m", "celery"]}[program]
        return [sys.executable, *module, *arguments]

    def _env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """A walk that ends its processes."""
    walk = Walk(tmp_path)
    yield walk
    walk.stop()


def written(walk: Walk) -> int:
    """Orders that the workers said they wrote."""
    said = re.findall(r"writing (\d+) orders, (\d+) units", walk.log.read_text())
    assert all(int(units) == 10 * int(orders) <= 1_000 for orders, units in said)
    return sum(int(orders) for orders, _ in said)


def test_the_quickstart_works_as_it_says(walk: Walk) -> None:
    walk.through("docs/quickstart.md")

    assert written(walk) >= 300  # and the one that is tried again


def test_the_readme_works_as_it_says(walk: Walk) -> None:
    walk.through("README.md")

    eventually(lambda: written(walk) == 300, timeout=40)
