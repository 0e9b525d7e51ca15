"""The contract of an intake: from a lane into the index, each message once, whatever dies."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Producer
from redis import Redis

from builders import op
from celery_batcher import Batcher, BrokerUnavailableError, wire
from celery_batcher.connections import Connections, connections, memory_lanes
from celery_batcher.intakes.base import Intake, Leased, Taken, lane_name
from celery_batcher.intakes.redis import RedisIntake, messages_key
from celery_batcher.operation import new_id
from celery_batcher.publishers.base import Outgoing
from celery_batcher.store.base import Admission, Arrival, Released, Staged
from connected import close
from eventually import eventually

WATCHER = "writes"
REDIS_KINDS = ("redis", "redis apart", "redis with options")
REDIS_OPTIONS = {"global_keyprefix": "prefix.", "sep": "|", "priority_steps": [0, 4, 8]}


@dataclass
class Turn:
    """One holder of the turn, which may die between any two of its steps."""

    token: str
    linked: Connections
    intake: Intake
    taken: list[Leased] = field(default_factory=list)

    def take(self, most: int = 1_000_000) -> list[Leased]:
        """Messages of the lane until it is empty, or at least so many."""
        taken: list[Leased] = []
        while len(taken) < most and (leased := self.intake.take(self.token, [WATCHER]).leased):
            taken += leased
        self.taken += taken
        return taken

    def await_messages(self, number: int) -> list[Leased]:
        """Messages of the lane, once so many have come: a broker gives back in its own time."""

        def all_there() -> bool:
            self.take()
            return len(self.taken) >= number

        eventually(all_there)
        return self.taken

    def stage(self, leased: Sequence[Leased] | None = None) -> Staged:
        """Move taken messages into the index."""
        arrivals = [one.arrival for one in (self.taken if leased is None else leased)]
        leases = self.intake.leases(self.token)
        return self.linked.store.stage(self.token, arrivals, leases)

    def acknowledge(self, leased: Sequence[Leased] | None = None) -> list[str]:
        """Acknowledge them to the broker, and forget those of which it is known."""
        leased = self.taken if leased is None else leased
        arrived = self.intake.acknowledge(self.token, leased)
        if arrived:
            self.linked.store.forget(arrived)
        return arrived

    def die(self) -> None:
        """End without a word, as a killed process does; its sockets close."""
        connection = getattr(self.intake, "_connection", None)
        if connection is not None:
            connection.collect()
        self.linked.store.leave_turn(self.token)


@dataclass
class Lanes:
    """One way to a lane, with what a test needs around it."""

    kind: str
    app: Celery
    linked: Connections
    lane: str
    turns: list[Turn] = field(default_factory=list)

    def turn(self) -> Turn:
        """A new holder of the turn, which has done its first act."""
        turn = Turn(new_id(), self.linked, self.linked.intake())
        assert self.linked.store.take_turn(turn.token, 60_000).mine
        turn.intake.adopt(turn.token)
        self.turns.append(turn)
        return turn

    def publish(self, *texts: str, registered: bool = False, watcher: str = WATCHER) -> None:
        """Admit and publish a message for each text."""
        messages = [
            Outgoing(Admission(text, watcher, 1, 1), op(text, registered=registered))
            for text in texts
        ]
        self.linked.store.admit([one.admission for one in messages], 1_000_000)
        self.linked.publisher.publish(messages)

    def publish_raw(self, body: Any, **properties: Any) -> None:
        """Publish anything at all into the lane, as some other program might."""
        options = self.app.conf.broker_transport_options
        with (
            Connection(self.app.conf.broker_url, transport_options=options) as connection,
            connection.channel() as channel,
        ):
            channel.queue_declare(queue=self.lane, durable=True, auto_delete=False)
            Producer(channel, auto_declare=False).publish(
                body, routing_key=self.lane, exchange="", **properties
            )

    def noted(self) -> int:
        """How many ids of messages the store still remembers."""
        return self.linked.store.forget([])

    def waiting(self) -> int:
        """Operations in the index."""
        return self.linked.store.counts().waiting

    def close(self) -> None:
        for turn in self.turns:
            with suppress(OSError):
                turn.die()
        close(self.linked)
        self.app.close()


def texts(leased: Sequence[Leased]) -> list[str]:
    return [one.arrival.id for one in leased]


@pytest.fixture(params=["memory", *REDIS_KINDS, "rabbitmq"])
def lanes(request: pytest.FixtureRequest, unique: str) -> Iterator[Lanes]:
    """A lane of each kind."""
    kind: str = request.param
    app = Celery(unique, set_as_current=False)
    conf: dict[str, Any] = {}
    if kind == "memory":
        conf["broker_url"] = f"memory://{unique}"
    else:
        redis_url = request.getfixturevalue("redis_url")
        conf["batcher_key_prefix"] = request.getfixturevalue("key_prefix")
        conf["broker_url"] = redis_url
        if kind == "redis apart":
            conf["batcher_store_url"] = f"{request.getfixturevalue('redis_server').url[:-1]}1"
        elif kind == "redis with options":
            conf["broker_transport_options"] = REDIS_OPTIONS
        elif kind == "rabbitmq":
            conf["broker_url"] = request.getfixturevalue("rabbitmq_url")
            conf["batcher_store_url"] = redis_url
    app.conf.update(conf)
    linked = connections(app, batcher=unique, resource=unique)
    lanes = Lanes(kind, app, linked, lane_name(unique, WATCHER))
    try:
        yield lanes
    finally:
        lanes.close()
        if kind == "rabbitmq":
            with Connection(conf["broker_url"]) as connection, connection.channel() as channel:
                for watcher in (WATCHER, "mails", "reads"):
                    channel.queue_delete(lane_name(unique, watcher))
        elif kind != "memory":
            with Redis.from_url(redis_url) as client:
                for key in client.scan_iter(f"*{unique}*", count=1000):
                    client.delete(key)


def test_messages_are_taken_in_the_order_of_their_publication(lanes: Lanes) -> None:
    published = [f"m{number}" for number in range(700)]
    lanes.publish(*published)
    turn = lanes.turn()

    assert texts(turn.take()) == published
    assert turn.stage(turn.taken[:600]).operations == 600
    turn.acknowledge(turn.taken[:600])
    assert turn.stage(turn.taken[600:]).operations == 100
    turn.acknowledge(turn.taken[600:])

    assert turn.take() == []
    assert lanes.waiting() == 700
    assert lanes.linked.store.counts().admitted == 0


def test_a_turn_that_dies_before_it_staged_leaves_all_to_the_next_in_order(lanes: Lanes) -> None:
    lanes.publish("a", "b", "c")
    first = lanes.turn()
    assert texts(first.take()) == ["a", "b", "c"]
    first.die()
    lanes.publish("d", "e")

    second = lanes.turn()

    assert texts(second.await_messages(5)) == ["a", "b", "c", "d", "e"]
    assert second.stage() == Staged(operations=5)
    second.acknowledge()
    assert lanes.waiting() == 5


def test_a_turn_that_dies_between_stage_and_acknowledgement_doubles_nothing(lanes: Lanes) -> None:
    lanes.publish("a", "b", "c")
    first = lanes.turn()
    first.take()
    assert first.stage().operations == 3
    first.die()
    lanes.publish("d")

    second = lanes.turn()
    again = [] if lanes.kind in {"redis", "redis with options"} else ["a", "b", "c"]

    assert texts(second.await_messages(len(again) + 1)) == [*again, "d"]
    assert second.stage().operations == 1
    second.acknowledge()
    assert second.take() == []
    assert lanes.waiting() == 4
    assert lanes.linked.store.counts().admitted == 0


def test_a_turn_that_acknowledges_what_another_has_put_back_doubles_nothing(lanes: Lanes) -> None:
    lanes.publish("a", "b", "c")
    first = lanes.turn()
    first.take()
    assert first.stage().operations == 3
    lanes.linked.store.leave_turn(first.token)  # it stalls, and its time is over

    second = lanes.turn()
    first.acknowledge()
    lanes.publish("d")

    assert second.await_messages(1)
    second.take()
    assert second.stage().operations == 1
    assert lanes.waiting() == 4


def test_a_turn_that_dies_after_the_acknowledgement_leaves_nothing_behind(lanes: Lanes) -> None:
    lanes.publish("a", "b", "c")
    first = lanes.turn()
    first.take()
    first.stage()
    first.acknowledge()
    assert first.take() == []  # the broker has answered after it, so it has heard of it
    first.die()

    second = lanes.turn()

    assert second.take() == []
    assert lanes.waiting() == 3


def test_leases_of_several_lanes_go_back_each_to_its_own(lanes: Lanes) -> None:
    others = ("mails", "reads")
    for number in range(3):
        for watcher in (WATCHER, *others):
            lanes.publish(f"{watcher}{number}", watcher=watcher)
    first = lanes.turn()
    taken = first.intake.take(first.token, [WATCHER, *others])
    assert len(taken.leased) == 9
    assert taken.unread([WATCHER, *others]) == []
    first.stage([one for one in taken.leased if one.arrival.id == f"{WATCHER}0"])
    first.die()
    second = lanes.turn()

    def in_order(watcher: str) -> None:
        found = second.intake.take(second.token, [watcher]).leased
        second.taken += [one for one in found if one.arrival.watcher == watcher]
        ids = [one.arrival.id for one in second.taken if one.arrival.watcher == watcher]
        wanted = [f"{watcher}{number}" for number in range(3)]
        assert ids[-2:] == wanted[-2:]
        assert ids == wanted or (watcher == WATCHER and ids == wanted[1:])

    for watcher in (WATCHER, *others):
        eventually(lambda watcher=watcher: in_order(watcher))
    assert second.stage().operations == 8
    assert lanes.waiting() == 9
    rows = {row.name: row.waiting for row in lanes.linked.store.counts().watchers}
    assert rows == {WATCHER: 3, "mails": 3, "reads": 3}


def test_a_lane_that_is_no_list_hinders_no_other_and_is_named_once(
    lanes: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    first = lanes.turn()
    if not isinstance(first.intake, RedisIntake):
        pytest.skip("only on Redis can a lane be something else")
    database = first.intake._database
    for number in range(3):
        lanes.publish(f"{WATCHER}{number}")
    lane = lane_name(first.intake._batcher, "wrong")
    database.client.set(database.list_of(lane), "no list")
    try:
        taken = first.intake.take(first.token, ["wrong", WATCHER])
        again = first.intake.take(first.token, ["wrong", WATCHER])
        first.die()
        second = lanes.turn()
        eventually(lambda: len(second.take()) == 3)
    finally:
        database.client.delete(database.list_of(lane))

    assert [one.arrival.id for one in taken.leased] == [f"{WATCHER}{at}" for at in range(3)]
    assert again == Taken([], ["wrong", WATCHER])
    assert caplog.text.count(f"{lane} is no list") == 1


def test_a_lease_that_the_server_refuses_takes_nothing_and_says_why(lanes: Lanes) -> None:
    turn = lanes.turn()
    if not isinstance(turn.intake, RedisIntake):
        pytest.skip("only on Redis messages are leased")
    lanes.publish("a")
    client = turn.intake._database.client
    client.set(messages_key(turn.intake._leases_key(turn.token)), "no list")

    with pytest.raises(BrokerUnavailableError, match="WRONGTYPE"):
        turn.intake.take(turn.token, [WATCHER])

    client.delete(messages_key(turn.intake._leases_key(turn.token)))
    assert [one.arrival.id for one in turn.take()] == ["a"]


def test_a_turn_that_ends_in_order_gives_back_what_it_did_not_stage(lanes: Lanes) -> None:
    lanes.publish("a", "b", "c", "d")
    first = lanes.turn()
    taken = first.take()
    first.stage(taken[:2])
    first.acknowledge(taken[:2])
    first.intake.close(first.token)
    lanes.linked.store.leave_turn(first.token)

    second = lanes.turn()

    assert texts(second.await_messages(2)) == ["c", "d"]
    assert second.stage().operations == 2
    assert lanes.waiting() == 4


def test_a_turn_that_is_no_longer_the_holder_moves_nothing(lanes: Lanes) -> None:
    lanes.publish("a", "b")
    first = lanes.turn()
    first.take()
    lanes.linked.store.leave_turn(first.token)
    second = Turn(new_id(), lanes.linked, lanes.linked.intake())
    lanes.turns.append(second)
    assert lanes.linked.store.take_turn(second.token, 60_000).mine

    assert first.stage().lost
    first.intake.close(first.token)

    second.intake.adopt(second.token)
    assert texts(second.await_messages(2)) == ["a", "b"]
    assert second.stage().operations == 2


def test_an_operation_of_a_living_id_is_staged_once(lanes: Lanes) -> None:
    lanes.publish("a", registered=True)
    first = lanes.turn()
    first.take()
    first.stage()
    first.acknowledge()
    first.take()
    lanes.publish("a", "b", registered=True)

    first.taken.clear()
    first.await_messages(2)
    first.stage()
    first.acknowledge()

    assert lanes.waiting() == 2


def test_an_operation_may_have_the_id_of_one_that_is_done(lanes: Lanes) -> None:
    turn = lanes.turn()
    batcher = Batcher(lanes.linked.batcher, app=lanes.app)
    watcher = batcher.watcher(name=WATCHER)(lambda batch: None)
    for _ in range(2):
        watcher.enqueue({}, id="order-1")
        turn.taken.clear()
        turn.await_messages(1)
        turn.stage()
        turn.acknowledge()
        turn.take()
        released = batcher.store.release(turn.token, new_id(), batcher.limits())
        assert isinstance(released, Released)
        assert batcher.run_batch(watcher, released.id) == {"done": 1, "cost": 1}

    assert batcher.status().done == 2
    assert batcher.needs_capacity() == 0
    close(batcher.connections)


def test_ids_of_messages_are_forgotten_once_their_acknowledgement_has_arrived(
    lanes: Lanes,
) -> None:
    lanes.publish("a", "b")
    turn = lanes.turn()
    turn.take()
    turn.stage()
    turn.acknowledge()
    lanes.publish("c")
    turn.taken.clear()
    turn.await_messages(1)
    turn.stage()
    turn.acknowledge()
    turn.take()
    turn.acknowledge([])

    assert lanes.noted() == 0


def test_ids_are_kept_while_the_broker_may_not_know_of_the_acknowledgement(lanes: Lanes) -> None:
    if lanes.kind != "rabbitmq":
        pytest.skip("the acknowledgement has an answer, or is one act with staging")
    lanes.publish("a", "b")
    turn = lanes.turn()
    taken = turn.take()

    for one in taken:  # two portions of what was taken at once; the broker answers nothing between
        turn.stage([one])
        turn.acknowledge([one])

    assert lanes.noted() == 2


@dataclass(frozen=True)
class Wrong:
    """A message that does not belong into a lane, and the reason that is given for it."""

    reason: str
    publish: Callable[[Lanes], None]


def _foreign(lanes: Lanes) -> None:
    task = lanes.app.amqp.as_task_v2("1234", "shop.send_mail", args=("to",))
    lanes.publish_raw(task.body, headers=task.headers, correlation_id="1234", serializer="json")


def _ours(lanes: Lanes, id: str, entries: bytes, **headers: Any) -> None:
    body = wire.message_body(lanes.linked.batcher, WATCHER, entries)
    lanes.publish_raw(
        body,
        headers={**wire.message_headers(id, 1), **headers},
        content_type="application/json",
        content_encoding="utf-8",
    )


WRONG = {
    "text": Wrong("no id", lambda lanes: lanes.publish_raw("garbage")),
    "bytes": Wrong("no id", lambda lanes: lanes.publish_raw(b"\x00\xff\xfe")),
    "a foreign task": Wrong("shop.send_mail", _foreign),
    "unknown version": Wrong("unknown version 7", lambda lanes: _ours(lanes, "w", op("w"), v=7)),
    "unknown version of an entry": Wrong(
        "unknown version 7", lambda lanes: _ours(lanes, "w", b"\0\0\0\x19\x07" + b"\0" * 24)
    ),
    "truncated entries": Wrong("truncated", lambda lanes: _ours(lanes, "w", op("w")[:-1])),
    "no entries": Wrong("no entry", lambda lanes: _ours(lanes, "w", b"")),
    "too many operations": Wrong("5000", lambda lanes: _ours(lanes, "w", op("w"), n=5000)),
    "an unreadable number": Wrong("'1'", lambda lanes: _ours(lanes, "w", op("w"), n="1")),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_set_aside_with_its_reason(lanes: Lanes, wrong: Wrong) -> None:
    if lanes.kind == "memory":
        pytest.skip("lanes in memory carry no messages of others")
    lanes.publish("before")
    wrong.publish(lanes)
    lanes.publish("after")

    turn = lanes.turn()
    turn.await_messages(3)
    staged = turn.stage()
    turn.acknowledge()

    assert (staged.operations, staged.set_aside) == (2, 1)
    (aside,) = lanes.linked.store.set_asides(10)
    assert wrong.reason in aside.reason
    assert aside.watcher == WATCHER
    assert turn.take() == []
    assert lanes.linked.store.counts().set_aside == 1


def test_a_message_that_is_set_aside_keeps_its_headers_and_body(lanes: Lanes) -> None:
    if lanes.kind == "memory":
        pytest.skip("lanes in memory carry no messages of others")
    turn = lanes.turn()
    _foreign(lanes)
    turn.await_messages(1)
    turn.stage()

    (aside,) = lanes.linked.store.set_asides(10)
    whole = json.loads(aside.data)
    assert whole["headers"]["task"] == "shop.send_mail"
    assert whole["content-type"] == "application/json"
    assert json.loads(b64decode(whole["body"]))[0] == ["to"]


def test_garbage_in_a_lane_in_memory_is_set_aside(unique: str) -> None:
    url = f"memory://{unique}"
    app = Celery(unique, broker=url, set_as_current=False)
    linked = connections(app, batcher=unique, resource=unique)
    memory_lanes(url).put(lane_name(unique, WATCHER), Arrival("bad", WATCHER, b"garbage"), 1)
    lanes = Lanes("memory", app, linked, lane_name(unique, WATCHER))

    turn = lanes.turn()
    turn.take()

    assert turn.stage() == Staged(set_aside=1)
    assert "truncated" in linked.store.set_asides(1)[0].reason
    lanes.close()


def test_a_message_that_is_set_aside_leaves_the_books(lanes: Lanes) -> None:
    if lanes.kind == "memory":
        pytest.skip("lanes in memory carry no messages of others")
    lanes.linked.store.admit([Admission("w", WATCHER, 1, 5)], 1000)
    _ours(lanes, "w", op("w"), v=7)

    turn = lanes.turn()
    turn.await_messages(1)
    turn.stage()

    counts = lanes.linked.store.counts()
    assert (counts.admitted, counts.admitted_cost, counts.unsettled_cost) == (0, 0, 0)


# Redis only


on_redis = pytest.mark.parametrize("lanes", REDIS_KINDS, indirect=True)


@on_redis
def test_a_lease_that_is_asked_for_twice_is_the_same_lease(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes.publish("a", "b")
    turn = lanes.turn()
    monkeypatch.setattr("celery_batcher.intakes.redis.new_id", lambda: "the same call")

    first = turn.intake.take(turn.token, [WATCHER]).leased
    lanes.publish("c")
    again = turn.intake.take(turn.token, [WATCHER]).leased

    assert texts(first) == ["a", "b"]
    assert again == first
    assert turn.stage(again).operations == 2


@on_redis
def test_leases_are_put_back_before_what_arrived_since(lanes: Lanes) -> None:
    lanes.publish("a", "b")
    first = lanes.turn()
    first.take()
    lanes.publish("c")
    first.intake.take(first.token, [WATCHER])
    lanes.publish("d")
    first.die()

    second = lanes.turn()

    assert texts(second.take()) == ["a", "b", "c", "d"]


@on_redis
def test_a_call_takes_a_bounded_number_of_messages(lanes: Lanes) -> None:
    lanes.publish(*(f"m{number}" for number in range(1500)))
    turn = lanes.turn()

    assert 0 < len(turn.intake.take(turn.token, [WATCHER]).leased) <= 1000
    assert len(turn.take()) > 0


@on_redis
def test_priorities_and_names_of_the_broker_are_honoured(lanes: Lanes, redis_url: str) -> None:
    def urgent(id: str, priority: int) -> None:
        body = wire.message_body(lanes.linked.batcher, WATCHER, op(id))
        headers = wire.message_headers(id, 1)
        lanes.publish_raw(body, headers=headers, priority=priority)

    urgent("late", 9)
    urgent("middle", 5)
    urgent("early", 0)

    with Redis.from_url(redis_url, decode_responses=True) as client:
        lists = {key for key in client.scan_iter("*celery_batcher.*") if lanes.lane in key}
    turn = lanes.turn()

    if lanes.kind == "redis with options":
        prefixed = f"prefix.{lanes.lane}"
        assert lists == {prefixed, f"{prefixed}|4", f"{prefixed}|8"}
    assert texts(turn.take()) == ["early", "middle", "late"]
    assert turn.stage().operations == 3


@on_redis
def test_nothing_of_a_lane_is_left_when_all_has_been_staged(lanes: Lanes, redis_url: str) -> None:
    lanes.publish("a", "b")
    turn = lanes.turn()
    turn.take()
    turn.stage()
    turn.acknowledge()
    turn.intake.close(turn.token)

    with Redis.from_url(redis_url, decode_responses=True) as client:
        left = [key for key in client.scan_iter("*celery_batcher.*") if lanes.lane in key]
    assert left == []
