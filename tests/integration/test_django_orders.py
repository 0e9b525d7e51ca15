"""The Django shop, from the script that `make django-orders` runs, in a real browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from celery_batcher.embedded import GuardedProcess
from eventually import eventually

HERE = Path(__file__).parents[2] / "examples" / "django_orders"
READY = 60_000  # ms, for a machine that has much else to do


class Shop:
    """The running shop."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "run.log"
        env = {**os.environ, "PORT": "0"}
        env.pop("REDIS_URL", None)
        self.process = GuardedProcess(
            [sys.executable, HERE / "run.py"], directory=directory, log=self.log, env=env
        )
        self.url = eventually(self._printed_url, timeout=60.0)

    def _printed_url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+/", self.log.read_text())
        assert found, self.log.read_text()
        return found[0]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("django-orders"))
    yield shop
    shop.process.stop()


@pytest.fixture(scope="module")
def page(browser: Any, shop: Shop) -> Iterator[Any]:
    """A page of somebody logged in; it asks no other host for anything and has no error."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(READY)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((shop.url, "data:")) else wrong.append(asked.url)
        ),
    )
    page.goto(f"{shop.url}admin/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", "admin")
    page.click("text=Log in >> visible=true")
    page.wait_for_url("**/admin/")
    yield page
    page.close()
    assert wrong == []


def await_number(page: Any, id: str, text: str) -> None:
    page.locator(f"#{id}", has_text=re.compile(f"^{text}$")).wait_for()


def test_orders_that_are_placed_are_booked(page: Any, shop: Shop) -> None:
    page.goto(shop.url)
    page.fill("input[name=number]", "300")
    page.click("text=Place them")

    await_number(page, "booked", "300")
    await_number(page, "unbooked", "0")
    page.reload()
    assert page.locator("text=for Ada").count() == 10
    assert page.locator("text=not yet").count() == 0


def test_the_admin_pauses_and_resumes(page: Any, shop: Shop) -> None:
    page.goto(f"{shop.url}admin/")
    page.click(".app-celery_batcher >> text=Batchers")
    page.click("text=warehouse")
    page.click("input[value=Pause]")
    page.locator("text=Paused warehouse until somebody resumes it.").wait_for()

    page.goto(shop.url)
    page.fill("input[name=number]", "20")
    page.click("text=Place them")
    await_number(page, "unbooked", "20")
    page.click("text=The batcher in the admin")
    page.click("input[value=Resume]")
    page.locator("text=Resumed warehouse.").wait_for()

    page.goto(shop.url)
    await_number(page, "booked", "320")


def test_a_dead_letter_is_seen_and_tried_again(page: Any, shop: Shop) -> None:
    page.goto(shop.url)
    page.fill("input[name=number]", "1")
    page.click("text=Order unicorns")
    page.click("text=The batcher in the admin")

    def seen() -> None:
        page.reload()
        assert page.locator("text=the warehouse has no unicorns").count() == 1

    eventually(seen, timeout=30.0)
    page.check("input[name=id]")
    page.click("text=Try the ticked again")
    page.locator("text=wait to be tried again: 1.").wait_for()
    eventually(seen, timeout=30.0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_narrow_screen(page: Any, shop: Shop, scheme: str) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.emulate_media(color_scheme=scheme)
    for path in "", "admin/celery_batcher/batcher/", "admin/celery_batcher/batcher/warehouse/":
        page.goto(f"{shop.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_shops_own_tests_pass() -> None:
    said = subprocess.run(
        [sys.executable, "manage.py", "test"],
        cwd=HERE,
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"},  # they need no server
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert said.returncode == 0, said.stderr


def test_ctrl_c_ends_it_all(shop: Shop) -> None:
    """The last of these tests: the shop is gone then."""
    started = psutil.Process(shop.process.pid).children(recursive=True)
    assert len(started) > 3  # a server, a worker and its children

    os.kill(shop.process.pid, signal.SIGINT)
    eventually(lambda: "Ending" in shop.log.read_text(), timeout=10.0)
    os.kill(shop.process.pid, signal.SIGINT)  # by somebody who does not like to wait

    eventually(lambda: not shop.process.running, timeout=30.0)
    eventually(lambda: not any(child.is_running() for child in started), timeout=10.0)
    assert "Traceback" not in shop.log.read_text()
