"""A process that has imported everything and forks the fleet: a worker in a tenth of a second.

What it forks are processes like any others, each the leader of its own session and process group.
It is their guard, too: when its standard input closes, because whoever started it has ended,
however that happened, it kills all groups and ends.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
_TICK = 0.03


class Zygote:
    """Starts processes of the fleet and learns of their end."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.zygote"],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._started: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._changed = threading.Condition()
        self._numbers = 0
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._reader.join(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(
        self, what: list[str], settings: dict[str, Any], env: dict[str, str], log: Path
    ) -> int:
        """Fork a process; return its id.

        Args:
            what: ``["producer"]``, or arguments of the `celery` command.
            settings: of its project.
            env: environment variables of its own.
            log: the file its output is appended to.
        """
        assert self._process.stdin is not None
        with self._changed:
            self._numbers += 1
            number = self._numbers
            request = {"number": number, "what": what, "settings": settings, "env": env}
            line = json.dumps({**request, "log": str(log)}).encode() + b"\n"
            self._process.stdin.write(line)
            self._process.stdin.flush()
            if not self._changed.wait_for(lambda: number in self._started, timeout=30):
                raise TimeoutError("the zygote does not answer")
            return self._started.pop(number)

    def ended(self, pid: int) -> bool:
        """Whether the process has ended."""
        return pid in self._ended

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._changed:
                if "number" in said:
                    self._ended.pop(said["pid"], None)
                    self._started[said["number"]] = said["pid"]
                else:
                    self._ended[said["pid"]] = said["status"]
                self._changed.notify_all()


def _serve() -> None:
    """Fork what is asked for, report what ended, until standard input closes."""
    living: set[int] = set()
    waiting = b""
    try:
        while True:
            if select.select([0], [], [], _TICK)[0]:
                received = os.read(0, 65536)
                if not received:
                    return
                *lines, waiting = (waiting + received).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    pid = os.fork()
                    if pid == 0:
                        _become(request)
                    living.add(pid)
                    _say({"number": request["number"], "pid": pid})
            for pid, status in _reaped():
                living.discard(pid)
                _say({"pid": pid, "status": status})
    finally:
        for pid in living:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _say(message: dict[str, int]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _reaped() -> list[tuple[int, int]]:
    found = []
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    return found


def _become(request: dict[str, Any]) -> None:
    """Turn this fork into a process of the fleet; never returns."""
    code = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(request["env"])
        signal.set_wakeup_fd(-1)
        code = _run(request["what"], request["settings"])
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # noqa: BLE001 - this is the top of a process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(what: list[str], settings: dict[str, Any]) -> int:
    from faults import points
    from faults.project import Producer, Settings, build, note_ends

    points.arm()
    note_ends(Path(settings["directory"]))
    if what == ["producer"]:
        Producer(Settings(**settings)).run()
        return 0
    build(Settings(**settings)).app.start(what)
    return 0


def _warm_up() -> None:
    """Import what workers, beats and producers will need."""
    import kombu.transport.pyamqp
    import kombu.transport.redis  # noqa: F401

    from faults.project import Settings, build

    directory = os.environ.get("TMPDIR", "/tmp")
    build(Settings("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0", directory))
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _warm_up()
    _serve()
