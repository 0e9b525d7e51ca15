"""Take the pictures of docs/flower.md from a running system under load: `make screenshots`."""

from __future__ import annotations

import itertools
import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from celery_batcher.embedded import EmbeddedServer
from celery_processes import Fleet, record_for
from flower_stack import CONF, CONFIG, LOGIN
from servers import CHROMIUM_FLAGS, chromium

BATCHERS = {
    "cosmos": {
        "capacity": 400,
        "watchers": {
            "orders.write": {"max_batch_size": 100},
            "orders.history": {"max_batch_size": 50, "weight": 2},
        },
    },
    "llm": {
        "capacity": {"requests": 25, "tokens": 8000},
        "watchers": {"llm.embed": {"max_batch_size": 16}},
    },
    "mail": {"watchers": {"mail.send": {"max_attempts": 2, "retry_backoff": True}}},
}
SECONDS = 60
SIZES = {"wide": (1280, 860), "narrow": (390, 844)}


def load(fleet: Fleet, second: int, chance: random.Random) -> None:
    """What comes in within a second."""
    watchers = fleet.project.watchers
    wave = 1.5 + math.sin(second / 9)
    burst = 5 if second % 30 in range(12, 20) else 1
    watchers["orders.write"].enqueue_many(
        [{"order": n} for n in range(int(8 * wave * burst))],
        cost=lambda _: chance.randint(2, 14),
    )
    watchers["orders.history"].enqueue_many([{"order": n} for n in range(int(5 * wave))], cost=4)
    watchers["llm.embed"].enqueue_many(
        [{"text": n} for n in range(int(6 * wave))],
        cost=lambda _: {"requests": 1, "tokens": chance.randint(100, 700)},
    )
    for n in range(int(2 * wave)):
        bounced = second in (20, 35, 50) and n == 0
        watchers["mail.send"].enqueue(
            {
                "to": f"user{second}@example.com",
                "template": "receipt",
                "do": ["fail"] if bounced else [],
                "why": "550 5.1.1 no such mailbox",
            },
            key=f"tenant-{chance.randint(1, 9)}",
        )


def produce(fleet: Fleet, ended: threading.Event) -> None:
    """Enqueue, second by second, until it is ended."""
    chance, begun = random.Random(7), time.monotonic()
    for second in itertools.count():
        load(fleet, second, chance)
        if ended.wait(max(0.0, begun + second + 1 - time.monotonic())):
            return


def take(browser: Browser, url: str, path: str, picture: Path, size: str, scheme: str) -> None:
    """One picture, as a window of this size shows the page."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        http_credentials=LOGIN,
    )
    page = context.new_page()
    page.goto(url + path)
    page.get_by_text("Live", exact=True).wait_for()
    page.wait_for_timeout(3500)
    if path.endswith("mail"):
        page.locator("details.letter summary").first.click()
        page.locator("#dead-letters").screenshot(path=picture)
    else:
        page.screenshot(path=picture)
    context.close()


def main(directory: Path) -> None:
    """Run the system, and take the pictures."""
    program = chromium()
    if program is None:
        sys.exit("chromium is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="flower-") as run,
        EmbeddedServer() as server,
        Fleet(Path(run), broker=server.url, batchers=BATCHERS, conf=CONF) as fleet,
        sync_playwright() as playwright,
    ):
        fleet.worker(beat=True)
        process, url = fleet.flower("--basic-auth=ops:secret", config=CONFIG)
        process.await_log("Visit me at")
        ended = threading.Event()
        producer = threading.Thread(target=produce, args=[fleet, ended])
        producer.start()
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        pictures = [
            (path, f"flower-{name}-{size}-{scheme}.png", size, scheme)
            for name, path in (("overview", "/batchers"), ("batcher", "/batcher/cosmos"))
            for size in SIZES
            for scheme in ("light", "dark")
        ]
        pictures.append(("/batcher/mail", "flower-dead-letters.png", "wide", "light"))
        record_for(SECONDS)
        for path, name, size, scheme in pictures:
            take(browser, url, path, directory / name, size, scheme)
        ended.set()
        producer.join()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
