"""What workers answer to remote control: always, in time, and without an error of theirs."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.control import Panel

from celery_batcher.worker import remote
from in_memory import InMemory


@pytest.fixture
def state(site: InMemory) -> Any:
    """What Celery gives to handlers."""
    site.batcher("cosmos", flush_mode="tick")
    return SimpleNamespace(app=site.app)


def call(state: Any, command: str, **arguments: Any) -> Any:
    return Panel.data[command](state, **arguments)


def test_commands_are_registered_once_with_their_arguments() -> None:
    before = dict(Panel.data)
    remote.register()
    remote.register(sender="worker@host")

    assert Panel.data.keys() >= before.keys()
    assert Panel.meta["batchers"].type == "inspect"
    assert Panel.meta["batcher_pause"].type == "control"
    assert Panel.meta["batcher_pause"].args == [("name", str), ("seconds", float)]
    assert all(Panel.meta[name].help for name in Panel.meta if name.startswith("batcher"))


def test_batchers_answer_with_their_status(site: InMemory, state: Any) -> None:
    site.batcher("other")

    answer = call(state, "batchers")

    assert set(answer) == {"cosmos", "other"}
    assert answer["cosmos"]["phase"] == "idle"


def test_a_batcher_is_paused_resumed_and_flushed(site: InMemory, state: Any) -> None:
    assert call(state, "batcher_pause", name="cosmos", seconds=5.0) == {
        "ok": "cosmos: paused for 5 s"
    }
    assert call(state, "batcher_pause", name="cosmos") == {"ok": "cosmos: paused until resumed"}
    assert call(state, "batchers")["cosmos"]["phase"] == "paused"
    assert call(state, "batcher_resume", name="cosmos") == {"ok": "cosmos: resumed"}
    assert call(state, "batcher_flush", name="cosmos") == {"ok": "cosmos: flush asked for"}
    assert call(state, "batchers")["cosmos"]["phase"] == "idle"


def test_what_is_wrong_is_an_answer(state: Any) -> None:
    unknown = call(state, "batcher_flush", name="cosmo")
    assert unknown["error"].endswith("did you mean 'cosmos'?")
    assert "seconds above 0" in call(state, "batcher_pause", name="cosmos", seconds=-1)["error"]


def test_a_store_that_hangs_does_not_hold_the_worker_up(
    site: InMemory, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(remote, "PATIENCE", 0.05)
    store = type(site.batcher("slow").store)
    monkeypatch.setattr(store, "counts", lambda _: release.wait(10))

    answer = call(state, "batchers")
    release.set()

    late = {"error": "the store did not answer within 0.05 s"}
    assert answer == {"cosmos": late, "slow": late}
