"""Starts, watches and stops the real processes of a run: server, workers, beat, producers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from apps import tape
from apps.settings import Settings
from celery_batcher.embedded import EmbeddedServer, GuardedProcess

HERE = Path(__file__).parent
PATIENCE = 120.0


@dataclass(frozen=True)
class Contender:
    """An app of `apps` and the Python whose environment holds its library."""

    app: str
    python: str = sys.executable


PLAIN = Contender("plain")
BATCHED = Contender("batched")
SHARING = Contender("sharing")


@dataclass(frozen=True)
class Layout:
    """Which `celery` processes serve an app: the arguments of each, by name."""

    processes: dict[str, str]
    control_queue: str = ""


WORKER = Layout({"worker": "worker -c 2"})
SHARED = Layout({"worker": "worker -c 2 -B"})
TWO_SHARED = Layout({"worker": "worker -c 2 -B", "second": "worker -c 2"})
ONE_SLOT = Layout({"worker": "worker -c 1 -B"})
APART = Layout(
    {"worker": "worker -c 2 -Q celery", "control": "worker -c 1 -Q control", "beat": "beat"},
    control_queue="control",
)
TWO_APART = Layout(
    {**APART.processes, "second": "worker -c 2 -Q celery"},
    control_queue="control",
)


@dataclass(frozen=True)
class Production:
    """What a producer reported: rows sent between two times of the monotonic clock."""

    sent: int
    opened: int
    """Rows sent before the start, to open connections."""
    started: float
    ended: float
    cpu: float
    peak_memory: int
    median_call: float | None

    @property
    def rate(self) -> float:
        return self.sent / (self.ended - self.started)


class Server:
    """A private server, and what it says about itself."""

    def __init__(self, embedded: EmbeddedServer) -> None:
        self.binary = embedded.binary
        self.url = embedded.url
        self.client = redis.Redis.from_url(embedded.url)
        self.process = psutil.Process(embedded.pid)

    @classmethod
    @contextmanager
    def running(cls, binary: str | Path | None = None) -> Iterator[Server]:
        # Rewrites of the append-only file would start at any moment, and cost by the data there is.
        options = {"auto-aof-rewrite-percentage": "0"}
        with EmbeddedServer(binary=binary, options=options) as embedded:
            yield cls(embedded)

    @property
    def version(self) -> str:
        info = self.client.info("server")
        name = info.get("server_name", "redis")
        allocator = self.client.info("memory")["mem_allocator"]
        return f"{name} {info[f'{name}_version']}, {allocator}"

    def empty(self) -> None:
        """Delete everything, in memory when this returns, and in the file soon."""
        self.client.execute_command("FLUSHALL", "SYNC")
        self.client.bgrewriteaof()

    def used_memory(self) -> int:
        return int(self.client.info("memory")["used_memory"])


@dataclass(frozen=True)
class Bench:
    """What every measurement gets."""

    server: Server
    batches: Contender | None
    """celery-batches, where its environment is known."""
    quick: bool

    @property
    def scale(self) -> float:
        """A factor of operations and times."""
        return 0.25 if self.quick else 1.0

    @property
    def rounds(self) -> int:
        """How often noisy figures are taken; their median counts."""
        return 1 if self.quick else 3


class Fleet:
    """The processes of one app, on an emptied server or beside other fleets.

    A context manager: at its entry the processes of the layout start and become ready, at its exit
    they end. Handlers leave their records in a directory of the fleet's own.

    Args:
        layout: None starts nothing; `start` does later.
        joins: Others are there already: the server is left as it is.
        settings: Fields of `Settings`.
    """

    def __init__(
        self,
        server: Server,
        contender: Contender,
        layout: Layout | None,
        *,
        joins: bool = False,
        **settings: Any,
    ) -> None:
        self.server = server
        self._joins = joins
        self.contender = contender
        self._layout = layout
        self._settings = settings
        self._processes: dict[str, GuardedProcess] = {}

    def __enter__(self) -> Fleet:
        if not self._joins:
            self.server.empty()
        self._temporary = tempfile.TemporaryDirectory(prefix="benchmark-")
        self.directory = self._temporary.name
        if self._layout:
            try:
                self.start(self._layout)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._temporary.cleanup()

    def start(self, layout: Layout) -> None:
        """Start the processes of the layout and wait until every worker is ready."""
        self._settings["control_queue"] = layout.control_queue
        awaited = tape.ready(self.directory)
        for name, arguments in layout.processes.items():
            self._processes[name] = self._celery(name, arguments)
            awaited += arguments.startswith("worker")
        self.eventually(lambda: tape.ready(self.directory) >= awaited)

    def stop(self) -> None:
        """Kill everything: nobody waits for what a warm shutdown would still do."""
        for process in self._processes.values():
            process.kill()
        self._processes.clear()

    def produce(self, way: str, **options: float) -> Production:
        """Run a producer to its end; the options are those of `producer`."""
        flags = [f"--{name}={value}" for name, value in options.items()]
        return Production(**json.loads(self.run("producer", self.contender.app, way, *flags)))

    def run(self, module: str, *arguments: str) -> str:
        """Run a module in the contender's environment to its end; return what it printed."""
        command = [self.contender.python, "-m", module, *arguments]
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=HERE,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return done.stdout

    def starts(self) -> list[tape.Start]:
        return tape.starts(self.directory)

    def handled(self) -> int:
        return sum(start.operations for start in self.starts())

    def events(self) -> list[tuple[float, int]]:
        """(start, cost) of every call of a handler."""
        return [(start.at, start.cost) for start in self.starts()]

    def latencies(self) -> list[float]:
        return tape.latencies(self.directory)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of the server and of each process with its children."""
        return {
            "server": _cpu([self.server.process]),
            **{name: _cpu(self.tree(name)) for name in self._processes},
        }

    def tree(self, name: str) -> list[psutil.Process]:
        """A process, then its children."""
        process = psutil.Process(self._processes[name].pid)
        return [process, *process.children(recursive=True)]

    @contextmanager
    def stalled(self, *names: str) -> Iterator[None]:
        """SIGSTOP the named processes and their children for as long as the block runs."""
        members = [member for name in names for member in self.tree(name)]
        for member in members:
            member.suspend()
        try:
            yield
        finally:
            for member in members:
                member.resume()

    def eventually(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition. Figures come from records, so looking may be rare and cheap."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = [name for name, process in self._processes.items() if not process.running]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(self._describe(ended))
            time.sleep(0.2)

    def _describe(self, ended: list[str]) -> str:
        logs = (
            f"--- {path.name}\n{path.read_text()[-2000:]}"
            for path in Path(self.directory).glob("*.log")
        )
        why = f"ended: {', '.join(ended)}" if ended else f"nothing came in {PATIENCE:.0f} s"
        return f"{self.contender.app}, {self.handled()} handled, {why}\n" + "\n".join(logs)

    def _celery(self, name: str, arguments: str) -> GuardedProcess:
        command = [self.contender.python, "-m", "celery", "-A", f"apps.{self.contender.app}"]
        command += [*arguments.split(), "--loglevel=WARNING"]
        if arguments == "beat" or "-B" in arguments:
            command += ["-s", f"{self.directory}/schedule"]
        if arguments.startswith("worker"):
            command += ["-n", f"{name}@%h"]
        return GuardedProcess(
            command,
            directory=HERE,
            log=Path(self.directory, f"{name}.log"),
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        settings = Settings(url=self.server.url, directory=self.directory, **self._settings)
        return {**os.environ, **settings.environment()}


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
