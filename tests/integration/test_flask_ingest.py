"""The Flask sample, from the script that `make flask-ingest` runs, in a real browser."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from celery_batcher.embedded import GuardedProcess
from eventually import eventually

SCRIPT = Path(__file__).parents[2] / "examples" / "flask_ingest" / "run.py"
OPERATIONS = 800
READY = 60_000  # ms, for a machine that has much else to do


class Sample:
    """The running sample."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "run.log"
        env = {**os.environ, "PORT": "0", "OPERATIONS": str(OPERATIONS)}
        env.pop("REDIS_URL", None)
        self.process = GuardedProcess(
            [sys.executable, SCRIPT], directory=directory, log=self.log, env=env
        )
        self.url = eventually(self._printed_url, timeout=30.0)

    def _printed_url(self) -> str:
        found = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
        assert found, self.log.read_text()
        return found[0]

    def post(self, path: str, **headers: str) -> str:
        """What an answer to a POST says."""
        request = Request(f"{self.url}{path}", data=b"", headers=headers, method="POST")
        with urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    sample = Sample(tmp_path_factory.mktemp("flask-ingest"))
    yield sample
    sample.process.stop()


@pytest.fixture
def page(browser: Any, sample: Sample) -> Iterator[Any]:
    """The page, which must ask no other host for anything and have no error."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(READY)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(sample.url) else wrong.append(asked.url),
    )
    page.goto(sample.url)
    yield page
    page.close()
    assert wrong == []


def await_text(page: Any, id: str, text: str) -> None:
    page.locator(f"#{id}", has_text=re.compile(f"^{re.escape(text)}$")).wait_for()


def heights(page: Any) -> int:
    """How many heights the line of the limit has."""
    line = page.locator("path.limit").get_attribute("d")
    return len(set(re.findall("V([0-9.]+)", line)))


def test_an_ingest_is_watched_until_it_is_done(page: Any) -> None:
    await_text(page, "done", "0")
    page.click("text=Ingest 1,000")

    page.locator("#waiting", has_text=re.compile("^[1-9]")).wait_for()
    await_text(page, "done", str(OPERATIONS))
    await_text(page, "waiting", "0")
    await_text(page, "eta", "nothing waits")
    page.locator("#batches tr:first-child .settled").wait_for()
    assert page.locator("path.waiting").count() == 2
    assert page.locator("#problem").is_hidden()


def test_the_line_of_the_capacity_moves_with_the_buttons(page: Any) -> None:
    await_text(page, "capacity", "10,000")
    assert heights(page) == 1

    page.click("#inc button")
    await_text(page, "capacity", "11,000")
    eventually(lambda: heights(page) == 2)
    page.click("#dec button")
    await_text(page, "limit-now", "10,000")
    page.click("#dec button")
    await_text(page, "limit-now", "9,000")
    eventually(lambda: heights(page) == 3)


def test_the_page_fits_a_narrow_screen_in_light_and_in_the_dark(
    browser: Any, sample: Sample
) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(sample.url)
    page.locator("path.limit").wait_for(state="attached", timeout=READY)

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", shade)[0]) > 128) == (scheme == "light")
    page.close()


def test_without_a_browser_an_ingest_reports_until_it_is_done(sample: Sample) -> None:
    lines = sample.post("/ingest").splitlines()

    assert lines[0] == f"{OPERATIONS} operations of cost 10 are enqueued"
    assert all(line.endswith(" to do") for line in lines[1:-1])
    assert lines[-1] == "done"


@pytest.mark.parametrize("path", ["/ingest", "/inc", "/dec"])
def test_nothing_is_done_for_a_get_or_for_another_site(sample: Sample, path: str) -> None:
    with pytest.raises(HTTPError, match="405"):
        urlopen(f"{sample.url}{path}", timeout=10)
    with pytest.raises(HTTPError, match="403"):
        sample.post(path, **{"Sec-Fetch-Site": "cross-site"})


def test_ctrl_c_ends_it_all(sample: Sample) -> None:
    """The last of these tests: the sample is gone then."""
    started = psutil.Process(sample.process.pid).children(recursive=True)
    assert len(started) > 3  # a server, a worker and its children

    os.kill(sample.process.pid, signal.SIGINT)

    eventually(lambda: not sample.process.running, timeout=30.0)
    eventually(lambda: not any(child.is_running() for child in started), timeout=10.0)
    assert "Ending" in sample.log.read_text()
