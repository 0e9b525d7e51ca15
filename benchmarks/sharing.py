"""How batchers share one resource: what is kept, what is used, and who gets how much of it.

Every batcher is an app with processes of its own. All have more to do than they can have, unless
said otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from analysis import jain, percentile, reached, sliding, steady_rate, units_between, worst_window
from apps.settings import RETRY_AFTER, SHARED, THROTTLE
from celery_batcher.config import BATCHER_OPTIONS, SETTINGS
from celery_batcher.store.keys import SHARED as SHARED_KEYS
from celery_batcher.store.keys import Keys
from processes import SHARING, Bench, Fleet, Layout, Server

CAPACITY = 2_000
BATCH_SIZE = 50
BACKLOG = 15 * CAPACITY
"""What each batcher has to do: much more than it can have."""
SETTLE = 2.0
"""Seconds that do not count after something has changed: what was enqueued is still taken in."""
FIRST_LEASE = 7.0
"""The same where a lease manager is used for the first time: for 4 s it leases nothing."""
EQUAL = {"4 equal batchers": "provisioned", "4 fleets, Redis leases": "leased"}
"""Kinds of resources, by the name of their row; a kind is one of `apps.sharing.RESOURCES`."""
GRACE: float = BATCHER_OPTIONS["start_grace"].default

Options = Mapping[str, Any]
Events = list[tuple[float, int]]


class Crowd:
    """Fleets of one batcher each, on one resource.

    Args:
        members: settings of each batcher beside those of all.
        apart: a batcher whose flusher has a worker of its own.
    """

    def __init__(
        self, server: Server, members: Mapping[str, Options], *, apart: str = "", **settings: Any
    ) -> None:
        self._server = server
        self._apart = apart
        self._capacity = settings.setdefault("capacity", CAPACITY)
        settings.setdefault("batch_size", BATCH_SIZE)
        self._fleets = {
            name: Fleet(server, SHARING, None, joins=True, batcher=name, **{**settings, **own})
            for name, own in members.items()
        }

    def __enter__(self) -> Crowd:
        self._server.empty()
        with ExitStack() as stack:
            for fleet in self._fleets.values():
                stack.enter_context(fleet)
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._start, self._fleets))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Fleet:
        return self._fleets[name]

    def demand(self, *names: str, count: int, way: str = "packed") -> float:
        """Enqueue as much for each of them at the same time; return when the first one began."""
        with ThreadPoolExecutor() as pool:
            productions = pool.map(lambda name: self[name].produce(way, count=count), names)
            return min(production.started for production in productions)

    def events(self, name: str, per_operation: int | None = None) -> Events:
        """(start, cost) of a batcher's handlers; of a further dimension its cost is given."""
        if per_operation is None:
            return self[name].events()
        return [(start.at, start.operations * per_operation) for start in self[name].starts()]

    def all_events(self, per_operation: Mapping[str, int] | None = None) -> Events:
        """The same of all batchers."""
        costs: Mapping[str, int] = per_operation or {}
        return sorted(
            event for name in self._fleets for event in self.events(name, costs.get(name))
        )

    def shares(self, begin: float, seconds: float) -> dict[str, float]:
        """What each batcher had of the capacity in that time, as parts of it."""
        had = {
            name: units_between(self.events(name), begin, begin + seconds) for name in self._fleets
        }
        return {name: units / seconds / CAPACITY for name, units in had.items()}

    def timelines(self) -> dict[str, list[tuple[float, int]]]:
        """For a chart: what each batcher started in the second before, on one axis of time."""
        first = self.all_events()[0][0]
        return {name: sliding(self.events(name), since=first) for name in self._fleets}

    def _start(self, name: str) -> None:
        processes = {name: "worker -c 2 -B"}
        if name == self._apart:
            control = f"{name}-control"
            processes = {name: f"worker -c 2 -Q {name}", control: f"worker -c 1 -B -Q {control}"}
            self[name].start(Layout(processes, control_queue=control))
        else:
            self[name].start(Layout(processes))


def measure(bench: Bench) -> dict[str, Any]:
    seconds = 2.0 if bench.quick else 6.0
    rows, timelines = {"1 batcher": _alone(bench.server, seconds)}, {}
    for name, kind in EQUAL.items():
        found, timelines[f"{name}, then a newcomer"] = _equal(bench.server, kind, seconds)
        rows |= {name + what: row for what, row in found.items()}
    rows |= _vectors(bench.server, seconds)
    for title, scenario in SCENARIOS.items():
        found, timelines[title] = scenario(bench.server, seconds)
        rows |= found
    return {
        "sharing": rows,
        "throttled": _throttled(bench.server),
        "shared timelines": timelines,
    }


def _alone(server: Server, seconds: float) -> dict[str, Any]:
    """One batcher, for comparison: what else the machine does costs it as much as others."""
    with Crowd(server, {"a": {}}) as crowd:
        crowd.demand("a", count=BACKLOG)
        begin = time.monotonic() + SETTLE
        time.sleep(SETTLE + seconds + 1.0)
        return _row(crowd.all_events(), begin, seconds, {})


def _equal(server: Server, kind: str, seconds: float) -> tuple[dict[str, Any], Any]:
    """Four batchers that want everything, and then a fifth."""
    names = ["a", "b", "c", "d", "e"]
    with Crowd(server, {name: {} for name in names}, resource=kind) as crowd:
        crowd.demand(*names[:4], count=BACKLOG)
        settle = FIRST_LEASE if kind == "leased" else SETTLE
        begin = time.monotonic() + settle
        time.sleep(settle + seconds + 1.0)
        joined = crowd.demand("e", count=BACKLOG)
        later = time.monotonic() + SETTLE
        time.sleep(SETTLE + seconds + 1.0)
        shares = crowd.shares(begin, seconds)
        del shares["e"]
        four = _row(crowd.all_events(), begin, seconds, shares)
        five = _row(crowd.all_events(), later, seconds, crowd.shares(later, seconds))
        five["reached"] = reached(crowd.events("e"), joined, 0.9 * CAPACITY / 5)
        return {"": four, " and a newcomer": five}, crowd.timelines()


def _weighted(server: Server, seconds: float) -> tuple[dict[str, Any], Any]:
    """Weights of 3 and 1, and then a third batcher with a floor."""
    members = {
        "heavy": {"options": {"weight": 3}},
        "light": {},
        "floor": {"options": {"floor": 0.4}},
    }
    with Crowd(server, members) as crowd:
        crowd.demand("heavy", "light", count=BACKLOG)
        begin = time.monotonic() + SETTLE
        time.sleep(SETTLE + seconds + 1.0)
        crowd.demand("floor", count=BACKLOG)
        joined = time.monotonic() + SETTLE
        time.sleep(SETTLE + seconds + 1.0)
        events = crowd.all_events()
        shares = crowd.shares(begin, seconds)
        del shares["floor"]
        rows = {
            "weights 3 and 1": _row(events, begin, seconds, shares),
            "a floor of 40 % beside them": _row(
                events, joined, seconds, crowd.shares(joined, seconds)
            ),
        }
        return rows, crowd.timelines()


def _vectors(server: Server, seconds: float) -> dict[str, Any]:
    """Two dimensions, the first with two windows; costs of which each batcher has more of one."""
    capacity = {"requests": [600, 2_000], "tokens": 3_500}
    window = {"requests": [1.0, 4.0], "tokens": 1.0}
    tokens = {"few": 2, "many": 20}
    members = {name: {"cost": {"requests": 1, "tokens": cost}} for name, cost in tokens.items()}
    with Crowd(server, members, capacity=capacity, window=window, batch_size=25) as crowd:
        crowd.demand(*tokens, count=int(600 * (seconds + 10)))
        begin = time.monotonic() + 4.0
        long = max(4.0, seconds // 4 * 4)
        time.sleep(4.0 + long + 1.0)
        requests, spent = crowd.all_events(), crowd.all_events(tokens)
        return {
            f"{dimension} in {length:.0f} s": {
                "worst": worst_window(events, length) / limit,
                "use": steady_rate(events, begin, long) * length / limit,
            }
            for dimension, events, limit, length in (
                ("requests", requests, 600, 1.0),
                ("requests", requests, 2_000, 4.0),
                ("tokens", spent, 3_500, 1.0),
            )
        }


def _changed(server: Server, seconds: float) -> tuple[dict[str, Any], Any]:
    """The capacity is halved and doubled while two batchers use all of it."""
    half = CAPACITY // 2
    with Crowd(server, {"a": {}, "b": {}}) as crowd:
        crowd.demand("a", "b", count=BACKLOG)
        time.sleep(SETTLE + 1.0)
        halved = float(crowd["a"].run("apps.set_capacity", str(half)))
        time.sleep(SETTLE + seconds + 1.0)
        asked = time.monotonic()
        doubled = float(crowd["b"].run("apps.set_capacity", str(CAPACITY)))
        time.sleep(SETTLE + seconds + 1.0)
        events = crowd.all_events()
        lower = [event for event in events if halved <= event[0] < asked]
        rows = {
            "halved": _row(lower, halved + SETTLE, seconds, {}, half),
            "doubled": {
                **_row(events, doubled + SETTLE, seconds, {}),
                "reached": reached(events, doubled, 0.95 * CAPACITY),
            },
        }
        return rows, crowd.timelines()


def _back_fills(server: Server, seconds: float) -> tuple[dict[str, Any], Any]:
    """Back-fills beside a normal load of 60 % of the capacity, and of ten times the capacity."""
    rate = 0.6 * CAPACITY
    with Crowd(server, {"normal": {}, "back-fills": {}}) as crowd:
        crowd.demand("back-fills", count=BACKLOG, way="backfill")
        time.sleep(SETTLE)
        paced = crowd["normal"].produce("packed", rate=rate, seconds=seconds + 2.5, chunk=20)
        waited = crowd["normal"].latencies()
        begin = paced.started + SETTLE
        crowd.demand("normal", count=BACKLOG)
        flooded = time.monotonic() + SETTLE
        time.sleep(SETTLE + seconds + 1.0)
        events = crowd.all_events()
        beside = _row(events, begin, seconds, crowd.shares(begin, seconds))
        beside["p99"] = percentile(waited, 0.99)
        beside["given"] = steady_rate(crowd.events("normal"), begin, seconds) / rate
        rows = {
            "back-fills beside 60 %": beside,
            "back-fills beside 1,000 %": _row(
                events, flooded, seconds, crowd.shares(flooded, seconds)
            ),
        }
        return rows, crowd.timelines()


SCENARIOS = {
    "weights of 3 and 1, then a floor of 40 %": _weighted,
    "the capacity halved, and doubled": _changed,
    "back-fills beside 60 %, then beside 1,000 %": _back_fills,
}


def _throttled(server: Server) -> dict[str, float]:
    """A handler gets a 429, while batches of another batcher are released and not yet claimed."""
    with Crowd(server, {"a": {}, "b": {}, "c": {}}, apart="c") as crowd:
        crowd.demand("a", "b", "c", count=BACKLOG)
        time.sleep(SETTLE + 1.0)
        with crowd["c"].stalled("c"):
            time.sleep(0.5)
            Path(crowd["a"].directory, THROTTLE).touch()
            opens = _until_closed(server)
            waiting = server.client.zcard(_keys("c")["open"])
        time.sleep(RETRY_AFTER + 2.0)
        times = [start for start, _ in crowd.all_events()]
        closed = opens - RETRY_AFTER
        late = [start - closed for start in times if closed < start < opens]
        return {
            "released before": float(waiting),
            "latest start": max(late, default=0.0),
            "within": float(sum(after > GRACE for after in late)),
            "first start": min(start for start in times if start >= opens) - closed,
        }


def _until_closed(server: Server) -> float:
    """Wait until the store has noted a 429; when the resource opens, on the monotonic clock."""
    resource, deadline = _keys("c").fixed[SHARED_KEYS.index("res")], time.monotonic() + 5.0
    while not (opens_ms := server.client.hget(resource, "closed_until")):
        if time.monotonic() > deadline:
            raise RuntimeError("no handler was throttled")
    return int(opens_ms) / 1000 - time.time() + time.monotonic()


def _keys(batcher: str) -> Keys:
    return Keys(SETTINGS["batcher_key_prefix"], SHARED, batcher)


def _row(
    events: Events,
    begin: float,
    seconds: float,
    shares: Mapping[str, float],
    capacity: int = CAPACITY,
) -> dict[str, Any]:
    """What was kept of all that was started, and what was used from `begin` on."""
    return {
        "worst": worst_window(events) / capacity,
        "use": steady_rate(events, begin, seconds) / capacity,
        "jain": jain(list(shares.values())),
        "shares": dict(shares),
    }
