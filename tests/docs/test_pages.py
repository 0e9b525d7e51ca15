"""The pages on Django, production and celery-batches do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_batcher import Batcher, ProvisionedResource
from pages import blocks, imported, write

BROKER = "memory://docs"


# Django


CHECK = """
import django
from celery import Celery
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["shop"],
)
django.setup()
Celery("shop", broker="memory://").set_default()

from django.db import connection
from django.test import RequestFactory
from shop.batches import database, write_orders
from shop.models import Order
from shop.views import place

with connection.schema_editor() as editor:
    editor.create_model(Order)
with database.testing() as t:
    post = RequestFactory().post
    for total in (10, 20):
        assert place(post("/", {"number": "a-1", "total": total})).status_code == 202
    write_orders.enqueue_many({"number": f"b-{n}", "total": n} for n in range(50))
    write_orders.enqueue({"number": "bad", "total": "no number"})
    t.run_until_done()
    t.assert_done(write_orders, count=52)
    t.assert_dead(write_orders, reason="ValueError", count=1)
    t.assert_never_over_capacity()
assert Order.objects.count() == 51
assert Order.objects.get(number="a-1").total == 20
"""


def test_django_writes_in_bulk_and_singles_out_the_bad_row(tmp_path: Path) -> None:
    write("docs/howto/django-bulk.md", tmp_path, BROKER)
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "check.py").write_text(CHECK)
    subprocess.run([sys.executable, "-W", "error", "check.py"], cwd=tmp_path, check=True)


# Production


def test_everything_in_the_runbook_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    app = Celery("runbook", broker=BROKER, set_as_current=False)
    cosmos = Batcher("cosmos", app=app, rate_limiter=ProvisionedResource(20_000))
    shell: dict[str, Any] = {"app": app, "cosmos": cosmos}
    first, *others = (one.text for one in blocks("docs/production.md") if one.language == "python")
    exec(compile(first, "production.md", "exec"), shell)
    with cosmos.testing() as t:
        write_orders = shell["write_orders"]
        t.fail_next(write_orders, ValueError("boom"), batches=3)
        write_orders.enqueue({"id": 1}, cost=10)
        t.run_until_done()
        write_orders.enqueue({"id": 2}, cost=10)
        for code in others:
            exec(compile(code, "production.md", "exec"), shell)
    assert "ValueError: boom" in capsys.readouterr().out


# celery-batches


def test_what_was_a_batches_task_is_a_watcher(tmp_path: Path, capsys: Any) -> None:
    [diff] = [one.text for one in blocks("docs/celery-batches.md") if one.language == "diff"]
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    compile(before, "before", "exec")
    (tmp_path / "clicks.py").write_text(after.replace("redis://localhost:6379/0", BROKER))
    with imported(tmp_path, "clicks") as (clicks,), clicks.clicks.testing() as t:
        for url in ["/a", "/b", "/a"]:
            clicks.clicked(url)
        t.run_until_done()

        assert [len(batch.operations) for batch in t.batches] == [3]
    assert capsys.readouterr().out.splitlines() == ["/a 2", "/b 1"]
