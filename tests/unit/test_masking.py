"""What operators are shown of payloads, and how they name a batcher."""

from __future__ import annotations

from typing import Any

import pytest

from celery_batcher import NoBatcherError
from celery_batcher.tasks import the_batcher
from in_memory import InMemory


def test_a_payload_is_shown_as_it_is_without_a_mask(site: InMemory) -> None:
    assert site.batcher().shown({"card": "4111"}) == {"card": "4111"}


def test_the_mask_decides_what_is_shown(site: InMemory) -> None:
    batcher = site.batcher(mask=lambda payload: {**payload, "card": "****"})

    assert batcher.shown({"id": 1, "card": "4111"}) == {"id": 1, "card": "****"}


def test_a_mask_of_the_settings_serves_every_batcher(site: InMemory) -> None:
    site.app.conf.batcher_mask = lambda payload: "hidden"

    assert site.batcher().shown("secret") == "hidden"


def test_a_mask_that_fails_hides_everything(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(payload: Any) -> Any:
        raise KeyError(payload)

    assert site.batcher(mask=broken).shown("4111") == "<masked: the mask failed>"
    assert "the mask of b failed: KeyError" in caplog.text
    assert "4111" not in caplog.text


def test_a_batcher_is_found_by_its_name(site: InMemory) -> None:
    batcher = site.batcher("cosmos")

    assert the_batcher(site.app, "cosmos") is batcher


def test_an_unknown_name_suggests_those_that_look_like_it(site: InMemory) -> None:
    site.batcher("cosmos")
    site.batcher("orders")

    with pytest.raises(NoBatcherError, match="no batcher 'cosmo': did you mean 'cosmos'") as near:
        the_batcher(site.app, "cosmo")
    with pytest.raises(NoBatcherError, match="it has cosmos, orders") as far:
        the_batcher(site.app, "\x1b[2J")

    assert (near.value.name, near.value.near) == ("cosmo", ("cosmos",))
    assert far.value.near == ()
    assert "\x1b" not in str(far.value)


def test_an_app_without_batchers_says_where_they_come_from(site: InMemory) -> None:
    with pytest.raises(NoBatcherError, match="none at all: import the module"):
        the_batcher(site.app, "cosmos")
