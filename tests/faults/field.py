"""The field of a round: servers, proxies and the fleet, whose supervisor starts what has ended."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from redis import Redis

from celery_batcher.embedded import HOST, EmbeddedServer, binaries
from faults.facts import Facts
from faults.project import CONTROL, Settings
from faults.proxy import Proxy
from faults.zygote import Zygote
from servers import RabbitServer

_RESTART, _LEFTOVERS = 0.1, 1.0
_PATIENCE = 8.0
"""Seconds that a process has to end after SIGTERM; then its supervisor kills it."""


@dataclass(slots=True)
class Strike:
    """A fault that happened. Times are monotonic; ``group`` is 0 for servers and connections.

    ``pid`` is the only process that died, or 0: the whole group. ``kills``: processes that SIGKILL
    was sent to as one act, 0 or 1.
    """

    component: str
    fault: str
    at: float
    until: float
    group: int = 0
    pid: int = 0
    kills: int = 0


@dataclass(frozen=True, slots=True)
class Arming:
    """The point at which a process is to kill itself, and the row that this counts for."""

    point: str
    number: int
    component: str

    @property
    def fault(self) -> str:
        """Name of the row."""
        moment = self.point.partition(".")[2].replace("_", " ")
        return f"SIGKILL {moment}"


@dataclass(slots=True)
class Member:
    """A process of the fleet, the same over its restarts."""

    role: str
    name: str
    what: list[str]
    proxied: bool
    pid: int = 0
    started_at: float = 0.0
    back_at: float = 0.0
    arming: Arming | None = None
    mark: Path = Path()
    told_to_end_at: float = 0.0
    killed: bool = False
    leftovers_at: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it runs, as far as its supervisor knows."""
        return self.pid > 0

    @property
    def prefork(self) -> bool:
        """Whether it has children that do the work."""
        return "--pool=prefork" in self.what

    def end_in_time(self) -> None:
        """Its supervisor has told it to end, and will not wait for ever."""
        self.told_to_end_at = time.monotonic()

    def leave_orphans(self) -> None:
        """Children go on for a moment after their parent."""
        self.leftovers_at = time.monotonic() + _LEFTOVERS


def members() -> list[Member]:
    """The fleet: every kind of pool, and of each role one process behind the proxy."""

    def worker(role: str, name: str, queue: str, *options: str, proxied: bool) -> Member:
        quiet = ("--without-gossip", "--without-mingle", "--loglevel=INFO")
        what = ["worker", f"--hostname={name}@faults", f"--queues={queue}", *quiet, *options]
        return Member(role, name, what, proxied)

    prefork = ("--pool=prefork", "--concurrency=1")
    solo = ("--pool=solo",)
    threads = ("--pool=threads", "--concurrency=2")
    return [
        worker("flusher", "flusher1", CONTROL, *solo, proxied=False),
        worker("flusher", "flusher2", CONTROL, *prefork, proxied=True),
        worker("worker", "worker1", "celery", *prefork, proxied=False),
        worker("worker", "worker2", "celery", *prefork, proxied=True),
        worker("worker", "worker3", "celery", *threads, proxied=False),
        worker("worker", "worker4", "celery", *solo, proxied=True),
        Member("beat", "beat1", ["beat", "--loglevel=INFO"], False),
        Member("beat", "beat2", ["beat", "--loglevel=INFO"], True),
        Member("producer", "producer1", ["producer"], False),
        Member("producer", "producer2", ["producer"], True),
    ]


@dataclass(slots=True)
class Field:
    """Everything that runs in a round; `close` ends it.

    Args:
        directory: for data, logs and facts.
        zygote: forks the fleet.
        rabbit: the broker; None: Redis is.
        arm: chooses the point at which a process that is about to start will die, if at all.
        rate: operations a second of each producer.
    """

    directory: Path
    zygote: Zygote
    rabbit: RabbitServer | None
    arm: Callable[[Member], Arming | None]
    rate: int = 150
    fleet: list[Member] = field(default_factory=members)
    strikes: list[Strike] = field(default_factory=list)
    calm: bool = False
    redis: EmbeddedServer = field(init=False)
    proxies: list[Proxy] = field(init=False)
    facts: Facts = field(init=False)
    _marks: int = 0

    def __post_init__(self) -> None:
        data = self.directory / "redis"
        self.facts = Facts(self.directory)
        self.redis = EmbeddedServer(
            directory=data, appendfsync="always", binary=_limited(self.directory)
        )
        self.redis.start()
        self.proxies = [Proxy(self.redis.port)]
        if self.rabbit is not None:
            self.proxies.append(Proxy(self.rabbit.port))

    def settings(self, *, proxied: bool = False) -> Settings:
        """Of the project, behind the proxies or not."""
        port = self.proxies[0].port if proxied else self.redis.port
        broker = store = f"redis://{HOST}:{port}/0"
        if self.rabbit is not None:
            broker = self.rabbit.url
            if proxied:
                broker = broker.replace(f":{self.rabbit.port}", f":{self.proxies[1].port}")
        return Settings(broker, store, str(self.directory), self.rate)

    def client(self) -> Redis:
        """A client of the store that does not go through the proxy."""
        return Redis.from_url(self.redis.url, socket_timeout=5)

    def start(self, member: Member) -> None:
        """Start a process, armed or not."""
        member.arming = None if self.calm else self.arm(member)
        env: dict[str, str] = {}
        if member.arming:
            self._marks += 1
            member.mark = self.directory / f"{self._marks}.mark"
            only_child = member.arming.component == "pool child"
            env = {
                "FAULT_POINT": f"{member.arming.point}:{member.arming.number}",
                "FAULT_MARK": str(member.mark),
                "FAULT_SCOPE": "process" if only_child else "group",
            }
        what = list(member.what)
        if member.role == "beat":
            base = self.directory / member.name
            what += [f"--schedule={base}.schedule", f"--pidfile={base}.{self._marks}.pid"]
            self._marks += 1
        member.pid = self.zygote.start(
            what,
            self.settings(proxied=member.proxied).as_dict(),
            env,
            self.directory / f"{member.name}.log",
        )
        member.started_at = time.monotonic()
        member.told_to_end_at, member.killed, member.leftovers_at = 0.0, False, 0.0

    def supervise(self) -> None:
        """Note who ended and why, and start again what has been away long enough."""
        now = time.monotonic()
        for member in self.fleet:
            if member.running:
                self._note_mark(member)
                if self.zygote.ended(member.pid):
                    self._bury(member, now)
                elif 0 < member.told_to_end_at < now - _PATIENCE:
                    self._kill_group(member)
            elif member.back_at <= now and not (self.calm and member.role == "producer"):
                self.start(member)

    def _note_mark(self, member: Member) -> None:
        if member.arming is not None and member.mark.exists():
            text = member.mark.read_text()
            if not text:
                return
            mark, arming = json.loads(text), member.arming
            alone = arming.component == "pool child"
            self.strikes.append(
                Strike(
                    arming.component,
                    arming.fault,
                    mark["at"],
                    mark["at"],
                    group=member.pid,
                    pid=mark["pid"] if alone else 0,
                    kills=1,
                )
            )
            member.arming = None
            member.killed = member.killed or not alone

    def _bury(self, member: Member, now: float) -> None:
        if now < member.leftovers_at:
            return
        self._kill_group(member)
        by_itself = not (member.killed or member.told_to_end_at)
        if by_itself:
            at = now
            self.strikes.append(Strike(member.role, "ended by itself", at, at, group=member.pid))
        member.pid = 0
        quick = by_itself and now - member.started_at < 1.0
        member.back_at = now + (0.5 if quick else _RESTART)

    def _kill_group(self, member: Member) -> None:
        with suppress(ProcessLookupError):
            os.killpg(member.pid, signal.SIGKILL)

    def kill(self, member: Member) -> None:
        """Kill a process with its children, and note it."""
        now = time.monotonic()
        self.strikes.append(Strike(member.role, "SIGKILL", now, now, group=member.pid, kills=1))
        member.killed = True
        self._kill_group(member)

    def tell_to_end(self, member: Member) -> None:
        """Let a process end in good order."""
        member.end_in_time()
        with suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGTERM)

    def pick(self, role: str, *, prefork: bool = False) -> Member | None:
        """One of a role that runs and has not been hit yet."""
        found = [
            one
            for one in self.fleet
            if one.role == role
            and one.running
            and not (one.killed or one.told_to_end_at or self.zygote.ended(one.pid))
            and (one.prefork or not prefork)
        ]
        return random.choice(found) if found else None

    def children(self, member: Member) -> list[int]:
        """Its children's process ids."""
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(member.pid).children(recursive=True)]
        return []

    def flushing(self) -> Member | None:
        """The flusher that flushed last."""
        notes = sorted(self.directory.glob("*.flushes"), key=lambda one: one.stat().st_mtime)
        for note in reversed(notes):
            with suppress(ProcessLookupError):
                group = os.getpgid(int(note.stem))
                for member in self.fleet:
                    if member.pid == group:
                        return member
        return None

    def heal(self) -> None:
        """Undo whatever a fault that broke off may have left of itself in the store's server."""
        self.redis.kill()
        self.redis.start()

    def end_producers(self, timeout: float = 15.0) -> None:
        """Let producers finish what they are about, and start them no more."""
        self.calm = True
        producers = [one for one in self.fleet if one.role == "producer" and one.running]
        for one in producers:
            self.tell_to_end(one)
        deadline = time.monotonic() + timeout
        while any(one.running for one in producers) and time.monotonic() < deadline:
            self.supervise()
            time.sleep(0.05)

    def close(self) -> None:
        """End everything that was started here."""
        for member in self.fleet:
            if member.running:
                self._kill_group(member)
        for proxy in self.proxies:
            proxy.close()
        self.facts.close()
        self.redis.kill()


def _limited(directory: Path) -> Path:
    """The server, started so that a file that may not grow is an error to it and not a signal."""
    script = directory / "server"
    binary = next(iter(binaries().values()))
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {binary} \"$@\"\n")
    script.chmod(0o700)
    return script
