"""The command line, each command in this process on a store in memory."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from rich.console import Console

from celery_batcher import (
    Batch,
    Batcher,
    MemoryLeaseManager,
    ProvisionedResource,
    SharedResource,
    StoreUnavailableError,
    Watcher,
)
from celery_batcher.bin import live, tables
from celery_batcher.bin.batcher import batcher as group
from celery_batcher.bin.printable import payload_text, printable
from celery_batcher.bin.site import complete
from commands import answered, failed, run, said
from in_memory import InMemory, collecting

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n[red]x[/red] \u202e:smile:\x9b31m"


def escaped(output: str) -> bool:
    """Nothing in this moves a cursor or changes a direction."""
    return not any(one in output for one in ("\x1b", "\x07", "\r", "\u202e", "\x9b"))


@pytest.fixture
def batcher(site: InMemory) -> Batcher:
    return site.batcher("cosmos", flush_mode="tick", rate_limiter=ProvisionedResource(1000))


@pytest.fixture
def write(batcher: Batcher) -> Watcher:
    @batcher.watcher(name="write", max_batch_size=2)
    def write(batch: Batch) -> None:
        for op in batch:
            if op.payload.get("bad"):
                batch.fail(op, HOSTILE)

    return write


@pytest.fixture
def waiting(site: InMemory, batcher: Batcher, write: Watcher) -> Watcher:
    """Three operations wait, two of them are in a lane."""
    batcher.pause(None)
    write.enqueue({"id": 7}, cost=30, id="first", key="tenant")
    write.enqueue_many([{"id": 8}, {"id": 9}], cost=30)
    site.tick(batcher)
    write.enqueue_many([{"id": 1}] * 2)
    return write


# Looking


def test_list_asks_no_server(
    site: InMemory, batcher: Batcher, write: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.batcher("free")
    monkeypatch.setattr(site.clock, "now_ms", lambda: 1 / 0)

    assert answered(site.app, "list") == [
        {
            "name": "cosmos",
            "resource": "cosmos",
            "capacity": 1000,
            "watchers": ["write"],
            "store": site.url,
        },
        {"name": "free", "resource": None, "capacity": None, "watchers": [], "store": site.url},
    ]
    text = said(site.app, "list")
    assert "cosmos cosmos 1,000 write" in text
    assert "free - unlimited -" in text


def test_status_shows_what_waits_and_is_held(
    site: InMemory, batcher: Batcher, waiting: Watcher
) -> None:
    text = said(site.app, "status")
    assert "cosmos paused until resumed" in text
    assert "waiting 3 operations, cost 90, oldest" in text
    assert "in lanes 2, delayed 0" in text
    assert "0 of 1,000 per 1 s held" in text
    assert "empty nobody knows" in text
    assert "then it was paused" in text

    batcher.resume()
    batcher.tick()
    text = said(site.app, "status", "cosmos")
    assert "released 5, running 0" in text
    assert "92 of 1,000 per 1 s held" in text
    assert "then nothing more was ready" in text


def test_status_for_programs_is_an_object_or_a_list(site: InMemory, batcher: Batcher) -> None:
    site.batcher("free")

    one = answered(site.app, "status", "cosmos")
    both = answered(site.app, "status")

    assert one == both[0]
    assert (one["name"], one["phase"], one["eta"], one["watchers"]) == ("cosmos", "idle", 0.0, [])
    assert both[1]["name"] == "free"
    assert "leave out --json" in failed(site.app, "status", "--watch", "--json")


def test_peek_shows_payloads_through_the_mask(site: InMemory) -> None:
    batcher = site.batcher("cosmos", flush_mode="tick", mask=lambda one: {**one, "card": "****"})
    write = batcher.watcher(name="write")(collecting([]))
    assert "nothing waits" in said(site.app, "peek", "cosmos")
    batcher.pause(None)
    write.enqueue({"id": 1, "card": "4111"}, key="tenant", cost=1200)
    write.enqueue({"id": 2, "card": "4111", "long": "x" * 500})
    site.tick(batcher)

    text = said(site.app, "peek", "cosmos")
    assert 'write 1,200 tenant normal 1 {"id": 1, "card": "****"}' in text
    assert "4111" not in text
    assert "x" * 200 not in text.replace(" ", "")
    whole = run(site.app, "peek", "cosmos", "--full").stdout
    assert whole.count("x") == 500
    found = answered(site.app, "peek", "cosmos", "-n", "1", "-w", "write")
    assert [(one["payload"]["card"], one["key"]) for one in found] == [("****", None)]


def test_explain_says_why_and_whether_it_was_found(site: InMemory, waiting: Watcher) -> None:
    text = said(site.app, "explain", "cosmos", "first")
    assert "operation first of write is waiting cost 30, key tenant" in text
    assert "paused" in text
    assert answered(site.app, "explain", "cosmos", "write")["watcher"] == "write"
    unknown = answered(site.app, "explain", "cosmos", "nope", code=1)
    assert unknown["state"] == "unknown"


def test_leases_are_listed(site: InMemory, batcher: Batcher) -> None:
    manager = MemoryLeaseManager(clock=site.clock)
    resource = SharedResource(250, factor=100, lease_manager=manager, clock=site.clock)
    shared = site.batcher("shared", rate_limiter=resource)
    shared.watcher(name="share")(collecting([])).enqueue_many(range(3), cost=80)
    assert "shared, the resource of shared, has nothing leased" in said(
        site.app, "leases", "shared"
    )
    shared.limit()

    assert {one["partition"] for one in answered(site.app, "leases", "shared")} == {0, 1, 2}
    assert "2 50 4 s" in said(site.app, "leases", "shared")


def test_check_finds_problems(
    site: InMemory, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_batcher.checks.worker_problems", lambda *_: ())
    assert said(site.app, "check") == "nothing is wrong"
    assert answered(site.app, "check", "cosmos") == []

    site.batcher("hasty", claim_grace=0.1)
    assert "hasty warning celery_batcher.W007 claim_grace is 0.1 s" in said(
        site.app, "check", code=1
    )
    (problem,) = answered(site.app, "check", "hasty", code=1)
    assert (problem["batcher"], problem["level"]) == ("hasty", "warning")


# Changing


def test_pause_resume_and_flush(site: InMemory, batcher: Batcher) -> None:
    assert "is paused for 5.0 s" in said(site.app, "pause", "cosmos", "5")
    assert "paused until resumed: celery batcher resume cosmos" in said(site.app, "pause", "cosmos")
    assert answered(site.app, "pause", "cosmos") == {"batcher": "cosmos", "paused_for": None}
    assert "cosmos goes on (idle)" in said(site.app, "resume", "cosmos")
    assert answered(site.app, "resume", "cosmos") == {"batcher": "cosmos", "phase": "idle"}
    assert "as soon as anybody can" in said(site.app, "flush", "cosmos")
    batcher.store.take_turn("holder", 1000)
    assert said(site.app, "flush", "cosmos") == "cosmos flushes now"
    assert answered(site.app, "flush", "cosmos") == {"batcher": "cosmos", "turn_held": True}
    assert batcher.store.take_turn("holder", 1000).wakes >= 3
    assert "seconds above 0" in failed(site.app, "pause", "cosmos", "0")


def test_a_drain_that_ends_and_one_that_does_not(
    site: InMemory, batcher: Batcher, write: Watcher
) -> None:
    assert "say --yes" in failed(site.app, "drain", "cosmos")
    write.enqueue({})
    assert batcher.status().phase == "idle"

    text = said(site.app, "drain", "cosmos", "--yes", "--timeout", "2", code=1)
    assert "still draining, 1 operations have not ended" in text
    assert answered(site.app, "drain", "cosmos", "-y", "--timeout", "0", code=1) == {
        "batcher": "cosmos",
        "drained": False,
        "unfinished": 1,
    }

    site.tick(batcher)
    assert "cosmos is drained" in said(site.app, "drain", "cosmos", "--yes")
    assert batcher.status().phase == "draining"


def test_the_capacity_is_shown_and_changed(site: InMemory, batcher: Batcher) -> None:
    assert "cost 1 s 1,000 1,000 0 0" in said(site.app, "capacity", "cosmos")
    assert "cost 1 s 1,500" in said(site.app, "capacity", "cosmos", "--set", "1500")
    (limit,) = answered(site.app, "capacity", "cosmos", "--set", "2_000")
    assert limit["capacity"] == 2000
    assert batcher.status().capacity == 2000
    assert "say --yes" in failed(site.app, "capacity", "cosmos", "--set", "0")
    assert batcher.status().capacity == 2000
    answered(site.app, "capacity", "cosmos", "--set", "0", "--yes")
    assert batcher.status().capacity == 0


def test_a_capacity_of_several_dimensions_is_changed_in_one(site: InMemory) -> None:
    resource = ProvisionedResource(
        {"requests": (10, 500), "tokens": 90_000},
        window={"requests": (1.0, 60.0), "tokens": 60.0},
    )
    batcher = site.batcher("llm", rate_limiter=resource)

    answered(site.app, "capacity", "llm", "--set", "tokens=70000")
    found = answered(site.app, "capacity", "llm", "--set", "requests=20,800")

    assert [one["capacity"] for one in found] == [20, 800, 70_000]
    assert [one.capacity for one in batcher.status().limits] == [20, 800, 70_000]
    assert "did you mean 'tokens'?" in failed(site.app, "capacity", "llm", "--set", "token=1")
    assert "--set requests=N --set tokens=N" in failed(site.app, "capacity", "llm", "--set", "5")
    assert "a whole number" in failed(site.app, "capacity", "llm", "--set", "tokens=many")
    assert "shape" in failed(site.app, "capacity", "llm", "--set", "requests=20")


def test_a_shared_capacity_starts_from_what_the_store_says(site: InMemory) -> None:
    manager = MemoryLeaseManager(clock=site.clock)
    resource = SharedResource(
        400, reserved_capacity=100, factor=100, lease_manager=manager, clock=site.clock
    )
    batcher = site.batcher("shared", rate_limiter=resource)
    batcher.limit()
    resource.set_reserved_capacity(200)
    resource._reserved = 100  # another process, which has not heard of it

    (limit,) = answered(site.app, "capacity", "shared", "--set", "500")
    assert limit["capacity"] == 700
    (limit,) = answered(site.app, "capacity", "shared", "--reserved", "50")
    assert limit["capacity"] == 550


def test_without_a_resource_there_is_no_capacity(site: InMemory) -> None:
    site.batcher("free")

    assert "free has no resource" in said(site.app, "capacity", "free")
    assert "no resource whose capacity" in failed(site.app, "capacity", "free", "--set", "5")


def test_a_purge_empties_the_buffer_once_it_is_confirmed(
    site: InMemory, batcher: Batcher, waiting: Watcher
) -> None:
    assert "say --yes" in failed(site.app, "purge", "cosmos")
    assert batcher.operations_in_buffer() == 5

    assert answered(site.app, "purge", "cosmos", "--yes") == {"batcher": "cosmos", "removed": 5}
    assert "0 operations were removed" in said(
        site.app, "purge", "cosmos", "--yes", "--watcher", "write"
    )
    assert "did you mean 'write'" in failed(site.app, "purge", "cosmos", "-y", "-w", "wrote")


# Dead letters


@pytest.fixture
def dead(site: InMemory, batcher: Batcher, write: Watcher) -> list[str]:
    """The ids of dead letters."""
    ids = [write.enqueue({"bad": True, "n": n, HOSTILE: 1}, key=HOSTILE) for n in range(3)]
    site.tick(batcher, 3)
    return ids


def test_dead_letters_are_listed_and_shown(
    site: InMemory, batcher: Batcher, dead: list[str]
) -> None:
    text = said(site.app, "dead", "cosmos", "list", "--most", "2")
    assert all(id in text for id in dead[:2])
    assert dead[2] not in text
    assert "and 1 more" in text

    text = said(site.app, "dead", "cosmos", "show", dead[1])
    assert f"id {dead[1]} watcher write cost 1" in text
    assert '"n": 1' in text
    assert "reason" in text
    (first, *_) = answered(site.app, "dead", "cosmos", "list", "-w", "write")
    assert (first["id"], first["watcher"], first["reason"]) == (dead[0], "write", HOSTILE)
    assert answered(site.app, "dead", "cosmos", "show", dead[2])["payload"]["n"] == 2
    assert "no dead letter 'nope'" in failed(site.app, "dead", "cosmos", "show", "nope", code=1)


def test_dead_letters_are_redriven_and_purged(
    site: InMemory, batcher: Batcher, dead: list[str]
) -> None:
    assert "their ids, or --all" in failed(site.app, "dead", "cosmos", "redrive")
    assert "their ids, or --all" in failed(site.app, "dead", "cosmos", "purge", "--all", dead[0])
    assert answered(site.app, "dead", "cosmos", "redrive", dead[0]) == {
        "batcher": "cosmos",
        "redriven": 1,
    }
    assert "say --yes" in failed(site.app, "dead", "cosmos", "purge", "--all")
    assert "2 dead letters of cosmos were removed" in said(
        site.app, "dead", "cosmos", "purge", "--all", "--yes"
    )
    assert (batcher.status().dead, batcher.operations_in_buffer()) == (0, 1)
    assert "has no dead letters" in said(site.app, "dead", "cosmos", "list")


def test_letters_of_a_watcher_that_is_gone_are_not_lost_from_sight(
    site: InMemory, batcher: Batcher, dead: list[str]
) -> None:
    del batcher._registry._watchers["write"]

    assert "is not in the code any more" in failed(
        site.app, "dead", "cosmos", "list", "-w", "write"
    )


# Names, errors, texts of others


@pytest.mark.parametrize(
    "args",
    [
        ("status", "cosmo"),
        ("peek", "cosmo"),
        ("pause", "cosmo"),
        ("dead", "cosmo", "list"),
        ("purge", "cosmo", "--yes"),
        ("events", "cosmo"),
    ],
)
def test_unknown_names_suggest_near_ones(site: InMemory, batcher: Batcher, args: Any) -> None:
    assert failed(site.app, *args) == "the app has no batcher 'cosmo': did you mean 'cosmos'?"


def test_an_app_without_batchers_says_what_to_do(site: InMemory) -> None:
    assert "name it with -A" in failed(site.app, "status")


def test_a_module_that_cannot_be_imported_is_named(site: InMemory) -> None:
    site.app.conf.imports = ["no_such_module"]

    assert "No module named 'no_such_module'" in failed(site.app, "list")


@pytest.mark.parametrize("args", [("status",), ("peek", "cosmos"), ("flush", "cosmos")])
def test_a_store_that_is_away_is_one_line(
    site: InMemory, batcher: Batcher, args: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("the store at redis://:**@host:1/0\n does not answer\x1b")

    for act in ("counts", "want"):
        monkeypatch.setattr(type(batcher.store), act, away)

    line = failed(site.app, *args, code=3)
    assert line == "the store at redis://:**@host:1/0 does not answer\\x1b"


@pytest.mark.parametrize(
    "args",
    [
        ("peek", "cosmos", "--full"),
        ("peek", "cosmos", "--json"),
        ("dead", "cosmos", "list"),
        ("dead", "cosmos", "list", "--json"),
        ("explain", "cosmos", "write"),
        ("status",),
    ],
)
def test_texts_of_others_do_nothing_to_a_terminal(
    site: InMemory, batcher: Batcher, write: Watcher, dead: list[str], args: Any
) -> None:
    batcher.pause(None)
    write.enqueue({"x": HOSTILE}, key=HOSTILE, id=HOSTILE)
    site.tick(batcher)

    output = run(site.app, *args).output
    assert escaped(output)
    if "peek" in args:
        assert "[red]x[/red]" in output
        assert ":smile:" in output


def test_a_letter_is_shown_without_being_obeyed(
    site: InMemory, batcher: Batcher, dead: list[str]
) -> None:
    output = run(site.app, "dead", "cosmos", "show", dead[0]).output

    assert escaped(output)
    assert "\\x1b[2J" in output


def test_texts_are_spelled_out() -> None:
    assert printable("é ü 漢 a") == "é ü 漢 a"
    assert printable("a\tb\nc\x1b", lines=True) == "a   b\nc\\x1b"
    assert printable("\ud800\x85\u2028") == "\\ud800\\x85\\u2028"
    assert payload_text({"a": b"\x00"}) == r'{"a": "b' + r"'\\x00'" + '"}'
    assert payload_text("x" * 20, 5) == '"xxxx... (22 characters)'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (0.0425, "42 ms"), (1.5, "1.5 s"), (119, "119 s"), (180, "3 min")],
)
def test_times_are_in_units_that_fit(seconds: float | None, text: str) -> None:
    assert tables.span(seconds) == text
    assert tables.span(3 * 3600) == "3 h"
    assert tables.span(10 * 86_400) == "10 d"


# Help and completion


def commands_of(one: click.Command, path: str = "") -> list[tuple[str, click.Command]]:
    if not isinstance(one, click.Group):
        return [(path.strip(), one)]
    return [
        found
        for name, command in one.commands.items()
        for found in commands_of(command, f"{path} {name}")
    ]


@pytest.mark.parametrize(("path", "command"), commands_of(group))
def test_every_command_has_help_and_answers_to_programs(path: str, command: click.Command) -> None:
    assert command.help
    summary = command.help.splitlines()[0]
    assert len(summary) <= 60
    json_option = any("--json" in one.opts for one in command.params)
    assert json_option or path == "metrics"


def test_names_are_completed(site: InMemory, batcher: Batcher) -> None:
    site.batcher("cold")
    site.batcher("other")
    root = click.Context(click.Command("celery"))
    root.params["app"] = site.app
    context = click.Context(group, parent=root)

    assert complete(context, group.commands["peek"].params[0], "co") == ["cold", "cosmos"]
    root.params["app"] = "no.such.module"
    assert complete(context, group.commands["peek"].params[0], "co") == []


# Live


def shown(screen: live.Screen, height: int = 40) -> str:
    console = Console(width=110, height=height, no_color=True, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(screen)
    return captured.get()


def test_a_live_screen_survives_outages_of_the_store(
    site: InMemory, batcher: Batcher, waiting: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = live.Screen([batcher], 0.5)
    screen.look()
    assert "waiting     3 operations" in shown(screen)

    def away(*_: Any) -> Any:
        raise StoreUnavailableError("it does not answer\x1b:")

    with monkeypatch.context() as patch:
        patch.setattr(type(batcher.store), "counts", away)
        screen.look()
        text = shown(screen)
        assert "cosmos  the store is away since" in text
        assert "it does not answer\\x1b: Trying again." in text
        assert "waiting     3 operations" in text

    batcher.resume()
    site.tick(batcher, 3)
    screen.look()
    assert "the store is away" not in shown(screen)
    screen.look()
    assert "operations/s done" in shown(screen)


def test_a_store_that_was_never_there_is_a_line(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise StoreUnavailableError("no")

    monkeypatch.setattr(type(batcher.store), "counts", away)
    screen = live.Screen([batcher], 0.5)
    screen.look()

    assert len(shown(screen).strip().splitlines()) == 2


def test_of_many_watchers_the_busiest_are_live(site: InMemory, batcher: Batcher) -> None:
    for n in range(12):
        batcher.watcher(name=f"w{n:02}")(collecting([])).enqueue_many(range(n + 1))
    batcher.pause(None)
    site.tick(batcher)
    screen = live.Screen([batcher], 0.5)
    screen.look()

    text = shown(screen, 60)
    assert "and 4 more watchers" in text
    assert "w04" in text
    assert "w03" not in text


def test_a_row_of_bars_is_as_high_as_its_highest() -> None:
    assert live.sparkline([0, 5, 10]) == "▁▅█"
    assert live.sparkline([0, 0]) == "▁▁"
    assert live.sparkline([]) == ""


def test_without_a_terminal_the_status_is_printed_again_and_again(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", sleep)

    live.watch(Console(width=100, no_color=True), [batcher], 0.25)

    assert looks == [0.25, 0.25]
    assert capsys.readouterr().out.count("cosmos  idle") == 2


def test_metrics_are_printed(site: InMemory, batcher: Batcher, waiting: Watcher) -> None:
    pytest.importorskip("prometheus_client")

    text = run(site.app, "metrics").stdout

    assert 'celery_batcher_up{batcher="cosmos"} 1.0' in text


def test_json_is_all_there_is_on_standard_output(site: InMemory, waiting: Watcher) -> None:
    for args in (("status",), ("list",), ("peek", "cosmos"), ("capacity", "cosmos")):
        json.loads(run(site.app, *args, "--json").stdout)
