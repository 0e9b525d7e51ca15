"""Starts it all: a private server, a Celery worker with beat, and Flask; Ctrl-C ends it all.

REDIS_URL names a Redis server to use instead of a private one, PORT the port of the page, and
OPERATIONS is how many an ingest enqueues, if it shall not be a random number.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from celery_batcher.embedded import EmbeddedServer, GuardedProcess

HERE = Path(__file__).parent
HOST, PORT = "127.0.0.1", 5000


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flask-ingest-")))
        if "REDIS_URL" not in os.environ:
            os.environ["REDIS_URL"] = stack.enter_context(EmbeddedServer()).url
        log = directory / "worker.log"
        worker = start_worker(directory, log)
        stack.callback(worker.stop)

        from web import create_app  # it reads REDIS_URL

        server = web_server(create_app())
        print(f"Open http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        print(f"The worker's log: {log}", flush=True)
        with suppress(KeyboardInterrupt, SystemExit):
            server.serve_forever()
        print("\nEnding the worker and the server", flush=True)


def end(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends it as Ctrl-C does."""
    raise SystemExit


def start_worker(directory: Path, log: Path) -> GuardedProcess:
    """One worker with beat: all that a laptop needs."""
    command = [sys.executable, "-m", "celery", "-A", "make_celery", "worker", "--beat"]
    command += ["--schedule", str(directory / "schedule"), "--loglevel", "INFO"]
    command += ["--concurrency", "4"]
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return GuardedProcess(
        command, directory=directory, log=log, env={**os.environ, "PYTHONPATH": path}
    )


class Quiet(WSGIRequestHandler):
    """No line for each request."""

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Say nothing."""


def web_server(app: Any) -> BaseWSGIServer:
    """Flask's own server on `PORT`, or on a free port when that is taken."""
    wanted = int(os.environ.get("PORT", PORT))
    options: dict[str, Any] = {"threaded": True, "request_handler": Quiet}
    try:
        return make_server(HOST, wanted, app, **options)
    except (OSError, SystemExit):
        return make_server(HOST, 0, app, **options)


if __name__ == "__main__":
    main()
