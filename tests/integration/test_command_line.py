"""The real ``celery -A proj batcher ...``: with workers and without, on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pexpect
import pytest

from celery_processes import TESTS, Fleet
from eventually import eventually
from projects import recording
from servers import free_port

BATCHERS = {
    "cosmos": {"capacity": 100, "watchers": {"write": {"max_batch_size": 10}}},
    "free": {"watchers": {"other": {}}},
}


class Terminal:
    """Runs `celery -A projects.recording ...` for a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._directory = fleet.directory
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        settings = str(fleet.directory / "project.json")
        self._env = {**os.environ, recording.VARIABLE: settings, "PYTHONPATH": path}
        self._env |= {"COLUMNS": "120"}

    def run(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, without a terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "projects.recording", *args],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def batcher(self, *args: str, code: int = 0) -> str:
        """What `batcher ...` says."""
        return self.run("batcher", *args, code=code).stdout

    def answered(self, *args: str, code: int = 0) -> Any:
        """The JSON that `batcher ... --json` answers with."""
        return json.loads(self.batcher(*args, "--json", code=code))

    def open(self, *args: str) -> Any:
        """Run it in a terminal of 120 x 40."""
        return pexpect.spawn(
            sys.executable,
            ["-m", "celery", "-A", "projects.recording", "batcher", *args],
            cwd=str(self._directory),
            env={**self._env, "TERM": "xterm-256color", "LINES": "40"},
            dimensions=(40, 120),
            encoding="utf-8",
            timeout=60,
        )


def test_the_plugin_is_installed() -> None:
    (found,) = [one for one in entry_points(group="celery.commands") if one.name == "batcher"]

    assert found.value == "celery_batcher.bin.batcher:batcher"


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path, broker=redis_url, batchers=BATCHERS) as fleet:
        yield fleet


def test_operators_work_without_any_worker(fleet: Fleet) -> None:
    terminal = Terminal(fleet)
    fleet.project.watchers["write"].enqueue_many([{"n": n} for n in range(30)], cost=5)

    assert {one["name"] for one in terminal.answered("list")} == {"cosmos", "free"}
    assert "in lanes   30," in terminal.batcher("status", "cosmos")
    terminal.batcher("pause", "cosmos")
    assert terminal.answered("purge", "cosmos", "--yes")["removed"] == 30
    status = terminal.answered("status", "cosmos")
    assert (status["admitted"], status["phase"], status["paused_for"]) == (0, "paused", None)
    assert "did you mean 'cosmos'?" in terminal.run("batcher", "peek", "cosmo", code=2).stderr


def test_workers_answer_to_operators_and_remote_control(fleet: Fleet) -> None:
    terminal = Terminal(fleet)
    fleet.worker(beat=True)
    write = fleet.project.watchers["write"]
    write.enqueue_many([{"n": n, "do": ["fail"] * (n == 3)} for n in range(20)], cost=5)
    fleet.await_settled("cosmos")

    (letter,) = terminal.answered("dead", "cosmos", "list")
    assert (letter["payload"]["n"], letter["reason"]) == (3, "told to fail")
    paused = terminal.run("control", "batcher_pause", "cosmos", "--json")
    assert "cosmos: paused until resumed" in paused.stdout
    write.enqueue_many([{"n": n} for n in range(4)], cost=5)
    eventually(lambda: fleet.project.batchers["cosmos"].status().waiting == 4)
    assert [one["payload"]["n"] for one in terminal.answered("peek", "cosmos")] == [0, 1, 2, 3]
    assert '"phase": "paused"' in terminal.run("inspect", "batchers", "--json").stdout
    assert terminal.answered("resume", "cosmos")["phase"] == "flushing"
    assert terminal.answered("drain", "cosmos", "--yes", "--timeout", "30")["drained"] is True


def test_everything_works_on_rabbitmq_with_a_store_on_redis(
    rabbitmq_url: str, redis_url: str, tmp_path: Path, unique: str
) -> None:
    batchers = {unique: {"capacity": 100, "watchers": {f"{unique}.write": {}}}}
    conf = {"batcher_store_url": redis_url}
    with Fleet(tmp_path, broker=rabbitmq_url, batchers=batchers, conf=conf) as fleet:
        terminal = Terminal(fleet)
        fleet.project.watchers[f"{unique}.write"].enqueue_many([{"n": 1}] * 40, cost=5)

        assert terminal.answered("status", unique)["admitted"] == 40
        assert terminal.answered("purge", unique, "--yes")["removed"] == 40
        assert fleet.project.batchers[unique].needs_capacity() == 0


def test_servers_that_are_away_are_a_line_without_their_password(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with Fleet(tmp_path, broker=url, batchers=BATCHERS) as fleet:
        failed = Terminal(fleet).run("batcher", "status", code=3)

    (line,) = failed.stderr.splitlines()
    assert line.startswith("Error: the store at redis://:**@127.0.0.1:")
    assert "is the server up?" in line
    assert failed.stdout == ""


def test_a_terminal_shows_the_status_live_until_ctrl_c(fleet: Fleet) -> None:
    fleet.project.batchers["cosmos"].pause(None)
    screen = Terminal(fleet).open("status", "cosmos", "--watch", "--interval", "0.2")
    screen.expect("paused until resumed")
    fleet.project.batchers["cosmos"].resume()
    fleet.project.watchers["write"].enqueue_many([{"n": 1}] * 7)

    screen.expect("nobody flushes")
    screen.expect("in lanes.*7,")
    screen.sendintr()
    screen.expect(pexpect.EOF)
    screen.close()

    assert screen.exitstatus == 0
    assert "\x1b[?1049l" in screen.before  # it left its own screen


def test_a_terminal_is_asked_before_anything_is_removed(fleet: Fleet) -> None:
    fleet.project.watchers["write"].enqueue_many([{"n": 1}] * 7)
    for answer, code, left in (("n", 1, 7), ("y", 0, 0)):
        asked = Terminal(fleet).open("purge", "cosmos")
        asked.expect("Remove the buffer of 7 operations in cosmos for good?")
        asked.sendline(answer)
        asked.expect(pexpect.EOF)
        asked.close()

        assert asked.exitstatus == code
        assert fleet.project.batchers["cosmos"].operations_in_buffer() == left


def test_metrics_are_served_and_events_followed(redis_url: str, tmp_path: Path) -> None:
    conf = {"batcher_send_events": True}
    with Fleet(tmp_path, broker=redis_url, batchers=BATCHERS, conf=conf) as fleet:
        terminal = Terminal(fleet)
        served = terminal.open("metrics", "--port", "0")
        followed = terminal.open("events", "cosmos")
        served.expect(r"metrics at (http://127.0.0.1:\d+/metrics), until Ctrl-C")
        with urllib.request.urlopen(served.match[1], timeout=30) as answer:
            assert b'celery_batcher_up{batcher="cosmos"} 1.0' in answer.read()

        followed.expect("following events, until Ctrl-C")
        fleet.project.batchers["free"].pause(3)
        fleet.project.batchers["cosmos"].pause(5)
        followed.expect("paused    cosmos  pause_time=5")
        assert "free" not in followed.before
        for one in (served, followed):
            one.sendintr()
            one.expect(pexpect.EOF)
            one.close()
            assert one.exitstatus == 0
