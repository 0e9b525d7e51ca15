"""The store on Redis (6.2 or later) or Valkey: one Lua script per act."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from .. import wire
from ..clock import Clock
from ..errors import ConfigurationError, StoreUnavailableError
from ..operation import Priority
from .base import (
    Admission,
    Admitted,
    Arrival,
    Charge,
    Claim,
    Died,
    Discarded,
    Leased,
    Limiter,
    Partition,
    Refused,
    Released,
    Settlement,
    Staged,
    Standing,
    TakenBack,
    Turn,
)
from .counts import AuditStep, Counts, Dead, Difference, Facts, LimitCounts, SetAside, WatcherCounts
from .keys import Keys
from .meters import RECENT, BatchRecord, Readings, newest
from .options import Limit, Limits, WatcherOptions
from .outlook import Outlook, Sought
from .redis_backfills import RedisBackfills, row_of
from .redis_explain import outlook, sought
from .redis_meters import batch_record, flush_record, readings

_LUA = resources.files(__package__) / "lua"
_TIMEOUT = 5.0
MAX_BYTES = 1024 * 1024
"""Of operations that a call reads or removes: beyond it the next call goes on."""


@cache
def source(name: str) -> str:
    """The text of a script, with the parts it names in ``-- @include`` lines put before it."""
    text = (_LUA / f"{name}.lua").read_text()
    parts: list[str] = []
    for line in text.splitlines():
        if line.startswith("-- @include "):
            parts += line.removeprefix("-- @include ").split()
    bodies = [(_LUA / "parts" / f"{part}.lua").read_text() for part in parts]
    return "\n".join([*bodies, text])


def connect(url: str, **options: Any) -> redis.Redis:
    """A client that gives up after a few seconds, and tries again before that.

    Raises:
        ConfigurationError: the URL is not one of Redis.
    """
    url = re.sub("ssl_cert_reqs=CERT_(NONE|OPTIONAL|REQUIRED)", _as_redis_says, url)
    try:
        return redis.Redis.from_url(
            url,
            **options,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            socket_keepalive=True,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 5),
            retry_on_error=[RedisConnectionError, RedisTimeoutError],
        )
    except ValueError as exc:
        raise ConfigurationError(f"the store's URL is not one of Redis: {exc}") from exc


def _as_redis_says(match: re.Match[str]) -> str:
    """Celery's name of a TLS requirement in a URL, as redis-py has it."""
    return f"ssl_cert_reqs={match[1].lower()}"


def server_facts(client: redis.Redis) -> Facts:
    """What a Redis server says of itself. Managed ones forbid CONFIG, and answer INFO."""
    try:
        found: dict[str, Any] = {**client.info("memory"), **client.info("persistence")}
    except ResponseError:  # forbidden
        found = {}
    seconds, microseconds = client.time()
    append_only = found.get("aof_enabled")
    return Facts(
        seconds * 1000 + microseconds // 1000,
        found.get("maxmemory_policy"),
        None if append_only is None else bool(append_only),
    )


class RedisStore(RedisBackfills):
    """Shared state of one batcher on a Redis server.

    Durability is the server's: with ``appendfsync always`` nothing is lost once a call has
    returned; with ``everysec`` up to a second of calls may be.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        url: str,
        batcher: str,
        resource: str,
        prefix: str = "celery_batcher:",
        clock: Clock | None = None,
    ) -> None:
        self.client = client
        self.url = url
        self.keys = Keys(prefix, resource, batcher)
        self._batcher = batcher
        self._clock = clock
        self._scripts: dict[str, Any] = {}
        self.audit_bounds = (100, 256 * 1024, 2000)
        """Entries, bytes, and batches or holds that a step of the audit looks at."""
        self.seek_bounds = (100, 256 * 1024)
        """Elements and bytes that a step of a search looks at."""

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError) as exc:
            raise StoreUnavailableError(
                f"the store at {self.url} does not answer ({exc}): is the server up?"
            ) from exc
        except RedisError as exc:
            raise StoreUnavailableError(f"the store at {self.url} refused: {exc}") from exc

    def _run(self, name: str, *args: Any, keys: Sequence[str] = ()) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.client.register_script(source(name))
        now = self._clock.now_ms() if self._clock else ""
        all_keys = self.keys.fixed if not keys else [*self.keys.fixed, *keys]
        arguments = (len(all_keys), *all_keys, self.keys.base, now, *args)
        with self._translated():
            try:
                return self.client.evalsha(script.sha, *arguments)
            except NoScriptError:
                return self.client.eval(source(name), *arguments)

    def configure(self, limits: Limits, watchers: Sequence[WatcherOptions]) -> Standing | None:
        rows: list[Any] = []
        for watcher in watchers:
            rows += [
                watcher.name,
                watcher.max_batch_size,
                watcher.max_attempts,
                watcher.max_concurrent_batches,
                watcher.weight,
                int(watcher.by_key),
                watcher.max_dead,
                int(watcher.bisect),
                "" if watcher.key_capacity is None else watcher.key_capacity,
                watcher.key_window_ms,
                watcher.key_concurrency,
            ]
        own = limits.resource
        part = (own.weight, own.floor, own.backfill_floor)
        answer = self._run("configure", _resource(limits), self._batcher, *part, *rows)
        return _standing(answer) if answer else None

    def admit(self, admissions: Sequence[Admission], buffer_size: int) -> Admitted:
        rows = [(one.id, one.watcher, one.operations, one.cost) for one in admissions]
        messages, buffered, *why = self._run("admit", buffer_size, json.dumps(rows))
        return Admitted(messages, buffered, *map(bool, why))

    def withdraw(self, ids: Sequence[str]) -> int:
        return cast(int, self._run("withdraw", *ids))

    def repeat(self, id: str) -> bool:
        return bool(self._run("repeat", id))

    def want(self, ms: int, *, wake: bool = False) -> int:
        return cast(int, self._run("want", ms, int(wake)))

    def take_turn(self, token: str, ms: int, *, keep: bool = False) -> Turn:
        mine, wanted_ms, wakes, waiting, *lanes = self._run("turn", token, ms, int(not keep))
        return Turn(bool(mine), wanted_ms, wakes, waiting, tuple(lane.decode() for lane in lanes))

    def leave_turn(self, token: str) -> bool:
        return bool(self._run("leave", token))

    def stage(self, token: str, arrivals: Sequence[Arrival], leases: str) -> Staged:
        rows = [_arrival(one) for one in arrivals]
        entries = b"".join([one.entries for one in arrivals])
        keys = [leases, f"{leases}:messages"] if leases else []
        limits = (wire.BLOCK_OPERATIONS, wire.BLOCK_BYTES)
        staged, duplicates, set_aside = self._run(
            "stage", token, json.dumps(rows), entries, *limits, keys=keys
        )
        if staged < 0:
            return Staged(lost=True)
        return Staged(staged, duplicates, set_aside)

    def forget(self, ids: Sequence[str]) -> int:
        return cast(int, self._run("forget", *ids))

    def idle(self, watchers: Sequence[str]) -> int:
        return cast(int, self._run("idle", *watchers))

    def void(self, ms: int, most: int) -> int:
        return cast(int, self._run("void", ms, most))

    def release(
        self, token: str, id: str, limits: Limits, so_far: tuple[int, int] = (0, 0)
    ) -> Released | Refused:
        answer = self._run(
            "release",
            token,
            id,
            limits.grace_ms,
            limits.flush_ms,
            limits.max_open_batches,
            limits.max_concurrent_batches,
            self._batcher,
            int(limits.limited),
            *so_far,
        )
        if answer[0] == b"batch":
            return _released(id, answer[1:])
        reason, wait_ms, *freed = answer
        return Refused(reason.decode(), wait_ms, freed == [1])

    def published(self, ids: Sequence[str]) -> int:
        return cast(int, self._run("published", *ids))

    def offer(self, token: str, most: int) -> list[Released]:
        return [_released(row[0].decode(), row[1:]) for row in self._run("offer", token, most)]

    def claim(self, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
        state, *rest = self._run("claim", id, nonce, limits.grace_ms, ms)
        if rest:
            return Claim("claimed", b"".join(rest[0]), rest[1])
        return Claim(state.decode())

    def renew(self, id: str, nonce: str, limits: Limits, renewal: str) -> bool:
        return bool(self._run("renew", id, nonce, limits.grace_ms, renewal))

    def commit(self, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
        return bool(self._run("commit", id, nonce, number, *_settlement(settlement)))

    def settle(self, id: str, nonce: str, settlement: Settlement) -> bool:
        return bool(self._run("settle", id, nonce, *_settlement(settlement), *settlement.forget))

    def charge(self, id: str, nonce: str, number: int, charge: Charge) -> bool:
        differences = " ".join(map(str, charge.differences))
        learned = [(key, *costs) for key, costs in charge.learned]
        samples = json.dumps(learned) if learned else ""
        return bool(self._run("charge", id, nonce, number, differences, samples))

    def estimates(self, watcher: str) -> dict[str, tuple[float, ...]]:
        with self._translated():
            rows = cast(dict[bytes, bytes], self.client.hgetall(self.keys[f"costs:{watcher}"]))
        return {key.decode(): tuple(map(float, row.split()[1:])) for key, row in rows.items()}

    def abandon(
        self, id: str, owner: str, reason: str, *, attempt: bool = True
    ) -> TakenBack | None:
        row = self._run("abandon", id, owner, reason, int(attempt))
        return _taken_back(row) if row else None

    def expire(self, token: str, limits: Limits, reason: str, most: int) -> list[TakenBack]:
        rows = self._run("expire", token, limits.claim_grace_ms, reason, most, limits.outage_ms)
        return [_taken_back(row) for row in rows]

    def probe(self, token: str, ms: int, most: int) -> list[TakenBack]:
        return [_taken_back(row) for row in self._run("probe", token, ms, most)]

    def pause(self, ms: int) -> bool:
        return bool(self._run("pause", ms))

    def drain(self) -> bool:
        return bool(self._run("drain"))

    def set_capacity(
        self, capacities: Sequence[int], reserved: int | None = None
    ) -> tuple[int, ...] | None:
        given = " ".join(map(str, capacities))
        before = self._run("set_capacity", given, "" if reserved is None else reserved)
        return tuple(map(int, before.split())) or None

    def limiter(self, token: str, ms: int, owner: str) -> Limiter:
        term, owner_, *figures = self._run("limiter", token, ms, owner, self._batcher)
        return Limiter(term, owner_.decode(), *map(int, figures))

    def lease(self, term: int, leases: Leased) -> bool:
        rows = json.dumps(list(leases.partitions.items()))
        return bool(self._run("lease", term, rows, leases.last, leases.lacking))

    def yield_limiter(self, token: str) -> bool:
        return bool(self._run("yield", token))

    def leases(self) -> list[Partition]:
        factor, last, lacking, *rows = [one.decode() for one in self._run("leases")]
        pairs = sorted((int(one), int(ms)) for one, ms in zip(rows[::2], rows[1::2], strict=True))
        return [
            Partition(number, int(factor) - int(lacking) * (number == int(last)), ms)
            for number, ms in pairs
            if factor
        ]

    def shut(self, ms: int) -> bool:
        return bool(self._run("shut", ms))

    def throttle(self, most_ms: int, jitter: float) -> int:
        return cast(int, self._run("throttle", most_ms, jitter))

    def counts(self) -> Counts:
        now, meta, res, usable, set_aside, messages, flush, *rows = self._run("counts")
        limits = _limits(_pairs(res), [int(one) for one in usable])
        counts = _counts(int(now), _pairs(meta), limits, set_aside, messages, rows)
        return replace(counts, last_flush=flush_record(flush))

    def meters(self) -> Readings:
        return readings(*self._run("meters"))

    def recent(self, most: int) -> list[BatchRecord]:
        return newest(
            [batch_record(line) for line in self._run("recent", RECENT)], min(most, RECENT)
        )

    def explain(
        self,
        watcher: str,
        limits: Limits,
        costs: Sequence[int] = (),
        priority: int = 0,
        key: str = "",
    ) -> Outlook:
        nth = 2 if priority == Priority.backfill else 1
        given = (" ".join(map(str, costs)), nth, int(limits.limited), key)
        own = (watcher, limits.grace_ms, limits.flush_ms, self._batcher)
        answer = self._run("explain", *own, *given)
        return outlook(answer, _row(int(answer[0][0]), answer[1]))

    def seek(self, id: str, part: str, watcher: str = "", cursor: str = "") -> Sought:
        at = cursor.encode("latin-1")
        return sought(self._run("seek", id, part, watcher, at, *self.seek_bounds))

    def peek(self, watcher: str, most: int) -> list[bytes]:
        return cast(list[bytes], self._run("peek", watcher, most, MAX_BYTES))

    def discard(self, id: str, part: str, watcher: str, most: int, left: int = 0) -> Discarded:
        answer = self._run("discard", id, part, watcher, left, most, MAX_BYTES)
        removed, left, over = json.loads(answer)
        return Discarded(removed, left, bool(over))

    def audit(self, id: str, every_ms: int) -> AuditStep:
        return _audit_step(self._run("audit", id, every_ms, *self.audit_bounds))

    def set_asides(self, most: int) -> list[SetAside]:
        with self._translated():
            rows = cast(list[bytes], self.client.lrange(self.keys["aside"], 0, most - 1))
        return [_set_aside(row) for row in rows]

    def dead(self, watcher: str, most: int, after: int = 0) -> list[Dead]:
        with self._translated():
            key = self.keys[f"dead:{watcher}"]
            rows = self.client.zrangebyscore(key, f"({after}", "+inf", start=0, num=most)
        return [_dead(row) for row in cast(list[bytes], rows)]

    def redrive(self, watcher: str, numbers: Sequence[int]) -> int:
        return cast(int, self._run("redrive", watcher, *numbers))

    def purge(self, watcher: str, numbers: Sequence[int]) -> int:
        return cast(int, self._run("purge", watcher, *numbers))

    def retire(self, before_ms: int, most: int) -> int:
        return cast(int, self._run("retire", before_ms, most))

    def facts(self) -> Facts:
        with self._translated():
            facts = server_facts(self.client)
        return replace(facts, now_ms=self._clock.now_ms()) if self._clock else facts


def _resource(limits: Limits) -> str:
    """A resource as the script reads it."""
    if not limits.limited:
        return ""
    own = limits.resource
    told: dict[str, Any] = {
        "limits": [(one.dimension, one.capacity, one.window_ms) for one in limits.all],
        "dimensions": own.dimensions,
        "grace": limits.grace_ms,
        "ramp": own.ramp,
        "every": own.every_ms,
        "adaptive": int(own.adaptive),
    }
    if own.factor is not None:
        told |= {"factor": own.factor, "reserved": own.reserved or 0}
    return json.dumps(told)


def _standing(answer: bytes) -> Standing:
    dimensions, limits = json.loads(answer)
    return Standing(tuple(dimensions), tuple(Limit(d, int(c), w) for d, c, w in limits))


def _limits(res: dict[str, str], usable: Sequence[int]) -> tuple[LimitCounts, ...]:
    def of(name: str, n: int) -> int:
        return int(res.get(name if n == 1 else f"{name}#{n}", 0))

    counts = []
    for n, now in enumerate(usable, 1):
        limit = Limit(of("dimension", n), of("capacity", n), of("window", n))
        held = of("held", n) + of("open", limit.dimension)
        counts.append(LimitCounts(limit, now, held, of("debt", n)))
    return tuple(counts)


def _arrival(one: Arrival) -> tuple[Any, ...]:
    """What the script must know of a message: it does not look into entries."""
    fault = one.fault
    pieces: list[wire.Piece] = []
    if not fault:
        try:
            pieces = wire.split_pieces(one.entries)
        except wire.MalformedError as exc:
            fault = str(exc)
    rows = [row_of(piece) for piece in pieces]
    return one.id, one.watcher, one.lease, len(one.entries), fault, rows


def _settlement(one: Settlement) -> tuple[str, str, str]:
    details = {"reasons": one.reasons, "delays": one.delays}
    return one.outcomes, one.reason, json.dumps(details) if one.reasons or one.delays else ""


def _released(id: str, row: Sequence[Any]) -> Released:
    watcher, operations, cost, trigger, oldest_ms, costs = row
    further = tuple(map(int, costs.split()[1:]))
    return Released(id, watcher.decode(), operations, cost, trigger.decode(), oldest_ms, further)


def _taken_back(row: Sequence[Any]) -> TakenBack:
    id, watcher, operations, died = row
    pairs = zip(died[::2], died[1::2], strict=True)
    return TakenBack(
        id.decode(),
        watcher.decode(),
        operations,
        tuple(Died(one.decode(errors="backslashreplace"), attempt) for one, attempt in pairs),
    )


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [item.decode() for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _counts(
    now: int,
    meta: dict[str, str],
    limits: tuple[LimitCounts, ...],
    set_aside: int,
    messages: int,
    rows: Sequence[Any],
) -> Counts:
    def of(name: str) -> int:
        return int(meta.get(name, 0))

    paused = of("paused_until")
    return Counts(
        now_ms=now,
        admitted=of("admitted"),
        admitted_cost=of("admitted_cost"),
        admitted_messages=messages,
        waiting=of("waiting"),
        waiting_cost=of("waiting_cost"),
        delayed=of("delayed"),
        delayed_cost=of("delayed_cost"),
        open=of("open"),
        open_cost=of("open_cost"),
        open_batches=of("open_batches"),
        running=of("running"),
        running_cost=of("running_cost"),
        running_batches=of("running_batches"),
        done=of("done"),
        dead=of("dead"),
        dead_cost=of("dead_cost"),
        dropped=of("dropped"),
        duplicates=of("duplicates"),
        expired_batches=of("expired"),
        halved_batches=of("halved"),
        late_batches=of("late"),
        repaired=of("repaired"),
        set_aside=set_aside,
        paused_ms=-1 if paused == -1 else max(0, paused - now),
        draining=bool(of("draining")),
        turn_ms=max(0, of("turn_until") - now),
        limits=limits,
        watchers=tuple(sorted((_row(now, row) for row in rows), key=lambda row: row.name)),
    )


def _row(now: int, row: Sequence[Any]) -> WatcherCounts:
    name, flat, dead, enqueued = row
    fields = _pairs(flat)
    return WatcherCounts(
        name=name.decode(),
        waiting=int(fields.get("n", 0)),
        waiting_cost=int(fields.get("cost", 0)),
        delayed=int(fields.get("delayed", 0)),
        open_batches=int(fields.get("on", 0)),
        running_batches=int(fields.get("cn", 0)),
        dead=dead,
        on_probe=fields.get("probe") == "1",
        next_age_ms=max(0, now - enqueued) if enqueued >= 0 else None,
    )


def _audit_step(answer: bytes) -> AuditStep:
    wait, over, compared, wrong, differences, skipped = json.loads(answer)
    found = (
        Difference(name, watcher, int(counted), int(recorded), bool(repaired))
        for name, watcher, counted, recorded, repaired in differences or ()
    )
    return AuditStep(
        int(wait), bool(over), int(compared), int(wrong), tuple(found), tuple(skipped or ())
    )


def _set_aside(row: bytes) -> SetAside:
    at, watcher, reason = struct.unpack_from(">QII", row)
    middle, end = 16 + watcher, 16 + watcher + reason
    return SetAside(at, row[16:middle].decode(), row[middle:end].decode(), row[end:])


def _dead(row: bytes) -> Dead:
    number, at, reason = struct.unpack_from(">QQI", row)
    return Dead(number, at, row[20 : 20 + reason].decode(errors="replace"), row[20 + reason :])
