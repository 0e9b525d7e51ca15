"""What a batcher is made of: options, settings, its resource, and what it is connected to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from celery import Celery, current_app
from celery.local import Proxy

from .config import BATCHER_OPTIONS, SETTINGS, check_name, check_value, checked
from .connections import Connections, connections
from .costs import PLAIN, costs_of
from .errors import ConfigurationError
from .registry import Registry
from .resources.base import Resource
from .store.base import Store
from .watcher import Watcher

if TYPE_CHECKING:
    from .backfill import Backfill


class Configured:
    """The options of a batcher, each read when it is used."""

    def __init__(
        self,
        name: str,
        app: Celery | None,
        rate_limiter: Resource | None,
        options: dict[str, Any],
    ) -> None:
        self.name = check_name(name, "batcher")
        self._options = checked(BATCHER_OPTIONS, options, "Batcher")
        if rate_limiter is not None and not isinstance(rate_limiter, Resource):
            raise ConfigurationError(
                f"rate_limiter={rate_limiter!r}, but it is a resource: ProvisionedResource(...)"
            )
        self.rate_limiter = rate_limiter
        real: Any = app
        self._app = real._get_current_object() if isinstance(real, Proxy) else app
        self._registry = Registry(self.name)
        self._connect = connections
        self._connections: Connections | None = None
        self._lock = threading.RLock()

    @property
    def app(self) -> Celery:
        """The Celery app: the one it was made with, else the current app."""
        return self._app or cast(Any, current_app)._get_current_object()

    @property
    def own_app(self) -> Celery | None:
        """The Celery app that it was made with."""
        return self._app

    def option(self, name: str) -> Any:
        """The value of an option: the constructor's, else the app's setting, else the default."""
        if name in self._options:
            return self._options[name]
        option = BATCHER_OPTIONS[name]
        value = self.app.conf.get(f"batcher_{name}")
        if value is None:
            return option.default
        return check_value(option, f"batcher_{name}", value, "settings")

    def serializer(self) -> str:
        """The name of the serializer of payloads."""
        return str(self.app.conf.get("batcher_serializer") or SETTINGS["batcher_serializer"])

    @property
    def watchers(self) -> dict[str, Watcher]:
        """The watchers registered in this process, by name."""
        return self._registry.all()

    @property
    def backfills(self) -> dict[str, Backfill]:
        """The back-fills registered in this process, by name."""
        return self._registry.backfills()

    @property
    def connections(self) -> Connections:
        """The store and the lanes of this batcher, connected when first used.

        Without an app of its own they are those of the current app, also when that is another one
        later on, as in tests that make an app each.
        """
        app = self.app
        with self._lock:
            if self._connections is None or not self._connections.fits(app):
                self._connections = self._connect(
                    app, batcher=self.name, resource=self.resource_name
                )
            return self._connections

    @property
    def resource_name(self) -> str:
        """The name of its resource in the store."""
        resource = self.rate_limiter
        return (resource and resource.name) or self.name

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of what costs are made of; ``("",)`` where they are plain numbers."""
        return PLAIN if self.rate_limiter is None else self.rate_limiter.dimensions

    def max_costs(self) -> tuple[int, ...] | None:
        """The most that an operation may cost, by dimension; None without a limit."""
        resource = self.rate_limiter
        return None if resource is None else costs_of(resource.max_capacity(), self.dimensions)

    @property
    def store(self) -> Store:
        """Where the shared state lives."""
        return self.connections.store
