"""The pages in Flower, as a browser shows them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from eventually import eventually
from flower_stack import BASIC, HOSTILE, LOGIN, Flower, Stack, http

SOON = 15_000
"""Milliseconds in which a page shows what happened."""


class Visitor:
    """Somebody with a browser, in which nothing is loaded from elsewhere and no error happens."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: dict[str, BrowserContext] = {}
        self.wrong: list[str] = []

    def open(self, flower: Flower, path: str) -> Page:
        """A page of Flower, logged in."""
        page, host = self._context(flower).new_page(), urlsplit(flower.url).netloc
        page.on("console", lambda said: said.type in ("error", "warning") and self._note(said.text))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on(
            "request",
            lambda request: urlsplit(request.url).netloc != host and self._note(request.url),
        )
        page.goto(flower.url + path)
        return page

    def _context(self, flower: Flower) -> BrowserContext:
        if flower.url not in self._contexts:
            context = self._browser.new_context(http_credentials=LOGIN)
            if flower.cookies:
                name, value = flower.cookies
                context.add_cookies([{"name": name, "value": value, "url": flower.url}])
            self._contexts[flower.url] = context
        return self._contexts[flower.url]

    def leave(self) -> None:
        """Close all pages."""
        for context in self._contexts.values():
            for page in context.pages:
                page.close()

    def _note(self, wrong: str) -> None:
        self.wrong.append(wrong)


@pytest.fixture(scope="module")
def somebody(browser: Browser) -> Visitor:
    return Visitor(browser)


@pytest.fixture
def visitor(somebody: Visitor) -> Iterator[Visitor]:
    yield somebody
    somebody.leave()
    wrong, somebody.wrong = somebody.wrong, []
    assert wrong == []


def row(page: Page, name: str) -> Locator:
    return page.locator("#rows tr", has=page.get_by_role("link", name=name, exact=True))


def test_a_tab_leads_to_a_row_for_each_batcher(stack: Stack, visitor: Visitor) -> None:
    page = visitor.open(stack.basic, "/workers")
    expect(page.get_by_role("link", name="Batchers", exact=True)).to_have_count(1)
    page.get_by_role("link", name="Batchers", exact=True).click()
    expect(page.locator("#rows tr")).to_have_count(2, timeout=SOON)
    expect(row(page, "cosmos")).to_contain_text("of 200 per second")
    expect(row(page, "cosmos")).to_contain_text("stopped: nothing waits", timeout=SOON)
    expect(row(page, "mail")).to_contain_text("no limit")
    page.get_by_role("link", name="cosmos").click()
    expect(page).to_have_url(f"{stack.basic.url}/batcher/cosmos")


def canvases(page: Page) -> list[str]:
    """What the plots show, as pictures."""
    pictures: list[str] = page.evaluate(
        "[...document.querySelectorAll('#plots canvas')].map((one) => one.toDataURL())"
    )
    return pictures


def test_plots_show_minutes_from_before_the_page_was_opened_and_move(
    stack: Stack, visitor: Visitor
) -> None:
    orders = stack.fleet.project.watchers["orders.write"]
    page = visitor.open(stack.basic, "/batcher/cosmos")
    expect(page.locator("#plots canvas")).to_have_count(3, timeout=SOON)
    before = canvases(page)
    orders.enqueue_many([{}] * 300, cost=1)
    eventually(lambda: all(a != b for a, b in zip(before, canvases(page), strict=True)))
    expect(page.locator("#batches tr").first).to_contain_text("orders.write", timeout=SOON)
    expect(page.locator("#watchers tr")).to_contain_text("300", timeout=SOON)
    again = visitor.open(stack.basic, "/batcher/cosmos")
    sizes = "async () => (await (await fetch('/batcher/cosmos/data')).json()).samples"
    assert any(sample[4] and sample[4] > 1 for sample in again.evaluate(sizes))


def test_a_batch_leads_to_its_task_and_control_tasks_are_not_in_flower(
    stack: Stack, visitor: Visitor
) -> None:
    stack.fleet.project.watchers["orders.write"].enqueue({}, cost=7)
    page = visitor.open(stack.basic, "/batcher/cosmos")
    batch = page.locator("#batches tr", has_text="orders.write", has_not_text="released").filter(
        has=page.get_by_role("cell", name="7", exact=True)
    )
    link = batch.first.get_by_role("link")
    task = stack.basic.url + str(link.get_attribute("href"))
    eventually(lambda: http("GET", task, {"Authorization": BASIC}).status == 200)  # an event came
    link.click()
    expect(page.locator("#task-page")).to_contain_text("orders.write")
    expect(page.locator("#task-page")).to_contain_text("(1 operation, cost 7, oldest 0.")
    page.goto(f"{stack.basic.url}/tasks")
    rows = page.locator("#tasks-table tbody tr")
    expect(rows.filter(has_text="orders.write").first).to_be_visible(timeout=SOON)
    expect(rows.filter(has_text="celery_batcher.")).to_have_count(0)


def test_the_fleet_is_paused_resumed_and_flushed(stack: Stack, visitor: Visitor) -> None:
    cosmos = stack.fleet.project.batchers["cosmos"]
    page = visitor.open(stack.basic, "/batcher/cosmos")
    expect(page.locator("#phase")).to_have_text("flushing", timeout=SOON)
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#phase")).to_have_text("paused until resumed", timeout=SOON)
    assert cosmos.status().paused_for is None
    stack.fleet.project.watchers["orders.write"].enqueue({}, cost=1)
    expect(page.locator("#watchers .reason")).to_contain_text("paused", timeout=SOON)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#phase")).to_have_text("flushing", timeout=SOON)
    stack.fleet.await_settled("cosmos")
    page.get_by_role("button", name="Flush").click()
    expect(page.locator("#toast-container")).to_contain_text("a flush was asked for")


def test_dead_letters_are_read_as_texts_redriven_and_purged(stack: Stack, visitor: Visitor) -> None:
    send = stack.fleet.project.watchers["mail.send"]
    payload = {"to": HOSTILE, "card": "4111", "do": ["fail"], "why": HOSTILE}
    send.enqueue(payload, key=HOSTILE)
    send.enqueue({"do": ["raise"]}, id=HOSTILE)
    page = visitor.open(stack.basic, "/batcher/mail")
    letters = page.locator("details.letter")
    expect(letters).to_have_count(2, timeout=SOON)
    failed = letters.filter(has=page.locator(".letter-reason", has_text="img"))
    failed.locator("summary").click()
    expect(failed.locator("pre").last).to_contain_text("<script>alert(2)</script>")
    expect(failed.locator("pre").last).to_contain_text('"card": "***"')
    expect(failed).to_contain_text(f"key {HOSTILE}")
    expect(failed.locator(".letter-reason")).to_have_text(HOSTILE)
    raised = letters.filter(has_text="HandlerError")
    expect(raised.locator("code")).to_have_text(HOSTILE)
    assert page.locator("#dead img, #dead script").count() == 0
    failed.get_by_role("button", name="Redrive").click()
    expect(page.locator("#toast-container")).to_contain_text("dead letters redriven: 1")
    # It is dead again, as another one; and none is open in its place.
    expect(page.locator("details.letter[open]")).to_have_count(0, timeout=SOON)
    stack.fleet.await_settled("mail")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Purge all").click()
    expect(page.locator("#dead")).to_have_text("None.", timeout=SOON)
    assert len(send.dead_letters) == 0


def test_in_read_only_mode_buttons_are_off_and_say_why(stack: Stack, visitor: Visitor) -> None:
    page = visitor.open(stack.read_only, "/batchers")
    page.get_by_role("link", name="cosmos").click()
    expect(page).to_have_url(re.compile("/ops/flower/batcher/cosmos$"))
    expect(page.locator("#cards")).to_contain_text("Capacity held", timeout=SOON)
    for name in ("Flush", "Pause", "Resume"):
        button = page.get_by_role("button", name=name)
        expect(button).to_be_disabled()
        expect(button).to_have_attribute("title", "Flower is in read-only mode")
    expect(page.get_by_text("Buttons are off: Flower is in read-only mode.")).to_be_visible()


def test_without_a_login_buttons_are_off_and_say_why(stack: Stack, visitor: Visitor) -> None:
    page = visitor.open(stack.unguarded, "/batcher/cosmos")
    expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    expect(page.get_by_text("Buttons are off: Flower asks nobody to log in")).to_be_visible()


@pytest.mark.parametrize("path", ["/batchers", "/batcher/cosmos"])
def test_pages_fit_in_every_window_and_follow_the_theme(
    stack: Stack, visitor: Visitor, path: str
) -> None:
    page = visitor.open(stack.basic, path)
    expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=SOON)
    for width in (390, 800, 1100, 1400):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if path == "/batchers":
            cells = "[...document.querySelectorAll('td')]"
            ends = page.evaluate(f"{cells}.map((one) => one.getBoundingClientRect().right)")
            assert max(ends) <= width
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    text, surface = page.evaluate(
        """() => [".num", ".broker-table-card"].map((one) => document.querySelector(one))
            .map((one, at) => getComputedStyle(one)[at ? "backgroundColor" : "color"])
            .map((colour) => Math.max(...colour.match(/[0-9.]+/g).slice(0, 3)))"""
    )
    assert text - surface > 120


def test_a_store_that_does_not_answer_is_said_and_the_page_goes_on_with_it(
    stack: Stack, visitor: Visitor
) -> None:
    pages = [visitor.open(stack.basic, path) for path in ("/batchers", "/batcher/cosmos")]
    for page in pages:
        expect(page.locator("#live")).to_have_text("Live", timeout=SOON)
    assert stack.server.pid is not None
    os.kill(stack.server.pid, signal.SIGSTOP)
    try:
        for page in pages:
            expect(page.locator("#trouble")).to_contain_text(
                "The store of cosmos has not answered for", timeout=SOON
            )
            expect(page.locator("#live")).to_have_text("No answer")
        for path in ("/batcher/cosmos/data", "/batcher/mail", "/workers"):
            assert http("GET", stack.basic.url + path, {"Authorization": BASIC}).status == 200
    finally:
        os.kill(stack.server.pid, signal.SIGCONT)
    for page in pages:
        expect(page.locator("#live")).to_have_text("Live", timeout=SOON)
        expect(page.locator("#trouble")).to_be_empty()
