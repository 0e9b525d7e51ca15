"""Entries and messages: they come back as they went, and garbage is refused with its reason."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import serialization
from kombu.exceptions import ContentDisallowed

from builders import op
from celery_batcher import ConfigurationError, PayloadError, wire
from celery_batcher.wire.payloads import explain

JSON = wire.accepted(["json"])
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: len(text.encode()) <= wire.MAX_ID
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def entry(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "id": b"id",
        "cost": 1,
        "payload": b"1",
        "serializer": b"json",
        "flags": wire.BATCHABLE,
        "priority": 1,
        "key": b"",
        "attempt": 1,
        "enqueued_ms": 0,
    }
    return wire.encode_entry(**{**fields, **changes})


@settings(max_examples=50)
@given(
    id=names,
    key=st.none() | names,
    costs=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=4),
    payload=st.binary(max_size=50),
    priority=st.integers(0, 2),
    attempt=st.integers(1, 65535),
    enqueued_ms=st.integers(0, 253_402_300_799_999),
    batchable=st.booleans(),
    registered=st.booleans(),
)
def test_an_entry_comes_back_as_it_went(  # noqa: PLR0917
    id: str,
    key: str | None,
    costs: list[int],
    payload: bytes,
    priority: int,
    attempt: int,
    enqueued_ms: int,
    batchable: bool,
    registered: bool,
) -> None:
    cost, *further = costs
    flags = wire.flags_of(
        batchable=batchable, registered=registered, keyed=key is not None, vector=bool(further)
    )
    data = entry(
        id=id.encode(),
        key=(key or "").encode(),
        cost=cost,
        extras=wire.encode_costs(further) if further else b"",
        payload=payload,
        priority=priority,
        attempt=attempt,
        enqueued_ms=enqueued_ms,
        flags=flags,
    )

    assert wire.decode_entry(data) == (
        wire.Entry(flags, priority, attempt, tuple(costs), enqueued_ms, "json", id, key, payload),
        len(data),
    )


def test_the_layout_of_an_entry_is_pinned() -> None:
    data = entry(id=b"ab", key=b"k", cost=258, flags=5, payload=b'"x"', attempt=3)

    assert data == bytes.fromhex(
        "00000023 01 05 01 04 0003 0000000000000102 0000000000000000 02 00016a736f6e 6162 6b 227822"
    )


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
@settings(max_examples=30)
def test_entries_laid_end_to_end_are_told_apart(payloads: list[bytes]) -> None:
    entries = [entry(payload=payload) for payload in payloads]
    data = b"".join(entries)

    assert [one.payload for one in wire.decode_entries(data)] == payloads
    assert list(wire.split_entries(data)) == entries


def test_a_new_attempt_changes_nothing_else() -> None:
    before, after = wire.decode_entry(entry())[0], None
    after = wire.decode_entry(wire.with_attempt(entry(), 258))[0]

    assert after.attempt == 258
    assert [getattr(after, name) for name in ("id", "cost", "payload", "flags")] == [
        getattr(before, name) for name in ("id", "cost", "payload", "flags")
    ]


def read(data: bytes) -> list[wire.Entry] | None:
    """Entries, or None when the bytes are malformed; any other error is a failure."""
    try:
        return wire.decode_entries(data)
    except wire.MalformedError:
        return None


@settings(max_examples=150)
@given(
    at=st.integers(0, 80), garbage=st.binary(min_size=1, max_size=8), cut=st.none() | st.integers()
)
def test_garbage_in_any_position_is_malformed_or_an_entry_and_nothing_else(
    at: int, garbage: bytes, cut: int | None
) -> None:
    good = op("some id", key="a key", payload=b"payload") + op("other")
    data = (good[:at] + garbage + good[at + len(garbage) :])[: cut and abs(cut) % 120]
    entries = read(data)

    assert entries is None or len(entries) == len(list(wire.split_entries(data)))


@settings(max_examples=100)
@given(st.binary(max_size=100))
def test_bytes_are_malformed_or_entries_and_nothing_else(data: bytes) -> None:
    read(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no entry"),
        (op("a")[:-1], "truncated"),
        (op("a")[:28], "truncated"),
        (op("a")[:4] + b"\x09" + op("a")[5:], "unknown version 9"),
        (entry(priority=3), "impossible"),
        (entry(cost=2**53), "impossible"),
        (entry(attempt=0), "impossible"),
        (entry(id=b""), "impossible"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(wire.MalformedError, match=reason):
        wire.decode_entries(data)


def test_a_name_that_is_not_utf8_is_read_all_the_same() -> None:
    found, _ = wire.decode_entry(entry(id=b"a\xff", key=b"\xfe", flags=wire.HAS_KEY))

    assert (found.id, found.key) == ("a\\xff", "\\xfe")


# Payloads


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(json_values)
def test_a_payload_comes_back_as_it_went(payload: Any) -> None:
    data = wire.encode_payload(payload, "json")

    assert wire.decode_payload("json", data, JSON) == payload


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_the_serializers_of_kombu_are_used(serializer: str) -> None:
    data = wire.encode_payload({"a": [1, "ü"]}, serializer)

    assert wire.decode_payload(serializer, data, wire.accepted([serializer])) == {"a": [1, "ü"]}


def test_a_serializer_that_is_not_accepted_is_refused() -> None:
    with pytest.raises(serialization.ContentDisallowed):
        wire.decode_payload("pickle", wire.encode_payload(1, "pickle"), JSON)
    with pytest.raises(serialization.ContentDisallowed):
        wire.decode_payload("json", b"1", wire.accepted(["yaml"]))


def test_a_payload_that_cannot_be_serialised_says_its_type_and_the_serializer() -> None:
    with pytest.raises(PayloadError, match=r"type set .* with json|type object .* with json"):
        wire.encode_payload(object(), "json")


def test_a_payload_that_refers_to_itself_is_refused() -> None:
    payload: list[Any] = []
    payload.append(payload)

    with pytest.raises(PayloadError):
        wire.encode_payload(payload, "json")


def test_a_payload_above_a_mebibyte_is_refused_with_its_size() -> None:
    assert len(wire.encode_payload("x" * (wire.MAX_PAYLOAD - 2), "json")) == wire.MAX_PAYLOAD
    with pytest.raises(PayloadError, match=f"{wire.MAX_PAYLOAD + 1} bytes is above 1048576"):
        wire.encode_payload("x" * (wire.MAX_PAYLOAD - 1), "json")


def test_an_unknown_serializer_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"batcher_serializer.*nonesuch"):
        wire.encode_payload(1, "nonesuch")


# What a worker gets


def stored(*entries: bytes) -> bytes:
    """One block."""
    data = b"".join(entries)
    return struct.pack(">QIIQQ", 7, len(entries), len(data), 0, 0) + data


def test_a_claimed_batch_is_opened_in_order_with_every_attribute() -> None:
    opened = wire.open_blocks(
        stored(
            op("a", cost=3, key="k", priority=0, batchable=False, registered=True, attempt=2),
            op("b", payload=b"[1]"),
        ),
        "w",
        JSON,
    )

    first, second = opened.operations
    assert (first.id, first.watcher, first.cost, first.payload, first.attempt) == (
        "a",
        "w",
        3,
        "x",
        2,
    )
    assert (first.batchable, first.key, first.priority) == (False, "k", "high")
    assert (second.payload, second.key, second.priority, second.batchable) == (
        [1],
        None,
        "normal",
        True,
    )
    assert (opened.outcomes, opened.registered, opened.reason) == ("dd", {0: b"a"}, "")


def test_an_unreadable_payload_does_not_fail_its_neighbours() -> None:
    opened = wire.open_blocks(
        stored(
            op("a"),
            op("bad", payload=b"{"),
            op("b"),
            op("strange", serializer="pickle"),
            op("bytes", payload=b"\xff\xff"),
        ),
        "w",
        JSON,
    )

    assert [one.id for one in opened.operations] == ["a", "b"]
    assert opened.outcomes == "dxdxx"
    assert "bytes" in opened.reason


# Messages


def message(**changes: Any) -> tuple[dict[str, Any], str]:
    return {**wire.message_headers("m", 1), **changes}, wire.message_body("b", "w", op("a"))


def test_a_message_comes_back_as_it_went() -> None:
    found = wire.decode_message(*message())

    assert found == wire.Message("m", "b", "w", op("a"), 1)


def test_a_message_is_a_celery_task_message_of_protocol_two() -> None:
    headers, body = message()
    args, kwargs, embed = json.loads(body)

    assert headers["task"] == wire.RETURN_TASK
    assert {"lang", "task", "id", "root_id", "parent_id"} <= set(headers)
    assert args == ["b", "w", base64.b64encode(op("a")).decode()]
    assert kwargs == {}
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": ""},
        {"id": "x" * 256},
        {"id": 7},
        {"task": "proj.tasks.add"},
        {"task": None},
        {"v": 2},
        {"v": None},
        {"v": "1"},
        {"n": 0},
        {"n": 1001},
        {"n": "1"},
        {"n": None},
        {"n": -1},
    ],
)
def test_a_message_with_wrong_headers_is_malformed(changes: dict[str, Any]) -> None:
    headers, body = message(**changes)

    with pytest.raises(wire.MalformedError):
        wire.decode_message(headers, body)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[]",
        "[[], {}, {}]",
        '[["b", "w"], {}, {}]',
        '[["b", "w", 1], {}, {}]',
        '[["b", "w", "not base64!"], {}, {}]',
        '[["b", 1, "YQ=="], {}, {}]',
        '[[null, "w", "YQ=="], {}, {}]',
        '[["b", "w", "ä"], {}, {}]',
        b"\xff\xfe",
        b"\x00",
        "[" * 100_000,
    ],
)
def test_a_message_with_a_wrong_body_is_malformed_and_says_its_id(body: str | bytes) -> None:
    with pytest.raises(wire.MalformedError) as caught:
        wire.decode_message(message()[0], body)

    assert caught.value.id == "m"


def envelope(**changes: Any) -> bytes:
    headers, body = message()
    whole = {"body": body, "headers": headers, "properties": {}, "content-type": "x", **changes}
    return json.dumps(whole).encode()


def test_a_message_in_a_redis_list_comes_back_with_and_without_base64() -> None:
    body = message()[1].encode()
    wrapped = envelope(body=base64.b64encode(body).decode(), properties={"body_encoding": "base64"})

    assert wire.decode_envelope(envelope()) == wire.decode_envelope(wrapped)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'"text"',
        b"[" * 100_000,
        envelope(headers=None),
        envelope(headers=[]),
        envelope(headers={}),
        envelope(properties=None),
        envelope(properties=[]),
        envelope(body=None),
        envelope(body=7),
        envelope(body={"a": 1}),
        envelope(body="?", properties={"body_encoding": "base64"}),
        envelope(body=None, properties={"body_encoding": "base64"}),
    ],
)
def test_a_wrong_envelope_is_malformed_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(wire.MalformedError):
        wire.decode_envelope(raw)


@settings(max_examples=100)
@given(at=st.integers(0, 400), garbage=st.binary(min_size=1, max_size=6))
def test_garbage_in_any_position_of_an_envelope_is_malformed_or_a_message(
    at: int, garbage: bytes
) -> None:
    good = envelope()
    raw = good[:at] + garbage + good[at + len(garbage) :]
    try:
        found = wire.decode_envelope(raw)
    except wire.MalformedError:
        return
    assert isinstance(found, wire.Message)


LANE = wire.Envelope.of("b", "w", "celery_batcher.b.w")
TWO = op("a") + op("b")


@pytest.mark.parametrize("id", ["m", 'quoted " id', "größe", "x" * 200])
def test_what_we_write_into_redis_lists_is_what_everybody_reads_from_them(id: str) -> None:
    raw = LANE.write(id, 2, TWO)

    message = wire.Message(id, "b", "w", TWO, 2)
    assert (LANE.read(raw), wire.decode_envelope(raw)) == (message, message)
    whole = json.loads(raw)
    assert whole["properties"]["delivery_info"]["routing_key"] == "celery_batcher.b.w"


def test_a_message_that_kombu_laid_out_anew_is_read_too() -> None:
    raw = json.dumps(json.loads(LANE.write("m", 2, TWO)), indent=1).encode()

    assert LANE.read(raw) == wire.Message("m", "b", "w", TWO, 2)


@pytest.mark.parametrize("operations", [b"0", b"1001", b"9" * 5000])
def test_an_impossible_number_of_operations_is_malformed(operations: bytes) -> None:
    raw = LANE.write("m", 7, TWO).replace(b'"n": 7', b'"n": ' + operations)

    with pytest.raises(wire.MalformedError):
        LANE.read(raw)


def test_a_payload_is_not_part_of_the_reason_why_it_cannot_be_read() -> None:
    opened = wire.open_blocks(stored(op("a", payload=b"secret \xff" * 50)), "w", JSON)

    assert "UnicodeDecodeError" in opened.reason
    assert "secret" not in opened.reason


@settings(max_examples=200)
@given(at=st.integers(0, 700), garbage=st.binary(min_size=1, max_size=6))
def test_both_ways_to_read_an_envelope_read_the_same(at: int, garbage: bytes) -> None:
    good = LANE.write("m", 2, TWO)
    raw = good[:at] + garbage + good[at + len(garbage) :]

    def outcome(read: Callable[[bytes], wire.Message]) -> wire.Message | str:
        try:
            return read(raw)
        except wire.MalformedError as exc:
            return str(exc)

    assert outcome(LANE.read) == outcome(wire.decode_envelope)


def test_an_error_that_cannot_tell_its_text_is_named_without_it() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RecursionError

    assert explain(ValueError("seven")) == "ValueError: seven"
    assert explain(MuteError("seven")) == "MuteError: "


def test_reasons_are_short_and_have_nothing_of_a_payload_in_them() -> None:
    payload = b'{"__type__": "x", "__value__": "' + b"secret" * 1000 + b'"}'
    headers, body = message()

    assert "secret" not in wire.open_blocks(stored(op("a", payload=payload)), "w", JSON).reason
    for change in ({"task": "t" * 5000}, {"v": ["7" * 5000]}, {"n": "9" * 5000}):
        with pytest.raises(wire.MalformedError) as caught:
            wire.decode_message({**headers, **change}, body)
        assert len(str(caught.value)) < 500


def test_bytes_that_no_serializer_made_are_a_payload_only_where_the_app_accepts_them() -> None:
    with pytest.raises(ContentDisallowed):
        wire.decode_payload("", b"bytes", JSON)
    with pytest.raises(ContentDisallowed):
        wire.decode_payload("application/data", b"bytes", JSON)
    accept = wire.accepted(["application/data"])
    assert wire.decode_payload("application/data", b"text", accept) == "text"


@pytest.mark.parametrize(
    "data",
    [entry(enqueued_ms=253_402_300_800_000), entry(key=b"k", flags=0)],
    ids=["after the year 9999", "a key without its flag"],
)
def test_what_no_producer_writes_is_malformed(data: bytes) -> None:
    with pytest.raises(wire.MalformedError, match="impossible header"):
        wire.split_pieces(data)


def test_equal_bytes_have_equal_fingerprints() -> None:
    assert wire.fingerprint(b"a") == wire.fingerprint(b"a") != wire.fingerprint(b"b")


# Contexts of traces

CONTEXT = b'{"traceparent":"00-1-2-01"}'


def traced(context: bytes, **changes: Any) -> bytes:
    flags = wire.BATCHABLE | wire.TRACED
    return entry(**{"flags": flags, "extras": wire.encode_context(context), **changes})


@pytest.mark.parametrize("context", [CONTEXT, b"", b"c" * 1024])
def test_a_context_is_carried_behind_everything_else_an_entry_has(context: bytes) -> None:
    flags = wire.REGISTERED | wire.VECTOR | wire.DEDUPED | wire.TRACED
    extras = wire.encode_costs([7, 8]) + wire.encode_dedupe(9) + wire.encode_context(context)
    data = entry(flags=flags, extras=extras, payload=b"[]")

    found, end = wire.decode_entry(data)

    assert (found.costs, found.dedupe_ms, found.context) == ((1, 7, 8), 9, context)
    assert (found.payload, end) == (b"[]", len(data))


def test_a_batch_names_each_context_once_in_order() -> None:
    entries = [traced(b"b"), traced(b"a"), entry(), traced(b"b"), traced(b"")]
    data = b"".join(wire.block_of(at, one, 1) for at, one in enumerate(entries))

    opened = wire.open_blocks(data, "w", frozenset({"application/json"}))

    assert opened.contexts == (b"b", b"a")
    assert [one.payload for one in opened.operations] == [1] * 5


def test_a_context_stays_when_an_entry_is_tried_again() -> None:
    again = wire.with_alone(wire.with_attempt(traced(CONTEXT), 2), True)

    found, _ = wire.decode_entry(again)

    assert (found.context, found.attempt, found.single) == (CONTEXT, 2, True)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (entry(flags=wire.BATCHABLE | wire.TRACED, payload=b""), "truncated"),
        (entry(flags=wire.BATCHABLE | wire.TRACED, payload=b"\0"), "truncated"),
        (entry(flags=wire.BATCHABLE | wire.TRACED, payload=b"\0\2a"), "truncated"),
        (entry(flags=wire.BATCHABLE | 128), "unknown flags"),
    ],
)
def test_an_entry_whose_flags_say_something_else_is_malformed(data: bytes, says: str) -> None:
    with pytest.raises(wire.MalformedError, match=says):
        wire.split_pieces(data)
