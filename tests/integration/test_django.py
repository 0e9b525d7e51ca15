"""Django: settings, checks, operations on commit, the admin's pages, and who may use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import django
import pytest
from celery import Celery, _state
from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import transaction
from django.test import Client, override_settings
from django.test.utils import setup_test_environment, teardown_test_environment

from celery_batcher import (
    Batcher,
    BatcherStoppedError,
    PayloadError,
    ProvisionedResource,
    TooExpensiveError,
)
from in_memory import InMemory

if not settings.configured:
    settings.configure(
        SECRET_KEY="tests",
        ROOT_URLCONF="projects.django_urls",
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
            "celery_batcher.contrib.django",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User

from celery_batcher.contrib.django import enqueue_many_on_commit, enqueue_on_commit
from celery_batcher.contrib.django.apps import celery_app
from celery_batcher.contrib.django.checks import check_batchers, check_settings

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    """Django's tables, in memory."""
    setup_test_environment()
    call_command("migrate", verbosity=0)
    yield
    teardown_test_environment()


@pytest.fixture(autouse=True)
def clean() -> None:
    """No users but those of the test."""
    User.objects.all().delete()
    LogEntry.objects.all().delete()


@pytest.fixture
def site() -> Iterator[InMemory]:
    """The project's Celery app, configured by Django's settings as its documentation has it."""
    before = _state._tls.current_app  # type: ignore[attr-defined]
    site = InMemory()
    site.app.config_from_object("django.conf:settings", namespace="CELERY")
    site.app.conf.broker_url = site.url
    site.app.conf.task_default_queue = site.name
    site.app.set_current()
    yield site
    _state._tls.current_app = before  # type: ignore[attr-defined]
    site.close()


@pytest.fixture
def orders(site: InMemory) -> Batcher:
    """A batcher whose handler fails when a payload says so."""
    batcher = site.batcher("orders", flush_mode="tick", rate_limiter=ProvisionedResource(100))

    @batcher.watcher(name="shop.write", max_attempts=1)
    def write(batch: Any) -> None:
        for op in batch:
            if op.payload == HOSTILE:
                batch.fail(op, f"not this: {HOSTILE}")

    return batcher


def client_of(*permissions: str, staff: bool = True, csrf: bool = False) -> Client:
    """A browser of somebody who may do this."""
    user = User.objects.create_user(f"user{User.objects.count()}", is_staff=staff)
    for name in permissions:
        user.user_permissions.add(Permission.objects.get(codename=name))
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


def dead_letter(site: InMemory, orders: Batcher) -> str:
    """Let an operation die; return its id."""
    id = orders.watchers["shop.write"].enqueue(HOSTILE, key=HOSTILE)
    site.tick(orders, 2)
    assert len(orders.watchers["shop.write"].dead_letters) == 1
    return id


# Enqueuing on commit


def test_what_is_committed_is_enqueued_once_and_only_then(orders: Batcher) -> None:
    write = orders.watchers["shop.write"]

    with transaction.atomic():
        id = enqueue_on_commit(write, {"n": 1}, cost=3, key="k")
        assert orders.operations_in_buffer() == 0

    assert orders.operations_in_buffer() == 1
    assert orders.needs_capacity() == 3
    orders.tick()
    assert id in str(orders.explain(id))


def test_many_are_enqueued_on_commit_and_counted(orders: Batcher) -> None:
    with transaction.atomic():
        enqueue_many_on_commit(orders.watchers["shop.write"], iter(range(7)), cost=2)
        assert orders.operations_in_buffer() == 0

    assert (orders.operations_in_buffer(), orders.needs_capacity()) == (7, 14)


def test_what_is_rolled_back_enqueues_nothing(orders: Batcher) -> None:
    with transaction.atomic():
        enqueue_on_commit(orders.watchers["shop.write"], 1)
        enqueue_many_on_commit(orders.watchers["shop.write"], [2, 3])
        transaction.set_rollback(True)

    assert orders.operations_in_buffer() == 0


def test_outside_of_a_transaction_it_is_enqueued_at_once(orders: Batcher) -> None:
    enqueue_on_commit(orders.watchers["shop.write"], 1)

    assert orders.operations_in_buffer() == 1


@pytest.mark.parametrize(
    ("payload", "options", "error"),
    [(object(), {}, PayloadError), (1, {"cost": 101}, TooExpensiveError)],
)
def test_what_could_never_run_is_refused_before_the_commit(
    orders: Batcher, payload: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with transaction.atomic(), pytest.raises(error):  # inside: not by the commit
        enqueue_on_commit(orders.watchers["shop.write"], payload, **options)

    assert orders.operations_in_buffer() == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_robust_one_keeps_no_other_from_what_waits_for_the_commit(
    orders: Batcher, caplog: pytest.LogCaptureFixture, many: bool
) -> None:
    write, done = orders.watchers["shop.write"], []
    orders.stop()

    def place(**options: Any) -> None:
        with transaction.atomic():
            if many:
                enqueue_many_on_commit(write, [1, 2], **options)
            else:
                enqueue_on_commit(write, 1, **options)
            transaction.on_commit(lambda: done.append("mail"))

    place(robust=True)
    assert done == ["mail"]
    assert "stopped" in caplog.text
    with pytest.raises(BatcherStoppedError):
        place()


# Settings and checks


def test_settings_are_djangos_and_read_when_used(site: InMemory, orders: Batcher) -> None:
    assert orders.option("buffer_size") == 1_000_000
    with override_settings(CELERY_BATCHER_BUFFER_SIZE=7):
        assert orders.option("buffer_size") == 7


def test_the_checks_find_settings_that_are_unknown_or_wrong(orders: Batcher) -> None:
    assert check_settings(None) == []

    with override_settings(CELERY_BATCHER_BUFER_SIZE=7):
        (found,) = check_settings(None)
        assert (found.id, found.hint) == (
            "celery_batcher.E101",
            "Did you mean CELERY_BATCHER_BUFFER_SIZE?",
        )
    with override_settings(CELERY_BATCHER_FLUSH_INTERVAL=-1):
        (found,) = check_settings(None)
        assert found.id == "celery_batcher.E102"
        assert "CELERY_BATCHER_FLUSH_INTERVAL=-1" in found.msg
    with override_settings(CELERY_BATCHER_SERIALIZER="pickle"):
        assert check_settings(None) == []  # a setting of ours that is no option


def test_the_checks_find_a_batcher_without_a_store(site: InMemory) -> None:
    app = Celery("none", broker="amqp://nowhere", set_as_current=False)
    app.set_current()
    Batcher("lost", app=app)

    (found,) = check_settings(None)

    assert (found.id, found.obj) == ("celery_batcher.E103", "lost")


def test_a_deployment_is_checked_with_what_a_batcher_finds(orders: Batcher) -> None:
    found = {one.id for one in check_batchers(None)}

    assert "celery_batcher.W008" in found  # no worker consumes the control queue


def test_only_the_checks_of_a_deployment_ask_servers(orders: Batcher) -> None:
    asked = {one.id for one in run_checks(tags=["celery_batcher"], include_deployment_checks=True)}

    assert "celery_batcher.W008" in asked
    assert run_checks(tags=["celery_batcher"]) == []
    with override_settings(CELERY_BATCHER_BUFER_SIZE=7):
        (found,) = run_checks(tags=["celery_batcher"])
    assert found.id == "celery_batcher.E101"


def test_an_unreachable_store_is_a_warning_of_the_deployment() -> None:
    app = Celery("away", broker="redis://:secret@127.0.0.1:1/0", set_as_current=False)
    app.set_current()
    Batcher("away", app=app)

    (found,) = check_batchers(None)

    assert found.id == "celery_batcher.W101"
    assert "127.0.0.1:1" in found.msg
    assert "secret" not in found.msg


def test_the_celery_app_is_the_current_one(site: InMemory) -> None:
    assert celery_app() is site.app


# The admin

BASE = "/admin/celery_batcher/batcher/"


def test_the_admin_lists_batchers_and_shows_one(site: InMemory, orders: Batcher) -> None:
    client = client_of("view_batcher")
    site.tick(orders)
    orders.watchers["shop.write"].enqueue_many(range(3))

    index = client.get("/admin/").content.decode()
    assert BASE in index
    rows = client.get(BASE).content.decode()
    assert f"{BASE}orders/" in rows
    assert "0 of 100" in rows
    page = client.get(f"{BASE}orders/").content.decode()
    assert "shop.write" in page or "None was seen yet" in page
    assert "Pause" not in page


def test_whoever_may_not_look_sees_nothing(orders: Batcher) -> None:
    for client in client_of(), client_of("view_batcher", staff=False), Client():
        for path in BASE, f"{BASE}orders/":
            assert client.get(path).status_code in {302, 403}
    assert BASE not in client_of().get("/admin/").content.decode()


def test_whoever_may_only_look_changes_nothing(orders: Batcher) -> None:
    client = client_of("view_batcher")

    for action in "pause", "resume", "flush", "redrive", "purge":
        assert client.post(f"{BASE}orders/{action}/").status_code == 403

    assert orders.status().phase == "idle"


def test_no_action_over_get_or_without_a_token(orders: Batcher) -> None:
    client = client_of("operate_batcher", csrf=True)

    assert client.get(f"{BASE}orders/pause/").status_code == 405
    assert client.post(f"{BASE}orders/pause/").status_code == 403
    page = client.get(f"{BASE}orders/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    sent = client.post(f"{BASE}orders/pause/", {"csrfmiddlewaretoken": token[1]})

    assert sent.status_code == 302
    assert orders.status().phase == "paused"


def test_operators_pause_resume_and_flush_and_the_log_says_who(orders: Batcher) -> None:
    client = client_of("operate_batcher")

    page = client.post(f"{BASE}orders/pause/", follow=True).content.decode()
    assert "Paused orders until somebody resumes it." in page
    assert "Resume" in page
    assert orders.status().paused_for is None
    client.post(f"{BASE}orders/resume/")
    assert orders.status().phase == "idle"
    assert client.post(f"{BASE}orders/flush/").status_code == 302
    assert client.post(f"{BASE}orders/drop/").status_code == 404
    assert client.post(f"{BASE}order/pause/").status_code == 404

    said = LogEntry.objects.order_by("id").values_list("object_id", "change_message")
    assert [one for one, _ in said] == ["orders"] * 3
    assert said[1][1] == "Resumed orders."


def test_dead_letters_are_shown_as_text_redriven_and_purged(
    site: InMemory, orders: Batcher
) -> None:
    letters = orders.watchers["shop.write"].dead_letters
    client, id = client_of("operate_batcher"), dead_letter(site, orders)

    page = client.get(f"{BASE}orders/").content.decode()
    assert id in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    nothing = client.post(f"{BASE}orders/redrive/", {"watcher": "shop.write"}, follow=True)
    assert "tick the dead letters" in nothing.content.decode()
    assert len(letters) == 1

    client.post(f"{BASE}orders/redrive/", {"watcher": "shop.write", "id": [id]})
    assert len(letters) == 0
    site.tick(orders, 2)
    (again,) = letters
    client.post(f"{BASE}orders/purge/", {"watcher": "shop.write", "id": [again.id]})
    assert len(letters) == 0
    assert orders.status().waiting == 0


def test_payloads_are_shown_through_the_mask(site: InMemory) -> None:
    masked = site.batcher("masked", flush_mode="tick", mask=lambda payload: "hidden")

    @masked.watcher(name="shop.write", max_attempts=1)
    def write(batch: Any) -> None:
        for op in batch:
            batch.fail(op, "no")

    write.enqueue("visa 4111")
    site.tick(masked, 2)

    page = client_of("view_batcher").get(f"{BASE}masked/").content.decode()

    assert "hidden" in page
    assert "4111" not in page


def test_a_store_that_is_away_is_said_and_no_error(site: InMemory) -> None:
    app = Celery("away", broker="redis://:secret@127.0.0.1:1/0", set_as_current=False)
    app.set_current()
    Batcher("away", app=app)
    client = client_of("operate_batcher")

    for answer in client.get(BASE), client.post(f"{BASE}away/pause/", follow=True):
        text = answer.content.decode()
        assert answer.status_code == 200
        assert "127.0.0.1:1" in text
        assert "secret" not in text


# What else there is


def test_the_metrics_view_has_the_batchers(site: InMemory, orders: Batcher) -> None:
    site.tick(orders)
    answer = Client().get("/metrics")

    assert answer.status_code == 200
    assert 'celery_batcher_capacity{batcher="orders"' in answer.content.decode()
    assert Client().post("/metrics").status_code == 405


def test_the_command_line_is_a_command_of_djangos(
    orders: Batcher, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("batcher", "list", "--json")
    assert '"orders"' in capsys.readouterr().out

    with pytest.raises(SystemExit, match="2"):
        call_command("batcher", "pause", "order")
    assert "did you mean 'orders'" in capsys.readouterr().err.lower()
