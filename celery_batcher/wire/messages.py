"""Messages of lanes, and their envelopes on Redis.

A *message* of a lane is a minimal Celery task message (protocol 2): if a worker ever consumes
a lane by mistake, it runs the task `RETURN_TASK`, which has the broker put it back.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..operation import new_id
from .entries import MAX_ID, VERSION
from .malformed import MalformedError
from .payloads import explain, load_json

RETURN_TASK = "celery_batcher.return_to_lane"
MAX_OPERATIONS = 1000
"""Operations of the largest message, and of the largest batch."""
_DIGITS = len(str(MAX_OPERATIONS))
_show = reprlib.Repr()
_show.maxstring = _show.maxother = 200


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a lane: the entries of one watcher."""

    id: str
    batcher: str
    watcher: str
    entries: bytes
    operations: int


def message_body(batcher: str, watcher: str, entries: bytes) -> str:
    """The body of a lane's message: arguments of the task that puts the entries back."""
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    args = [batcher, watcher, b64encode(entries).decode()]
    return json.dumps([args, {}, embed], separators=(",", ":"))


def message_headers(id: str, operations: int) -> dict[str, Any]:
    """The headers that make a worker read the message as a task, and ours."""
    return {
        "lang": "py",
        "task": RETURN_TASK,
        "id": id,
        "root_id": id,
        "parent_id": None,
        "v": VERSION,
        "n": operations,
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """The text of a lane's messages, as Kombu's Redis transport keeps them in a list.

    Kombu makes each from objects and parses it into objects. Here it is made from the ``parts``
    between the six places in which messages differ, and read by looking for these parts.
    """

    batcher: str
    watcher: str
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, batcher: str, watcher: str, lane: str) -> Envelope:
        """The envelope of a lane."""
        envelope = {
            "body": message_body(batcher, watcher, b"").replace('""', '"@"'),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": message_headers("@", 0) | {"n": "@n"},
            "properties": {
                "correlation_id": "@",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": lane},
                "priority": 0,
                "body_encoding": None,
                "delivery_tag": "@",
            },
        }
        text = json.dumps(envelope).replace('"@n"', "@")
        return cls(batcher, watcher, tuple(text.encode().split(b"@")))

    def write(self, id: str, operations: int, entries: bytes) -> bytes:
        """A message."""
        quoted = json.dumps(id)[1:-1].encode()
        values = (b64encode(entries), quoted, quoted, b"%d" % operations, quoted, new_id().encode())
        pieces = [part for pair in zip(self.parts, values, strict=False) for part in pair]
        return b"".join([*pieces, self.parts[-1]])

    def read(self, raw: bytes) -> Message:
        """A message of the lane, laid out in any way.

        Raises:
            MalformedError: it is none of ours.
        """
        data, id, root, operations, correlation, tag = self._values(raw)
        if (
            id == root == correlation
            and id.isalnum()
            and tag.isalnum()
            and len(id) <= MAX_ID
            and operations.isdigit()
            and len(operations) <= _DIGITS
            and 0 < (n := int(operations)) <= MAX_OPERATIONS
        ):
            try:
                entries = b64decode(data, validate=True)
            except ValueError:
                pass  # the other way says what is wrong
            else:
                return Message(id.decode(), self.batcher, self.watcher, entries, n)
        return decode_envelope(raw)

    def _values(self, raw: bytes) -> list[bytes]:
        """What stands between the parts; empty bytes where they are not all there."""
        body, *middle, end = self.parts
        nothing = [b""] * (len(middle) + 1)
        if not (raw.startswith(body) and raw.endswith(end)):
            return nothing
        values, at = [], len(body)
        for part in middle:
            stop = raw.find(part, at)
            if stop < 0:
                return nothing
            values.append(raw[at:stop])
            at = stop + len(part)
        return [*values, raw[at : len(raw) - len(end)]]


def decode_message(headers: Mapping[str, Any], body: str | bytes) -> Message:
    """Read a message of a lane.

    Raises:
        MalformedError: it is none of ours.
    """
    version, id, operations = headers.get("v"), headers.get("id"), headers.get("n")
    if not isinstance(id, str) or not id.isprintable() or not 0 < len(id.encode()) <= MAX_ID:
        raise MalformedError("no id")
    if headers.get("task") != RETURN_TASK:
        raise MalformedError(f"not a message of a lane: task {_show.repr(headers.get('task'))}", id)
    if version != VERSION:
        raise MalformedError(f"unknown version {_show.repr(version)}", id)
    if not isinstance(operations, int) or not 0 < operations <= MAX_OPERATIONS:
        raise MalformedError(
            f"{_show.repr(operations)} operations: 1 to {MAX_OPERATIONS} fit a message", id
        )
    try:
        (batcher, watcher, data), _, _ = json.loads(body)
        entries = b64decode(data, validate=True)
    except (ValueError, TypeError, RecursionError) as exc:
        raise MalformedError(f"unreadable body: {explain(exc)}", id) from exc
    if not (isinstance(batcher, str) and isinstance(watcher, str)):
        raise MalformedError("unreadable arguments", id)
    return Message(id, batcher, watcher, entries, operations)


def decode_envelope(raw: bytes) -> Message:
    """Read a message as Kombu's Redis transport keeps it in a list.

    Raises:
        MalformedError: it is none of ours.
    """
    try:
        envelope = load_json(raw)
        headers, body = envelope["headers"], envelope["body"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = b64decode(body)
    except Exception as exc:  # Kombu's hooks may raise anything
        raise MalformedError(f"unreadable envelope: {explain(exc)}") from exc
    if not isinstance(headers, dict):
        raise MalformedError("unreadable headers")
    return decode_message(headers, body)


def envelope_of(message: Any) -> bytes:
    """A message that Kombu took from a broker, laid out as in a list of Redis: nothing is lost."""
    body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
    properties = dict(message.properties)
    properties.pop("application_headers", None)  # AMQP's name of the headers
    envelope = {
        "body": b64encode(body).decode(),
        "content-encoding": getattr(message, "content_encoding", None),
        "content-type": getattr(message, "content_type", None),
        "headers": message.headers,
        "properties": {**properties, "body_encoding": "base64"},
    }
    return json.dumps(envelope, default=repr, skipkeys=True).encode()


def fingerprint(data: bytes) -> str:
    """An id for a message that has none that can be read."""
    return hashlib.sha256(data).hexdigest()[:32]
