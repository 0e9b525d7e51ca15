"""Bad input at the public API: an error of our tree with the numbers in it, and nothing counted."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery

from by_hand import ByHand
from celery_batcher import (
    Batcher,
    BatcherError,
    BrokerUnavailableError,
    BufferFullError,
    ConfigurationError,
    InvalidCostError,
    InvalidNameError,
    NoOperationError,
    NoWatcherError,
    Operation,
    PayloadError,
    ProvisionedResource,
    StoreUnavailableError,
    TooExpensiveError,
    TooManyAttemptsError,
)
from celery_batcher.embedded import free_port
from celery_batcher.intakes.base import lane_name

CAPACITY = 100


@pytest.fixture
def by_hand(redis_url: str, unique: str, key_prefix: str) -> Iterator[ByHand]:
    """A batcher with a capacity of 100 and room for two operations, which has one."""
    by_hand = ByHand(
        redis_url, unique, key_prefix, capacity=CAPACITY, buffer_size=2, error_on_full_buffer=True
    )
    by_hand.watcher(max_attempts=3).enqueue({}, cost=7)
    yield by_hand
    by_hand.close()


@pytest.fixture
def work(by_hand: ByHand) -> Any:
    """Its watcher."""
    return by_hand.batcher.watchers["work"]


def operation(**fields: Any) -> Operation:
    return Operation(**{"id": "1", "watcher": "work", "cost": 1, "payload": {}, **fields})


COSTS = {
    "negative": (-1, "-1 is negative"),
    "fractional": (1.5, r"1\.5 is a float"),
    "a whole float": (2.0, r"2\.0 is a float"),
    "NaN": (math.nan, "nan is a float"),
    "infinite": (math.inf, "inf is a float"),
    "decimal": (Decimal(1), "Decimal"),
    "text": ("5", "str"),
    "truth": (True, "bool"),
    "huge": (2**53, "9007199254740992 is above 9007199254740991"),
}


@pytest.mark.parametrize(("cost", "says"), COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("way", ["enqueue", "enqueue_many", "callable", "operation"])
def test_a_cost_that_is_none_is_refused(
    by_hand: ByHand, work: Any, cost: Any, says: str, way: str
) -> None:
    before = by_hand.keys()
    ways: dict[str, Callable[[], Any]] = {
        "enqueue": lambda: work.enqueue({}, cost=cost),
        "enqueue_many": lambda: work.enqueue_many([{}], cost=cost),
        "callable": lambda: work.enqueue_many([{}], cost=lambda _: cost),
        "operation": lambda: by_hand.batcher.enqueue(operation(cost=cost)),
    }

    with pytest.raises(InvalidCostError, match=says):
        ways[way]()

    assert by_hand.keys() == before


REFUSED: dict[str, tuple[Callable[[Any], Any], type[BatcherError], str]] = {
    "a payload that cannot be serialised": (
        lambda work: work.enqueue({"at": object()}),
        PayloadError,
        "type dict cannot be serialised with json.*object",
    ),
    "a payload that is too large": (
        lambda work: work.enqueue("x" * 1024 * 1024),
        PayloadError,
        "1048578 bytes is above 1048576",
    ),
    "a cost above the capacity": (
        lambda work: work.enqueue({}, cost=101),
        TooExpensiveError,
        "work costs 101, and the capacity is 100",
    ),
    "a cost above the capacity, of many": (
        lambda work: work.enqueue_many([{}], cost=101),
        TooExpensiveError,
        "work costs 101, and the capacity is 100",
    ),
    "a priority that is none": (
        lambda work: work.enqueue({}, priority="urgent"),
        ConfigurationError,
        "'urgent': one of high, normal, backfill",
    ),
    "a key that is too long": (
        lambda work: work.enqueue({}, key="k" * 256),
        ConfigurationError,
        "1 to 255 bytes",
    ),
    "a key that is no text": (lambda work: work.enqueue({}, key=5), ConfigurationError, "key 5"),
    "an id that is empty": (
        lambda work: work.enqueue_many([{}], id=lambda _: ""),
        ConfigurationError,
        "id ''",
    ),
    "a pack that is none": (
        lambda work: work.enqueue_many([{}], pack=0),
        ConfigurationError,
        "pack=0, but it is 1 to 1000",
    ),
    "no operation": (
        lambda work: work.batcher.enqueue({"id": 1}),
        NoOperationError,
        "not dict",
    ),
    "an unknown watcher": (
        lambda work: work.batcher.enqueue(operation(watcher="wrok")),
        NoWatcherError,
        "no watcher 'wrok' in this process: it has work",
    ),
    "an operation that has used its attempts": (
        lambda work: work.batcher.enqueue(operation(attempt=4)),
        TooManyAttemptsError,
        "attempt 4 of 3",
    ),
    "more than the buffer holds": (
        lambda work: work.enqueue_many([{}] * 2, pack=2),
        BufferFullError,
        "holds 1 of at most 2",
    ),
    "a pause that is none": (lambda work: work.batcher.pause(-1), ConfigurationError, r"pause\(-1"),
}


@pytest.mark.parametrize(("act", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_could_never_run_is_refused_and_leaves_no_trace(
    by_hand: ByHand, work: Any, act: Any, error: type[BatcherError], says: str
) -> None:
    before = by_hand.keys()

    with pytest.raises(error, match=says):
        act(work)

    assert by_hand.keys() == before
    assert (by_hand.batcher.needs_capacity(), by_hand.batcher.operations_in_buffer()) == (7, 1)


def test_errors_carry_their_numbers(work: Any) -> None:
    with pytest.raises(TooExpensiveError) as dear:
        work.enqueue({}, cost=101)
    assert (dear.value.cost, dear.value.capacity) == (101, CAPACITY)
    with pytest.raises(TooManyAttemptsError) as tried:
        work.batcher.enqueue(operation(attempt=4))
    assert (tried.value.attempt, tried.value.max_attempts) == (4, 3)
    with pytest.raises(queue.Full) as full:
        work.enqueue_many([{}] * 3, pack=1)
    assert isinstance(full.value, BufferFullError)
    assert (full.value.size, full.value.limit, full.value.enqueued) == (2, 2, 1)


def test_payloads_before_a_faulty_one_are_enqueued_and_the_error_says_how_many(
    by_hand: ByHand, work: Any
) -> None:
    with pytest.raises(PayloadError) as fault:
        work.enqueue_many([{}, object(), {}])

    assert fault.value.enqueued == 1
    assert by_hand.batcher.operations_in_buffer() == 2


NAMES = ["", "a b", "a:b", "a/b", "{a}", "a.b", "ä", "a\n", "a" * 101, 5, None]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_a_broker_or_key_cannot_carry_is_refused(name: Any) -> None:
    app = Celery("names", broker="memory://", set_as_current=False)

    with pytest.raises(InvalidNameError, match="letters"):
        Batcher(name, app=app)
    if name is not None:
        with pytest.raises(InvalidNameError, match="letters"):
            ProvisionedResource(1, name=name)


@pytest.mark.parametrize("name", ["a b", "a:b", "{a}", "ä", "a" * 151])
def test_a_watcher_of_such_a_name_is_refused(by_hand: ByHand, name: str) -> None:
    with pytest.raises(InvalidNameError, match="letters"):
        by_hand.watcher(name)


def test_two_batchers_or_watchers_of_one_name_are_refused(by_hand: ByHand) -> None:
    with pytest.raises(ConfigurationError, match=rf"batcher '{by_hand.batcher.name}' already.*:\d"):
        Batcher(by_hand.batcher.name, app=by_hand.app)
    with pytest.raises(ConfigurationError, match="a watcher work already"):
        by_hand.batcher.watcher(name="work")(lambda batch: None)


OPTIONS: dict[str, tuple[Callable[[Celery], Any], str]] = {
    "a misspelt option": (
        lambda app: Batcher("b", app=app, flush_intervall=1.0),
        "no option 'flush_intervall': did you mean 'flush_interval'",
    ),
    "a misspelt option of a watcher": (
        lambda app: Batcher("b", app=app).watcher(max_batchsize=5),
        "no option 'max_batchsize': did you mean 'max_batch_size'",
    ),
    "a negative time": (
        lambda app: Batcher("b", app=app, flush_interval=-1),
        "flush_interval=-1, but it is seconds above 0",
    ),
    "a fraction of a beat": (
        lambda app: Batcher("b", app=app, beat_interval=0.5),
        r"beat_interval=0\.5, but it is whole seconds",
    ),
    "a batch that is too large": (
        lambda app: Batcher("b", app=app).watcher(max_batch_size=1001),
        "max_batch_size=1001, but it is 1 to 1000",
    ),
    "a limiter that is none": (
        lambda app: Batcher("b", app=app, rate_limiter=1000),
        "rate_limiter=1000, but it is a resource",
    ),
    "a fractional capacity": (lambda _: ProvisionedResource(1.5), r"capacity 1\.5"),
    "a negative capacity": (lambda _: ProvisionedResource(-1), "capacity -1 is outside"),
    "a window of no length": (lambda _: ProvisionedResource(1, window=0), "window=0"),
}


@pytest.mark.parametrize(("act", "says"), OPTIONS.values(), ids=OPTIONS)
def test_a_wrong_option_is_refused_with_what_was_meant(act: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        act(Celery("options", broker="memory://", set_as_current=False))


def test_a_wrong_setting_is_refused_when_it_is_used() -> None:
    app = Celery("settings", broker="memory://", set_as_current=False)
    batcher = Batcher("b", app=app)
    app.conf.batcher_flush_interval = "fast"

    with pytest.raises(ConfigurationError, match="batcher_flush_interval='fast', but it is sec"):
        batcher.option("flush_interval")


def test_an_app_without_a_store_says_which_setting_is_missing() -> None:
    app = Celery("storeless", broker="amqp://user:secret@localhost//", set_as_current=False)
    work = Batcher("b", app=app).watcher(name="work")(lambda batch: None)

    with pytest.raises(ConfigurationError, match="batcher_store_url") as error:
        work.enqueue({})

    assert "secret" not in str(error.value)


@pytest.mark.parametrize("kind", ["redis", "amqp"])
def test_an_unreachable_broker_is_named_without_its_password(
    redis_url: str, unique: str, key_prefix: str, kind: str
) -> None:
    port = free_port()
    url = f"{kind}://user:secret@127.0.0.1:{port}/{'/' if kind == 'amqp' else '0'}"
    by_hand = ByHand(redis_url, unique, key_prefix, conf={"batcher_store_url": redis_url})
    by_hand.app.conf.broker_url = url
    before = by_hand.batcher.store.counts()

    with pytest.raises(BrokerUnavailableError, match=str(port)) as error:
        by_hand.watcher().enqueue({}, cost=5)

    assert "secret" not in str(error.value)
    after = by_hand.batcher.store.counts()
    assert (after.admitted, after.admitted_cost, after.unsettled_cost) == (0, 0, 0)
    assert after.watchers == before.watchers == ()
    by_hand.close()


def test_an_unreachable_store_is_named_without_its_password(
    redis_url: str, unique: str, key_prefix: str
) -> None:
    port = free_port()
    store = f"redis://user:secret@127.0.0.1:{port}/0"
    by_hand = ByHand(redis_url, unique, key_prefix, conf={"batcher_store_url": store})

    with pytest.raises(StoreUnavailableError, match=str(port)) as error:
        by_hand.watcher().enqueue({})

    assert "secret" not in str(error.value)
    assert by_hand.client.exists(lane_name(unique, "work")) == 0
    by_hand.client.close()
