"""The Flask app: start an ingest, move the capacity, and watch."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, abort, render_template, request

from batches import COST, ingest, write
from celery_batcher.contrib.flask import BatcherExtension
from celery_batcher.errors import BatcherError
from celery_batcher.plain import plain

LEAST, MOST = 1_000, 21_000
STEP = 1_000
LIVE_INTERVAL = 0.25
REPORT_INTERVAL = 1.0
RECENT, BATCHES = 100, 12

views = Blueprint("ingest", __name__)


def create_app() -> Flask:
    """The app; `REDIS_URL` is its broker and store."""
    app = Flask(__name__)
    app.config["CELERY"] = {
        "broker_url": os.environ.get("REDIS_URL", "redis://localhost:6379/0"),
        "broker_connection_retry_on_startup": True,
        "worker_hijack_root_logger": False,
    }
    BatcherExtension(app)
    app.register_blueprint(views)
    return app


@views.before_request
def refuse_other_sites() -> None:
    """A page of another site must not press the buttons of this one."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if request.method == "POST" and site not in ("none", "same-origin"):
        abort(403)


@views.after_request
def nothing_from_outside(response: Response) -> Response:
    """Scripts and styles are ours."""
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response


@views.get("/")
def page() -> str:
    """What is going on, live."""
    return render_template("index.html", cost=COST)


@views.post("/ingest")
def start() -> Response:
    """Enqueue a random number of operations, and report in lines of text until they are done.

    Who accepts JSON is told the number, and does not wait.
    """
    number = int(os.environ.get("OPERATIONS", "0")) or random.randint(LEAST, MOST)
    write.enqueue_many({"n": n} for n in range(number))
    if request.accept_mimetypes.best == "application/json":
        return Response(json.dumps({"operations": number}), 202, mimetype="application/json")
    return Response(report(number), mimetype="text/plain")


def report(number: int) -> Iterator[str]:
    """A line a second until all that was enqueued up to now is done."""
    yield f"{number:,} operations of cost {COST} are enqueued\n"
    status = ingest.status()
    ended = status.done + status.dead
    all_of_them = ended + left(status)
    while ended < all_of_them:
        time.sleep(REPORT_INTERVAL)
        status = ingest.status()
        ended = status.done + status.dead
        yield f"{max(0, all_of_them - ended):,} to do\n"
    yield "done\n"


def left(status: Any) -> int:
    """Operations that are not done yet, wherever they are."""
    buffered = status.admitted + status.waiting + status.delayed
    return int(buffered + status.released + status.running)


@views.post("/inc")
def more() -> dict[str, int]:
    """Raise the capacity, for the whole fleet."""
    return move(STEP)


@views.post("/dec")
def less() -> dict[str, int]:
    """Lower the capacity, for the whole fleet."""
    return move(-STEP)


def move(step: int) -> dict[str, int]:
    """Change the capacity by so much; it does not go below 0."""
    capacity = max(0, capacity_now() + step)
    resource: Any = ingest.rate_limiter
    resource.set_capacity(capacity)
    return {"capacity": capacity}


def capacity_now() -> int:
    """The capacity that the store has, or will have from the code."""
    capacity, resource = ingest.status().capacity, ingest.rate_limiter
    if capacity is None and resource is not None:
        capacity = resource.capacity()
    return int(capacity or 0)


@views.get("/live")
def live() -> Response:
    """What the page draws, four times a second, as server-sent events."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(events(), mimetype="text/event-stream", headers=headers)


def events() -> Iterator[str]:
    """An event after the other, for as long as the browser listens."""
    while True:
        try:
            message = json.dumps(now())
        except BatcherError as exc:
            message = json.dumps({"problem": str(exc)})
        yield f"data: {message}\n\n"
        time.sleep(LIVE_INTERVAL)


def now() -> dict[str, Any]:
    """The numbers of this moment, and the newest batches that a worker has claimed."""
    status = ingest.status()
    started = [batch for batch in ingest.recent_batches(RECENT) if batch.started_at]
    return {
        "at": time.time(),
        "phase": status.phase,
        "capacity": capacity_now() if status.capacity is None else status.capacity,
        "held": status.held or 0,
        "waiting": status.admitted + status.waiting + status.delayed,
        "inflight": sum(row.open_batches + row.running_batches for row in status.watchers),
        "left": left(status),
        "done": status.done,
        "eta": ingest.eta(),
        "batches": plain(started[:BATCHES]),
    }
