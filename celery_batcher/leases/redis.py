"""Leases on a Redis server that all fleets reach; it need not be anyone's broker or store."""

from __future__ import annotations

from importlib import resources
from typing import Any

from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from ..clock import Clock
from ..config import check_name, checked_seconds
from ..errors import ConfigurationError, LeaseStoreUnavailableError
from ..events import Listener
from ..store.redis import connect
from .base import Demand, Leases, check_partitions, give_everything_back, no_listener
from .memory import leases_of, round_of

_LUA = resources.files(__package__) / "lua"
_PATIENCE = 1.0


class RedisLeaseManager:
    """Leases partitions on a Redis server (6.2 or later) or Valkey: one script per round.

    No partition is ever leased to two owners, and what owners want beyond what there is they get in
    shares that are max-min fair by weight. A server that was restarted, or that lost its keys,
    leases nothing for one lease time, because it may have forgotten leases; the same goes for the
    very first start.

    Args:
        url: of the server, as for Celery's broker.
        name: of the shared capacity: the same in every fleet that shares it.
        lease_time: seconds; the same in every fleet. It is how long the partitions of a fleet
            that died are lost to the others, and how long an outage of this server is bridged.
        prefix: of the keys, which are ``<prefix>{<name>}:leases:state``, ``...:ends`` and
            ``...:owners``.
        clock: the time in tests; by default the server's.

    Raises:
        ConfigurationError: the URL or the lease time is none.
        InvalidNameError: the name has characters that a key cannot carry.

    Its weakness: it trusts the server's clock not to be stepped forward, and a replica that takes
    over is a server that was restarted.

    Example::

        SharedResource(20_000, factor=100, lease_manager=RedisLeaseManager(url, name="cosmos"))
    """

    fair = True

    def __init__(
        self,
        url: str,
        *,
        name: str,
        lease_time: float = 4.0,
        prefix: str = "celery_batcher:",
        clock: Clock | None = None,
    ) -> None:
        self.lease_time = checked_seconds(lease_time, "lease_time")
        base = f"{prefix}{{{check_name(name, 'shared capacity')}}}:leases:"
        self._keys = [base + part for part in ("state", "ends", "owners")]
        self._client = connect(url)
        # The turn waits for an answer, so it is not waited for long: there is another round soon.
        self._client.connection_pool.connection_kwargs.update(
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
            retry_on_error=[RedisConnectionError],  # a time-out is not waited for twice
        )
        text = "".join((_LUA / f"{part}.lua").read_text() for part in ("share", "round"))
        self._script = self._client.register_script(text)
        self._clock = clock
        self._count: int | None = None
        self._last: dict[str, int] = {}
        self._emit: Listener = no_listener

    def __repr__(self) -> str:
        return f"RedisLeaseManager({self._where()}, lease_time={self.lease_time})"

    def provision(self, partitions: int) -> None:
        count = check_partitions(partitions)
        self._call(self._client.ping)
        self._count = count

    def lease(self, owner: str, demand: Demand) -> Leases:
        one = round_of(owner, demand, self._count, self.lease_time, self._last.get(owner, -1))
        now = self._clock.now_ms() if self._clock else ""
        args: list[Any] = [owner, one.wanted, one.weight, one.count, one.lease_ms, one.last, now]
        for at, ms in one.unused.items():
            args += [at, ms]
        number, wait_ms, guard_ms, *flat = self._call(self._script, keys=self._keys, args=args)
        self._last[owner] = number
        if guard_ms:
            return Leases({}, guard_ms / 1000, guarded=True)
        return leases_of(dict(zip(flat[::2], flat[1::2], strict=True)), wait_ms)

    def release(self, owner: str) -> None:
        give_everything_back(self, owner)

    def raise_events_to(self, listener: Listener) -> None:
        self._emit = listener

    def _where(self) -> str:
        options = self._client.connection_pool.connection_kwargs
        return str(options.get("path") or f"{options.get('host')}:{options.get('port')}")

    def _call(self, act: Any, **options: Any) -> Any:
        try:
            return act(**options)
        except (AuthenticationError, AuthorizationError, NoPermissionError) as exc:
            raise ConfigurationError(
                f"the lease manager's Redis at {self._where()} refuses the user ({exc}): "
                "check user and password in its URL, and that EVALSHA and INFO are allowed"
            ) from exc
        except RedisError as exc:
            raise LeaseStoreUnavailableError(
                f"the lease manager's Redis at {self._where()} does not answer ({exc}): is it up?"
            ) from exc
