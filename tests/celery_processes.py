"""Real `celery` processes for tests: workers and beats of a project, and what they wrote down."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from weakref import WeakSet

import psutil

from celery_batcher.embedded import GuardedProcess, free_port
from connected import close
from eventually import eventually
from projects import recording

TESTS = Path(__file__).parent


class CeleryProcess:
    """One `celery` process and its children; its own directory keeps the checkout off its path."""

    def __init__(self, name: str, args: Sequence[str], directory: Path, project: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._directory = directory
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        self._env = {**os.environ, recording.VARIABLE: str(project), "PYTHONPATH": path}
        self._command = [sys.executable, "-m", "celery", "-A", "projects.recording", *args]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self._logged_before = self.log.stat().st_size if self.log.exists() else 0
        self._told_to_end = False
        self._process = GuardedProcess(
            self._command, directory=self._directory, log=self.log, env=self._env
        )

    @property
    def failed(self) -> bool:
        """Whether it ended without being told to."""
        return not (self._process.running or self._told_to_end)

    @property
    def pid(self) -> int:
        """Process id of the parent."""
        return self._process.pid

    @property
    def children(self) -> list[int]:
        """Process ids of its children."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def await_log(self, text: str, *, timeout: float = 30.0) -> None:
        """Wait until the process has logged a text since its start."""

        def logged() -> bool:
            assert self._process.running, f"{self.name} ended:\n{self.log_tail()}"
            return text.encode() in self.log.read_bytes()[self._logged_before :]

        eventually(logged, timeout=timeout, retry=())

    def log_tail(self, lines: int = 60) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: int) -> None:
        """Send a signal to the process and all its children."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill it with all its children."""
        self._told_to_end = True
        self._process.kill()

    def stop(self) -> None:
        """End it in good order; what does not end in time is killed."""
        self._told_to_end = True
        self._process.stop(timeout=5.0)


@dataclass(frozen=True, slots=True)
class Start:
    """A handler's start, as it wrote it down. ``at`` is the machine's monotonic clock."""

    at: float
    batch: str
    watcher: str
    pid: int
    cost: int
    operations: tuple[tuple[str, int, Any, str | None, str], ...]


@dataclass(frozen=True, slots=True)
class End:
    """A handler's end."""

    at: float
    batch: str
    outcome: str


class Journal:
    """What the handlers of a project wrote down, read when asked."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _lines(self) -> Iterable[dict[str, Any]]:
        if not self._path.exists():
            return
        whole, _, _ = self._path.read_text().rpartition("\n")  # the last may be half written
        for line in whole.splitlines():
            yield json.loads(line)

    def starts(self, *watchers: str) -> list[Start]:
        """Starts of handlers, in their order; of some watchers, or of all."""
        found = [
            Start(
                line["t"],
                line["batch"],
                line["watcher"],
                line["pid"],
                line["cost"],
                tuple(tuple(one) for one in line["operations"]),
            )
            for line in self._lines()
            if line["event"] == "start" and (not watchers or line["watcher"] in watchers)
        ]
        return sorted(found, key=lambda start: start.at)

    def ends(self, batch: str) -> list[End]:
        """Ends of the handlers of a batch."""
        return [
            End(line["t"], line["batch"], line["outcome"])
            for line in self._lines()
            if line["event"] == "end" and line["batch"] == batch
        ]

    def attempts(self, *watchers: str) -> Counter[tuple[str, int]]:
        """How often each attempt of each operation was handled."""
        return Counter((op[0], op[1]) for one in self.starts(*watchers) for op in one.operations)

    def numbers(self, *watchers: str) -> list[int]:
        """The ``n`` of the payloads handled, in order of start."""
        return [op[2]["n"] for one in self.starts(*watchers) for op in one.operations]


def worst_window(starts: Iterable[Start], window: float = 1.0) -> int:
    """The highest cost that was started in any window of this many seconds."""
    ordered = sorted(starts, key=lambda start: start.at)
    worst = total = first = 0
    for start in ordered:
        total += start.cost
        while ordered[first].at <= start.at - window:
            total -= ordered[first].cost
            first += 1
        worst = max(worst, total)
    return worst


class Fleet:
    """A project, the processes that run it, and its journal.

    Args:
        directory: where processes run and write.
        broker: address of the broker.
        batchers: by name: ``capacity``, ``resource``, ``options`` and ``watchers``.
        conf: further settings of the app.
    """

    running: ClassVar[WeakSet[Fleet]] = WeakSet()

    def __init__(
        self,
        directory: Path,
        *,
        broker: str,
        batchers: Mapping[str, Any],
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        settings = {
            "broker": broker,
            "directory": str(directory),
            "batchers": batchers,
            "conf": conf or {},
        }
        self._settings = directory / "project.json"
        self._settings.write_text(json.dumps(settings))
        self.project = recording.build(settings)
        self.journal = Journal(directory / "journal")
        self.processes: list[CeleryProcess] = []
        self._numbers = count(1)

    def __enter__(self) -> Fleet:
        Fleet.running.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.kill()
        for batcher in self.project.batchers.values():
            batcher.stop()
            close(batcher.connections)
        self.project.app.close()
        Fleet.running.discard(self)

    def worker(
        self,
        *,
        concurrency: int = 2,
        pool: str = "prefork",
        queues: str = "celery",
        beat: bool = False,
        wait: bool = True,
    ) -> CeleryProcess:
        """Start a worker; ``beat``: with the scheduler in it (`worker -B`)."""
        name = f"worker{next(self._numbers)}"
        args = ["worker", "--loglevel=INFO", f"--hostname={name}@test", f"--pool={pool}"]
        args += [f"--concurrency={concurrency}"]
        args += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        args += [f"--queues={queues}"] if queues else []
        args += ["--beat", f"--schedule={self.directory / name}.schedule"] if beat else []
        process = self._start(name, args)
        if wait:
            process.await_log(" ready.")
        return process

    def beat(self, *more: str) -> CeleryProcess:
        """Start a scheduler, with further arguments."""
        name = f"beat{next(self._numbers)}"
        schedule = f"--schedule={self.directory / name}.schedule"
        pidfile = f"--pidfile={self.directory / name}.pid"
        process = self._start(name, ["beat", "--loglevel=INFO", schedule, pidfile, *more])
        process.await_log("beat: Starting...")
        return process

    def flower(self, *options: str, config: str) -> tuple[CeleryProcess, str]:
        """Start Flower with a configuration file; return its process and its address."""
        name, port = f"flower{next(self._numbers)}", free_port()
        conf = self.directory / f"{name}.py"
        conf.write_text(config)
        where = ["--address=127.0.0.1", f"--port={port}", f"--conf={conf}"]
        process = self._start(name, ["flower", *where, *options])
        return process, f"http://127.0.0.1:{port}"

    def _start(self, name: str, args: Sequence[str]) -> CeleryProcess:
        process = CeleryProcess(name, args, self.directory, self._settings)
        self.processes.append(process)
        return process

    def restart_failed(self) -> None:
        """Start what ended by itself again, as the supervisor of a production system does.

        A worker's parent may end when its broker does: closing the lost connection, Kombu 5.7
        raises an AttributeError that Celery does not survive.
        """
        for process in self.processes:
            if process.failed:
                process.kill()  # its children too
                process.start()

    def open_gate(self) -> None:
        """Let handlers go on that wait at the gate."""
        (self.directory / "gate").touch()

    def close_gate(self) -> None:
        """Make handlers wait at the gate from now on."""
        (self.directory / "gate").unlink(missing_ok=True)

    def flushers(self, batcher: str) -> list[int]:
        """Ids of processes that flushed a batcher whose ``note_flusher`` is set, the last first."""
        notes = self.directory.glob(f"flusher-{batcher}.*")
        latest = sorted(notes, key=lambda note: note.stat().st_mtime, reverse=True)
        return [int(note.suffix[1:]) for note in latest]

    def await_settled(self, *batchers: str, timeout: float = 30.0) -> None:
        """Wait until nothing of these batchers is on its way, from the books to a handler."""
        for name in batchers:
            batcher = self.project.batchers[name]

            def settled(batcher: Any = batcher) -> None:
                self.restart_failed()
                status = batcher.status()
                left = status.admitted, status.waiting, status.delayed
                assert (*left, status.released, status.running) == (0, 0, 0, 0, 0), status

            eventually(settled, timeout=timeout, interval=0.05)
            assert batcher.needs_capacity() == 0
            assert batcher.inflight() == 0

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n\n".join(f"--- {one.name}\n{one.log_tail()}" for one in self.processes)


def record_for(seconds: float) -> None:
    """Let a real time window pass, in which processes are being recorded."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, timeout=seconds + 5)
