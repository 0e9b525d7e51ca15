"""Where Flower is not as it was, or is somebody else's already."""

from __future__ import annotations

from pathlib import Path

import flower
import pytest
from celery import Celery
from flower import urls

from celery_batcher import ConfigurationError
from celery_batcher.contrib.flower import install
from celery_batcher.contrib.flower.loader import with_tab

NAVBAR = (Path(flower.__file__).parent / "templates/navbar.html").read_text()


def test_the_tab_comes_after_that_of_the_broker() -> None:
    changed = with_tab(NAVBAR)
    assert changed.count("<li") == NAVBAR.count("<li") + 1
    assert changed.index(">Broker</a>") < changed.index(">Batchers</a>") < changed.index("</ul>")


def test_without_a_place_for_it_there_is_no_tab_and_the_log_says_where_the_page_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for navbar in ("<nav></nav>", NAVBAR.replace("</li>", "")):
        caplog.clear()
        assert with_tab(navbar) == navbar
        assert "the batchers are at /batchers" in caplog.text


def test_a_template_loader_of_somebody_else_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = list(urls.handlers)
    monkeypatch.setitem(urls.settings, "template_loader", object())
    with pytest.raises(ConfigurationError, match="template_loader is taken"):
        install(Celery("proj", broker="memory://", set_as_current=False))
    assert urls.handlers == handlers
