"""Starts it all: a private server, a Celery worker with beat, and Django; Ctrl-C ends it all.

REDIS_URL names a Redis server to use instead of a private one, and PORT the port of the pages.
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
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from celery_batcher.embedded import EmbeddedServer, GuardedProcess

HERE = Path(__file__).parent
HOST, PORT = "127.0.0.1", 8000
LOGIN = "admin"


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="django-orders-")))
        if "REDIS_URL" not in os.environ:
            os.environ["REDIS_URL"] = stack.enter_context(EmbeddedServer()).url
        os.environ["SHOP_DATABASE"] = str(directory / "shop.sqlite3")
        os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
        make_database()
        log = directory / "worker.log"
        stack.callback(start_worker(directory, log).stop)

        server = web_server()
        url = f"http://{HOST}:{server.server_port}/"
        print(f"Open {url} and {url}admin/ (Ctrl-C ends it)", flush=True)
        print(f"Log in as {LOGIN} with the password {LOGIN}. The worker's log: {log}", flush=True)
        with suppress(KeyboardInterrupt, SystemExit):
            server.serve_forever()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # another Ctrl-C would leave the worker behind
        print("\nEnding the worker and the server", flush=True)


def end(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends it as Ctrl-C does."""
    raise SystemExit


def make_database() -> None:
    """Tables, and somebody who may log in."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    User.objects.create_superuser(LOGIN, password=LOGIN)


def start_worker(directory: Path, log: Path) -> GuardedProcess:
    """One worker with beat: all that a laptop needs."""
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--beat"]
    command += ["--schedule", str(directory / "schedule"), "--loglevel", "INFO"]
    command += ["--concurrency", "2"]
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return GuardedProcess(
        command, directory=directory, log=log, env={**os.environ, "PYTHONPATH": path}
    )


class Quiet(WSGIRequestHandler):
    """No line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def web_server() -> WSGIServer:
    """Django and its static files, on `PORT`, or on a free port when that is taken."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import ThreadedWSGIServer
    from django.core.wsgi import get_wsgi_application

    app = StaticFilesHandler(get_wsgi_application())
    wanted = int(os.environ.get("PORT", PORT))
    for port in wanted, 0:
        with suppress(OSError):
            return make_server(HOST, port, app, ThreadedWSGIServer, Quiet)
    raise SystemExit("there is no port to serve the pages on")


if __name__ == "__main__":
    main()
