"""Flask apps made by a factory, and batchers that know nothing of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, _state
from flask import Flask, abort, current_app, request

from celery_batcher import Batcher, ProvisionedResource, StoreUnavailableError, tasks
from celery_batcher.contrib.flask import BatcherExtension, blueprint
from celery_batcher.intakes.base import lane_name
from celery_batcher.store.base import Arrival
from celery_batcher.store.memory import MemoryStore
from in_memory import InMemory

Factory = Callable[..., Flask]


@pytest.fixture
def sites() -> Iterator[list[InMemory]]:
    """What apps are in memory; whatever has no app is forgotten afterwards."""
    state: Any = _state
    before = set(state._on_app_finalizers), state.default_app, state._tls.current_app
    apps = set(state._get_active_apps())
    sites: list[InMemory] = []
    yield sites
    state._on_app_finalizers.clear()
    state._on_app_finalizers.update(before[0])
    state.default_app, state._tls.current_app = before[1:]
    tasks._of_any_app.clear()
    tasks._names_of_any_app.clear()
    for site in sites:
        site.close()
    for app in set(state._get_active_apps()) - apps:
        app.close()


@pytest.fixture
def create_app(sites: list[InMemory]) -> Factory:
    """A factory, as Flask's documentation has it; each app has a broker in memory of its own."""
    extension = BatcherExtension()

    def create_app(name: str = "shop", **celery: Any) -> Flask:
        site = InMemory()
        sites.append(site)
        app = Flask(name)
        app.config["CELERY"] = {
            "broker_url": site.url,
            "task_default_queue": site.name,
            **celery,
        }
        extension.init_app(app)
        site.app = app.extensions["celery"]
        return app

    return create_app


@pytest.fixture
def orders(sites: list[InMemory], unique: str) -> Batcher:
    """A batcher at the top of a module: before any app, and of none."""
    batcher = Batcher("orders", flush_mode="tick", rate_limiter=ProvisionedResource(100))

    @batcher.watcher(name=f"shop.write_{unique}")
    def write(batch: Any) -> None:
        current_app.config["SEEN"].append((current_app.name, [op.payload for op in batch]))

    return batcher


def enqueue(app: Flask, batcher: Batcher, payload: Any) -> str:
    """What a view does."""
    with app.test_request_context():
        (watcher,) = batcher.watchers.values()
        return watcher.enqueue(payload, cost=3)


def test_handlers_run_in_the_context_of_the_app_that_celery_was_made_for(
    create_app: Factory, orders: Batcher, sites: list[InMemory]
) -> None:
    app = create_app("shop", batcher_max_concurrent_batches=7)
    app.config["SEEN"] = []

    enqueue(app, orders, "a")
    orders.tick()
    assert sites[0].work() == 1

    assert app.config["SEEN"] == [("shop", ["a"])]
    assert orders.option("max_concurrent_batches") == 7
    assert {"celery_batcher:orders:flush"} < set(app.extensions["celery"].conf.beat_schedule)


def test_a_batcher_follows_the_app_that_was_made_last(
    create_app: Factory, orders: Batcher, sites: list[InMemory]
) -> None:
    first = create_app("first")
    enqueue(first, orders, 1)
    assert orders.operations_in_buffer() == 1

    second = create_app("second")

    assert orders.operations_in_buffer() == 0
    second.config["SEEN"] = []
    enqueue(second, orders, 2)
    orders.tick()
    sites[1].work()
    assert second.config["SEEN"] == [("second", [2])]
    first.extensions["celery"].set_current()
    assert orders.operations_in_buffer() == 1


def test_a_celery_app_that_is_there_is_kept(sites: list[InMemory]) -> None:
    own = Celery("own", set_as_current=False)
    app = Flask("shop")
    app.extensions["celery"] = own

    BatcherExtension(app)

    assert app.extensions["celery"] is own


def test_an_app_without_configuration_has_a_celery_app_that_can_be_told(
    sites: list[InMemory],
) -> None:
    app = Flask("bare")
    BatcherExtension(app)

    assert app.extensions["celery"].main == "bare"


# What operators do


def test_flask_batcher_is_celery_batcher_for_the_app(create_app: Factory, orders: Batcher) -> None:
    app = create_app()
    enqueue(app, orders, 1)
    runner = app.test_cli_runner()

    helped = runner.invoke(args=["batcher", "--help"])
    told = runner.invoke(args=["batcher", "status", "orders", "--json"])
    unknown = runner.invoke(args=["batcher", "status", "order"])

    assert "pause" in helped.output
    assert (told.exit_code, json.loads(told.output)["admitted"]) == (0, 1)
    assert unknown.exit_code == 2
    assert "orders" in unknown.output + unknown.stderr


# What operators read


@pytest.fixture
def ops(create_app: Factory, orders: Batcher) -> Flask:
    app = create_app()
    app.register_blueprint(blueprint(), url_prefix="/ops")
    return app


def test_the_blueprint_says_how_batchers_are(ops: Flask, orders: Batcher) -> None:
    enqueue(ops, orders, "secret")
    client = ops.test_client()

    answer = client.get("/ops/batchers")

    assert answer.status_code == 200
    (row,) = answer.get_json()["batchers"]
    assert (row["name"], row["admitted"], row["phase"]) == ("orders", 1, "idle")
    assert client.get("/ops/batchers/orders").get_json() == row
    assert "secret" not in answer.text


def test_prometheus_scrapes_the_blueprint(ops: Flask, orders: Batcher) -> None:
    enqueue(ops, orders, "secret")

    answer = ops.test_client().get("/ops/metrics")

    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    assert 'celery_batcher_operations_waiting{batcher="orders"' in answer.text
    assert "secret" not in answer.text


def test_messages_that_were_set_aside_are_told_without_their_bytes(
    ops: Flask, orders: Batcher, sites: list[InMemory]
) -> None:
    enqueue(ops, orders, 1)
    lanes = sites[0].lanes(orders)
    (watcher,) = orders.watchers
    lanes.put(lane_name("orders", watcher), Arrival("id", watcher, b"secret"), 1)
    orders.tick()

    (row,) = ops.test_client().get("/ops/batchers").get_json()["batchers"]

    (message,) = row["set_aside_messages"]
    assert message["reason"]
    assert "data" not in message


def test_an_unknown_batcher_is_not_found_and_near_names_are_named(ops: Flask) -> None:
    answer = ops.test_client().get("/ops/batchers/order<b>")

    assert answer.status_code == 404
    assert "orders" in answer.get_json()["error"]
    assert answer.content_type == "application/json"


def test_a_store_that_is_away_is_told_as_that(
    ops: Flask, orders: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: MemoryStore) -> None:
        raise StoreUnavailableError("the store at redis://db/0 does not answer")

    monkeypatch.setattr(MemoryStore, "counts", away)

    for path in ("/ops/batchers", "/ops/batchers/orders"):
        answer = ops.test_client().get(path)
        assert answer.status_code == 503
        assert "redis://db/0 does not answer" in answer.text


def test_the_blueprint_is_guarded_as_flasks_are(create_app: Factory, orders: Batcher) -> None:
    def staff_only() -> None:
        if request.headers.get("Authorization") != "staff":
            abort(403)

    app = create_app()
    guarded = blueprint("guarded")
    guarded.before_request(staff_only)
    app.register_blueprint(guarded)
    client = app.test_client()

    assert client.get("/batchers").status_code == 403
    assert client.get("/batchers", headers={"Authorization": "staff"}).status_code == 200


def test_an_app_that_was_not_set_up_says_what_to_do(sites: list[InMemory]) -> None:
    app = Flask("bare")
    app.register_blueprint(blueprint())
    app.testing = True

    with pytest.raises(Exception, match=r"BatcherExtension\(app\) makes one"):
        app.test_client().get("/batchers")
