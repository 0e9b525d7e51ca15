"""The faults: each a generator that does something and yields how long to wait before it goes on.

What a process does to itself at a named point is in `points`; this is what others do to it.
"""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from faults.field import Field, Member, Strike

Course = Iterator[float]
_background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table, and how to bring it about.

    Attributes:
        weight: how often it is drawn, beside others; those that halt everything come seldom.
        of_server: one of these at a time.
        broker: only where this is the broker.
    """

    component: str
    name: str
    course: Callable[[Field, Strike], Course]
    weight: float = 1.0
    of_server: bool = False
    broker: str = ""


def _hit(field: Field, strike: Strike, role: str, *, prefork: bool = False) -> Member | None:
    member = field.pick(role, prefork=prefork)
    if member is not None:
        strike.group = member.pid
    return member


def killed(role: str) -> Callable[[Field, Strike], Course]:
    """A process and all its children."""

    def course(field: Field, strike: Strike) -> Course:
        member = _hit(field, strike, role)
        if member is not None:
            strike.kills = 1
            member.killed = True
            with suppress(ProcessLookupError):
                os.killpg(member.pid, signal.SIGKILL)
        yield 0.0

    return course


def parent_killed(field: Field, strike: Strike) -> Course:
    """The parent of a pool only; what is left of it is killed a second later."""
    member = _hit(field, strike, "worker", prefork=True)
    if member is not None:
        strike.kills = 1
        member.killed = True
        member.leave_orphans()
        with suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
    yield 0.0


def child_killed(field: Field, strike: Strike) -> Course:
    """A child of a pool, whose parent goes on."""
    member = _hit(field, strike, "worker", prefork=True)
    children = field.children(member) if member else []
    if children:
        strike.pid, strike.kills = random.choice(children), 1
        with suppress(ProcessLookupError):
            os.kill(strike.pid, signal.SIGKILL)
    yield 0.0


def told_to_end(role: str, number: int) -> Callable[[Field, Strike], Course]:
    """A process that gets a signal it may act on; killed when it has not ended in time."""

    def course(field: Field, strike: Strike) -> Course:
        member = _hit(field, strike, role)
        if member is not None:
            member.end_in_time()
            with suppress(ProcessLookupError):
                os.kill(member.pid, number)
        yield 0.0

    return course


def stopped(role: str, shortest: float, longest: float) -> Callable[[Field, Strike], Course]:
    """A process and its children that stand still for a while."""

    def course(field: Field, strike: Strike) -> Course:
        member = _hit(field, strike, role)
        if member is not None:
            group = member.pid
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGSTOP)
            yield random.uniform(shortest, longest)
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGCONT)
        yield 0.0

    return course


# Redis


def redis_killed(field: Field, strike: Strike) -> Course:
    """Killed, and started again."""
    strike.kills = 1
    field.redis.kill()
    yield random.uniform(0.1, 1.0)
    field.redis.start()


def redis_ended(field: Field, _: Strike) -> Course:
    """Ended in good order, and started again."""
    field.redis.stop()
    yield random.uniform(0.1, 1.0)
    field.redis.start()


def redis_stopped(field: Field, _: Strike) -> Course:
    """Standing still: connections stay, answers do not come."""
    pid = field.redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    yield random.uniform(0.3, 2.5)
    os.kill(pid, signal.SIGCONT)


def redis_clients_killed(field: Field, _: Strike) -> Course:
    """All connections ended by the server."""
    with field.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield 0.0


def disk_full_fatal(field: Field, _: Strike) -> Course:
    """The append-only file may not grow: with appendfsync always the server ends itself."""
    _let_grow(field, random.randrange(4096))
    for _tick in range(30):
        yield 0.1
        if not _lives(field):
            break
    yield random.uniform(0.1, 0.5)
    if _lives(field):
        _let_grow(field, None)
    field.redis.start()


def disk_full_refusing(field: Field, _: Strike) -> Course:
    """The same with appendfsync everysec: the server goes on, and refuses to write."""
    with field.client() as client:
        client.config_set("appendfsync", "everysec")
        _let_grow(field, random.randrange(4096))
        yield random.uniform(1.5, 3.0)
        _let_grow(field, None)
        for _tick in range(100):
            if client.info("persistence")["aof_last_write_status"] == "ok":
                break
            yield 0.1
        client.config_set("appendfsync", "always")


def memory_full(field: Field, _: Strike) -> Course:
    """The memory limit is reached: whatever would need memory is refused."""
    with field.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        yield random.uniform(0.5, 3.0)
        client.config_set("maxmemory", 0)


def _lives(field: Field) -> bool:
    try:
        with field.client() as client:
            return bool(client.ping())
    except RedisError:
        return False


def _let_grow(field: Field, more: int | None) -> None:
    """Let the server's files grow by so many bytes; None: as they like."""
    pid, directory = field.redis.pid, field.redis.directory
    assert pid is not None
    assert directory is not None
    most = resource.RLIM_INFINITY
    if more is not None:
        parts = Path(directory, "appendonlydir").glob("*.incr.aof")
        most = max((one.stat().st_size for one in parts), default=0) + more
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


# RabbitMQ


def rabbit_killed(field: Field, strike: Strike) -> Course:
    """Killed, and started again."""
    assert field.rabbit is not None
    strike.kills = 1
    field.rabbit.kill()
    yield from _rabbit_starts(field)


def rabbit_ended(field: Field, _: Strike) -> Course:
    """Ended in good order, and started again."""
    assert field.rabbit is not None
    ended = _background.submit(field.rabbit.end)
    while not ended.done():
        yield 0.1
    yield from _rabbit_starts(field)


def _rabbit_starts(field: Field) -> Course:
    assert field.rabbit is not None
    started = _background.submit(field.rabbit.start)
    while not started.done():
        yield 0.1
    started.result()


def rabbit_stopped(field: Field, _: Strike) -> Course:
    """Standing still: connections stay, answers do not come."""
    assert field.rabbit is not None
    pid = field.rabbit.pid
    assert pid is not None
    os.killpg(pid, signal.SIGSTOP)
    yield random.uniform(0.5, 3.0)
    os.killpg(pid, signal.SIGCONT)


# Connections


def connections_cut(field: Field, _: Strike) -> Course:
    """All connections through the proxies end at once, in both directions."""
    for proxy in field.proxies:
        proxy.cut()
    yield 0.0


def connections_stalled(field: Field, _: Strike) -> Course:
    """Nothing passes through the proxies for a while, at times longer than clients wait."""
    for proxy in field.proxies:
        proxy.stall()
    yield random.choice([random.uniform(0.3, 2.0), random.uniform(5.2, 6.0)])
    for proxy in field.proxies:
        proxy.flow()


FAULTS = [
    Fault("flusher", "SIGKILL", killed("flusher"), 2.0),
    Fault("flusher", "SIGTERM", told_to_end("flusher", signal.SIGTERM)),
    Fault("flusher", "SIGSTOP, SIGCONT", stopped("flusher", 0.3, 4.0)),
    Fault("worker", "SIGKILL", killed("worker"), 3.0),
    Fault("worker", "SIGKILL of the parent alone", parent_killed, 2.0),
    Fault("pool child", "SIGKILL", child_killed, 2.0),
    Fault("worker", "SIGTERM", told_to_end("worker", signal.SIGTERM)),
    Fault("worker", "SIGQUIT", told_to_end("worker", signal.SIGQUIT)),
    Fault("worker", "SIGSTOP, SIGCONT", stopped("worker", 0.3, 6.0)),
    Fault("beat", "SIGKILL", killed("beat"), 2.0),
    Fault("beat", "SIGTERM", told_to_end("beat", signal.SIGTERM), 0.5),
    Fault("beat", "SIGSTOP, SIGCONT", stopped("beat", 0.3, 4.0), 0.5),
    Fault("producer", "SIGKILL", killed("producer"), 2.0),
    Fault("producer", "SIGTERM", told_to_end("producer", signal.SIGTERM), 0.5),
    Fault("producer", "SIGSTOP, SIGCONT", stopped("producer", 0.3, 4.0), 0.5),
    Fault("Redis", "SIGKILL", redis_killed, 1.0, of_server=True),
    Fault("Redis", "SIGTERM", redis_ended, 0.3, of_server=True),
    Fault("Redis", "SIGSTOP, SIGCONT", redis_stopped, 0.3, of_server=True),
    Fault("Redis", "full disk, it ends itself", disk_full_fatal, 0.3, of_server=True),
    Fault("Redis", "full disk, it refuses writes", disk_full_refusing, 0.3, of_server=True),
    Fault("Redis", "memory limit reached", memory_full, 0.3, of_server=True),
    Fault("connections", "CLIENT KILL", redis_clients_killed, 0.5, of_server=True),
    Fault("connections", "cut", connections_cut, 0.5, of_server=True),
    Fault("connections", "stalled", connections_stalled, 0.3, of_server=True),
    Fault("RabbitMQ", "SIGKILL", rabbit_killed, 0.2, of_server=True, broker="RabbitMQ"),
    Fault("RabbitMQ", "SIGTERM", rabbit_ended, 0.1, of_server=True, broker="RabbitMQ"),
    Fault("RabbitMQ", "SIGSTOP, SIGCONT", rabbit_stopped, 0.2, of_server=True, broker="RabbitMQ"),
]
