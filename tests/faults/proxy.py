"""A small TCP proxy that cuts or stalls the connections that go through it."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

from celery_batcher.embedded import HOST

_MOST = 65536


class Proxy:
    """Passes bytes on between 127.0.0.1:`port` and a server's port, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._stopping = False
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """End all connections at once; return how many there were."""
        with self._lock:
            ended = len(self._peers) // 2
            for one in list(self._peers):
                self._end(one)
        return ended

    def stall(self) -> None:
        """Pass nothing on, and accept nothing, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on again, what came meanwhile too."""
        self._flowing.set()

    def close(self) -> None:
        """End everything."""
        self._stopping = True
        self._flowing.set()
        self._thread.join(timeout=10)
        self.cut()
        self._listener.close()
        self._selector.close()

    def _pass_on(self) -> None:
        while not self._stopping:
            self._flowing.wait()
            for key, _ in self._selector.select(timeout=0.2):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                with self._lock:
                    if one is self._listener:
                        self._accept()
                    elif one in self._peers:
                        self._move(one)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((HOST, self._target), timeout=5)
        except OSError:
            client.close()
            return
        self._peers[client], self._peers[server] = server, client
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(5)
            self._selector.register(one, selectors.EVENT_READ)

    def _move(self, one: socket.socket) -> None:
        try:
            data = one.recv(_MOST)
            if data:
                self._peers[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._end(one)

    def _end(self, one: socket.socket) -> None:
        """End a connection on both sides; called under the lock."""
        peer = self._peers.pop(one, None)
        if peer is not None:
            self._peers.pop(peer, None)
            for side in (one, peer):
                with suppress(KeyError, ValueError):
                    self._selector.unregister(side)
                side.close()
