"""Flask: Celery made from the configuration, handlers in an app context, views of what goes on.

    from celery_batcher.contrib.flask import BatcherExtension

    def create_app():
        app = Flask(__name__)
        app.config["CELERY"] = {"broker_url": "redis://localhost:6379/0"}
        BatcherExtension(app)
        return app

Batchers need no app: `Batcher("orders")` at the top of a module uses Celery's current app, which
the extension makes the default one. See docs/flask.md.
"""

from __future__ import annotations

from typing import Any, cast

import click
from celery import Celery, Task
from celery.bin.base import CLIContext

from ..batcher import Batcher
from ..errors import ConfigurationError, NoBatcherError, StoreUnavailableError
from ..plain import plain
from ..tasks import batchers, the_batcher

try:
    from flask import Blueprint, Flask, Response, current_app, jsonify
    from flask.cli import ScriptInfo
except ImportError as exc:  # pragma: no cover
    raise ImportError('Flask is not installed: pip install "celery-batcher[flask]"') from exc


def celery_init_app(app: Flask) -> Celery:
    """Make the Celery app of a Flask app, as Flask's documentation does it.

    It is configured from ``app.config["CELERY"]``, is Celery's default app from now on, and is
    ``app.extensions["celery"]``. Its tasks, and so handlers of batches, run in an app context.
    """

    class FlaskTask(Task):  # type: ignore[type-arg] # Celery's own is no generic
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app: Celery = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config.get("CELERY", {}))
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


class BatcherExtension:
    """Lets a Flask app use batchers: a Celery app if it has none yet, and ``flask batcher``.

    Args:
        app: the Flask app; or none, and `init_app` later, for each.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up one Flask app. A Celery app that is in ``app.extensions["celery"]`` is kept."""
        if "celery" not in app.extensions:
            celery_init_app(app)
        app.extensions["celery_batcher"] = self
        app.cli.add_command(_Commands("batcher", help="Look at batchers and operate them."))

    @property
    def batchers(self) -> dict[str, Batcher]:
        """The batchers of the current Flask app in this process, by name."""
        return {one.name: one for one in batchers(_celery_app())}


class _Commands(click.Group):
    """``flask batcher``: what ``celery batcher`` has, for the Celery app of the Flask app."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from ..bin.batcher import batcher

        return list(batcher.list_commands(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from ..bin.batcher import batcher

        found: click.Command | None = batcher.get_command(ctx, cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        app = ctx.ensure_object(ScriptInfo).load_app()
        with app.app_context():
            ctx.obj = CLIContext(app=_celery_app(), no_color=False, workdir=None)
            return super().invoke(ctx)


def blueprint(name: str = "celery_batcher") -> Blueprint:
    """A new blueprint of what operators read: ``/batchers``, ``/batchers/<name>``, ``/metrics``.

    It asks nobody who they are. Give it what your app has for that, before it is registered::

        operations = blueprint()
        operations.before_request(staff_only)
        app.register_blueprint(operations, url_prefix="/ops")
    """
    made = Blueprint(name, __name__)
    made.add_url_rule("/batchers", "batchers", _all)
    made.add_url_rule("/batchers/<name>", "batcher", _one)
    made.add_url_rule("/metrics", "metrics", _metrics)
    return made


def _all() -> tuple[Response, int]:
    """The status of every batcher. One whose store is away has ``error``, and the answer is 503."""
    rows = [_status(one) for one in batchers(_celery_app())]
    return jsonify(batchers=rows), 503 if any("error" in row for row in rows) else 200


def _one(name: str) -> tuple[Response, int]:
    """The status of a batcher."""
    try:
        row = _status(the_batcher(_celery_app(), name))
    except NoBatcherError as exc:
        return jsonify(error=str(exc)), 404
    return jsonify(row), 503 if "error" in row else 200


def _status(batcher: Batcher) -> dict[str, Any]:
    try:
        row = cast(dict[str, Any], plain(batcher.status()))
    except StoreUnavailableError as exc:
        return {"name": batcher.name, "error": str(exc)}
    for message in row["set_aside_messages"]:
        del message["data"]  # somebody's payloads
    return row


def _metrics() -> Response:
    """What Prometheus scrapes."""
    from .prometheus import exposition

    body, content_type = exposition(_celery_app())
    return Response(body, content_type=content_type)


def _celery_app() -> Celery:
    found = current_app.extensions.get("celery")
    if found is None:
        raise ConfigurationError(
            f"Flask app {current_app.name} has no Celery app: BatcherExtension(app) makes one"
        )
    return cast(Celery, found)
