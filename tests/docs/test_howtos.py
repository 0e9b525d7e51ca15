"""The how-to pages do what they say, with stand-ins for the services."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from pages import imported, write

BROKER = "memory://docs"


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with the files of the page that the test's parameter names."""
    write(f"docs/howto/{request.param}.md", tmp_path, BROKER)
    return tmp_path


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Put a module of these contents in the place of a client that is not installed."""
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


# Azure Cosmos DB


class CosmosError(Exception):
    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        super().__init__(status_code)
        self.status_code, self.headers = status_code, headers


class Container:
    """Answers as a container does; the third write is throttled."""

    def __init__(self) -> None:
        self.calls = 0
        self.items: dict[str, Any] = {}

    def upsert_item(self, body: dict[str, Any]) -> Any:
        self.calls += 1
        if self.calls == 3:
            raise CosmosError(429, {"x-ms-retry-after-ms": "250"})
        self.items[body["id"]] = body
        return SimpleNamespace(get_response_headers=lambda: {"x-ms-request-charge": "6.29"})


@pytest.mark.parametrize("project", ["cosmos-db"], indirect=True)
def test_cosmos_db_is_written_charged_and_waited_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, options = Container(), {}

    def client(url: str, key: str, **given: Any) -> Any:
        options.update(given)
        database = SimpleNamespace(get_container_client=lambda name: container)
        return SimpleNamespace(get_database_client=lambda name: database)

    stand_in(monkeypatch, "azure.cosmos", CosmosClient=client)
    stand_in(monkeypatch, "azure.cosmos.exceptions", CosmosHttpResponseError=CosmosError)
    monkeypatch.setenv("COSMOS_URL", "https://cosmos.internal")
    monkeypatch.setenv("COSMOS_KEY", "key")
    with imported(project, "orders") as (orders,), orders.cosmos.testing() as t:
        orders.write_orders.enqueue_many(
            {"id": str(n), "kind": "order", "total": n} for n in range(10)
        )
        t.run(seconds=2.0)  # producers look at estimates once a second
        with imported(project, "shop"):
            t.run_until_done()

        t.assert_done(orders.write_orders, count=11)
        assert t.operations[-1].cost == 7  # learned: 6.29 RU, rounded up
        t.assert_never_over_capacity()
    assert len(container.items) == 11
    assert container.calls == 12
    assert options == {"retry_throttle_total": 0}


# Amazon DynamoDB


class ClientError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Table:
    """Answers as DynamoDB does: hands every tenth item back once, is throttled once."""

    def __init__(self) -> None:
        self.items: dict[str, Any] = {}
        self.handed_back: set[str] = set()
        self.throttled = False

    def batch_write_item(self, RequestItems: Any, ReturnConsumedCapacity: str) -> Any:  # noqa: N803
        assert ReturnConsumedCapacity == "TOTAL"
        puts = RequestItems["orders"]
        ids = [put["PutRequest"]["Item"]["id"] for put in puts]
        assert len(ids) == len(set(ids)) <= 25
        if self.items and not self.throttled:
            self.throttled = True
            raise ClientError("ProvisionedThroughputExceededException")
        left = [
            put
            for put, id in zip(puts, ids, strict=True)
            if id.endswith("0") and id not in self.handed_back
        ]
        self.handed_back.update(put["PutRequest"]["Item"]["id"] for put in left)
        written = [put["PutRequest"]["Item"] for put in puts if put not in left]
        self.items.update((item["id"], item) for item in written)
        return {
            "UnprocessedItems": {"orders": left} if left else {},
            "ConsumedCapacity": [{"TableName": "orders", "CapacityUnits": 2.0 * len(written)}],
        }


@pytest.mark.parametrize("project", ["dynamodb"], indirect=True)
def test_dynamodb_gets_again_what_it_handed_back(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table()
    stand_in(monkeypatch, "botocore")
    stand_in(monkeypatch, "boto3", resource=lambda name, config: table)
    stand_in(monkeypatch, "botocore.config", Config=lambda retries: retries)
    stand_in(monkeypatch, "botocore.exceptions", ClientError=ClientError)
    with imported(project, "orders") as (orders,), orders.dynamodb.testing() as t:
        with imported(project, "shop"):
            orders.put_orders.enqueue({"id": "order-1", "total": 1_000})
            t.run_until_done()

        t.assert_done(orders.put_orders, count=101)
        t.assert_never_over_capacity()
    assert len(table.items) == 100
    assert table.items["order-1"]["total"] == 1_000
    assert table.throttled
    assert len(table.handed_back) == 10


# An HTTP API


class Api(BaseHTTPRequestHandler):
    """Takes contacts; what it says to the n-th request is in `answers`."""

    answers: ClassVar[dict[int, tuple[int, dict[str, str]]]] = {}
    seen: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((body["email"], self.headers["Idempotency-Key"]))
        status, headers = self.answers.get(len(self.seen), (201, {}))
        self.send_response(422 if "@" not in body["email"] else status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    """The address of an API."""
    Api.seen.clear()
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)
    Api.answers = {3: (429, {"Retry-After": "2"}), 6: (429, {"Retry-After": soon}), 8: (503, {})}
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/contacts"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("project", ["http-api"], indirect=True)
def test_an_http_api_is_waited_for_and_its_refusals_are_kept(project: Path, api: str) -> None:
    code = (project / "crm.py").read_text()
    (project / "crm.py").write_text(code.replace("http://crm.internal/contacts", api))
    with imported(project, "crm") as (crm,), crm.crm.testing() as t:
        with imported(project, "shop"):
            crm.push_contacts.enqueue_many({"email": f"{n}@example.org"} for n in range(8))
            crm.push_contacts.enqueue({"email": "nobody"})
        began = t.clock.monotonic()
        t.run_until_done()

        t.assert_done(crm.push_contacts, count=9)
        t.assert_dead(crm.push_contacts, payload={"email": "nobody"}, reason="422", count=1)
        t.assert_never_over_capacity()
        assert t.clock.monotonic() - began > 80  # the date was understood, the number before it too
    assert len(Api.seen) == 13
    assert len(set(Api.seen)) == 10  # tried again with the same idempotency key


# A language model


class RateLimitError(Exception):
    response = SimpleNamespace(headers={"retry-after": "20"})


@pytest.mark.parametrize("project", ["llm-tokens"], indirect=True)
def test_a_language_model_is_charged_by_its_tokens(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def create(model: str, messages: Any, timeout: float) -> Any:
        calls.append(t.clock.monotonic())
        if len(calls) == 2:
            raise RateLimitError
        t.clock.advance(2.0)
        tokens = 9_000 if "Report" in messages[0]["content"] else 800
        choice = SimpleNamespace(message=SimpleNamespace(content="short"))
        return SimpleNamespace(choices=[choice], usage=SimpleNamespace(total_tokens=tokens))

    completions = SimpleNamespace(completions=SimpleNamespace(create=create))
    stand_in(
        monkeypatch,
        "openai",
        OpenAI=lambda max_retries: SimpleNamespace(chat=completions),
        RateLimitError=RateLimitError,
    )
    code = (project / "summaries.py").read_text()
    (project / "summaries.py").write_text(
        code.replace(f'backend="{BROKER}"', 'backend="cache+memory://"')
    )
    with imported(project, "summaries") as (summaries,), summaries.llm.testing() as t:
        with imported(project, "mail") as (mail,):
            t.run_until_done(timeout=3_600)
            assert summaries.app.AsyncResult(mail.ticket).get(timeout=1) == "short"

        t.assert_done(summaries.summarise, count=21)
        summaries.summarise.enqueue({"kind": "report", "text": "Report ..."})
        assert t.operations[-1].cost == {"requests": 1, "tokens": 9_000}
    waits = [after - before for before, after in pairwise(calls)]
    assert max(waits) >= 20  # all of them waited
