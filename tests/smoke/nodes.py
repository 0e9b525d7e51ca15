"""pytest-celery's nodes as plain processes, for machines without a container engine."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from celery_batcher.embedded import EmbeddedServer, GuardedProcess
from eventually import eventually


class ProcessContainer:
    """What pytest-celery asks of a container of docker-py, answered by a process."""

    attrs: Mapping[str, Any] = {
        "Config": {"Hostname": "localhost", "Env": []},
        "HostConfig": {"PortBindings": {}},
        "NetworkSettings": {"Networks": {}, "Ports": {}},
    }

    def __init__(
        self, name: str, args: Sequence[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        self.id, self.name = uuid.uuid4().hex, name
        self._args, self._directory, self._env = args, directory, env
        self._log = directory / f"{name}.log"
        self.start()

    def start(self) -> None:
        self._process = GuardedProcess(
            self._args, directory=self._directory, log=self._log, env=self._env
        )

    def reload(self) -> None:
        """A process has no state but its own."""

    @property
    def status(self) -> str:
        return "running" if self._process.running else "exited"

    def logs(self, **_: Any) -> bytes:
        return self._log.read_bytes()

    def kill(self, signal: int | str = signal.SIGKILL) -> None:
        self._process.kill()

    def stop(self, timeout: float = 10) -> None:
        self._process.stop(timeout=timeout)

    def restart(self, timeout: float = 10) -> None:
        self.stop(timeout)
        self.start()


class ServerContainer(ProcessContainer):
    """The same for an embedded server."""

    def __init__(self, name: str, server: EmbeddedServer) -> None:
        self.id, self.name = uuid.uuid4().hex, name
        self._server = server
        self.start()

    def start(self) -> None:
        self._server.start()

    @property
    def status(self) -> str:
        return "running" if self._server.pid is not None else "exited"

    def logs(self, **_: Any) -> bytes:
        return b""

    def kill(self, signal: int | str = signal.SIGKILL) -> None:
        self._server.kill()

    def stop(self, timeout: float = 10) -> None:
        self._server.stop()


class RedisProcess(RedisContainer):
    """A Redis node whose container is an embedded server."""

    def __init__(self, name: str, server: EmbeddedServer) -> None:
        super().__init__(ServerContainer(name, server))
        self._server = server

    def ready(self) -> bool:
        return self.status == "running"  # its start waits until it answers

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return str(self.host_url)

    def end(self) -> None:
        """Stop it and forget its data."""
        self._container.stop()


class WorkerProcess(CeleryWorkerContainer):
    """A worker node whose container is a process."""

    def ready(self) -> bool:
        assert self.status == "running", self.logs()
        return self.ready_prompt in self.logs()

    def end(self) -> None:
        """Kill it: what it leaves undone is nobody's."""
        self._container.kill()


def start_worker(
    directory: Path, content: Mapping[str, Any], env: Mapping[str, str], command: Sequence[str]
) -> WorkerProcess:
    """A worker that is ready, in a directory with the files pytest-celery has for it."""
    for name, data in content.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data or b"")
    worker = WorkerProcess(
        ProcessContainer(
            "worker",
            [sys.executable, "-m", *command],
            directory=directory,
            env={**env, "PYTHONPATH": str(directory)},
        )
    )
    eventually(worker.ready, timeout=30)
    return worker
