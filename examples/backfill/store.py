"""A document store that sells request units: `python store.py FILE --capacity UNITS_PER_SECOND`.

A write is charged by the size of its documents. One that would take the last second above the
capacity is refused whole, with 429 and Retry-After. Who is right about the sliding second is left
to the moving window of the `limits` library, and every verdict is logged next to the documents.
"""

from __future__ import annotations

import argparse
import socket
import sqlite3
import time
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import uvicorn
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pricing import Document, encode, request_units

SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    CREATE TABLE documents (geonameid INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE requests (
        at REAL,            -- seconds since 1970
        units INTEGER,      -- asked for
        documents INTEGER,
        accepted INTEGER,   -- 0: answered 429, nothing was written
        last_second INTEGER -- units accepted in the second that ends here
    );
"""


class DocumentStore:
    def __init__(self, path: Path, capacity: int) -> None:
        self.database = sqlite3.connect(path)
        self.database.executescript(SCHEMA)
        self.limiter = MovingWindowRateLimiter(MemoryStorage())
        self.limit = RateLimitItemPerSecond(capacity)
        self.ids: set[int] = set()
        self.refused = 0

    def write(self, documents: Sequence[Document]) -> int:
        """Write all documents, or none; returns the seconds to wait then, and otherwise 0."""
        units = sum(map(request_units, documents))
        accepted = self.limiter.hit(self.limit, cost=units)
        now = time.time()
        request = (now, units, len(documents), accepted, self.last_second())
        with self.database:
            self.database.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", request)
            if accepted:
                self.database.executemany(
                    "INSERT OR REPLACE INTO documents VALUES (?, ?)",
                    [(document["geonameid"], encode(document)) for document in documents],
                )
        if accepted:
            self.ids.update(document["geonameid"] for document in documents)
            return 0
        self.refused += 1
        frees_at = self.limiter.get_window_stats(self.limit).reset_time
        return max(1, ceil(frees_at - now))

    def last_second(self) -> int:
        return self.limit.amount - self.limiter.get_window_stats(self.limit).remaining


def create_app(store: DocumentStore) -> Starlette:
    def answer(documents: Sequence[Document]) -> Response:
        if wait := store.write(documents):
            return Response(status_code=429, headers={"Retry-After": str(wait)})
        return Response(status_code=201)

    async def write(request: Request) -> Response:
        return answer([await request.json()])

    async def bulk_write(request: Request) -> Response:
        return answer(await request.json())

    async def stats(request: Request) -> Response:
        return JSONResponse(
            {
                "documents": len(store.ids),
                "refused": store.refused,
                "last_second": store.last_second(),
            }
        )

    return Starlette(
        routes=[
            Route("/documents", write, methods=["POST"]),
            Route("/documents/bulk", bulk_write, methods=["POST"]),
            Route("/stats", stats),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--capacity", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()

    app = create_app(DocumentStore(options.file, options.capacity))
    listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by connections
    print("http://{}:{}".format(*listener.getsockname()), flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=60)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
