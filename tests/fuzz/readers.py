"""All readers of the wire format, held against each other and against the format's description."""

from __future__ import annotations

from celery_batcher import wire
from fuzz.expected import plain_entries
from fuzz.mutations import ENVELOPE

ACCEPT = frozenset(["application/json"])


def read_all(raw: bytes) -> str:
    """Read a message in every way there is; return the verdict: readable, or what is not.

    Raises:
        AssertionError: the ways do not agree, or a reader raised something of its own.
    """
    try:
        message = wire.decode_envelope(raw)
    except wire.MalformedError as exc:
        _check_reason(exc)
        message = None
    try:
        fast = ENVELOPE.read(raw)
    except wire.MalformedError as exc:
        _check_reason(exc)
        assert message is None
        return "envelope"
    assert fast.id.isprintable()
    assert len(fast.id.encode()) <= wire.MAX_ID
    if message is not None:
        assert (fast.id, fast.entries, fast.operations) == (
            message.id,
            message.entries,
            message.operations,
        )
    return _read_entries(fast.entries)


def _check_reason(exc: wire.MalformedError) -> None:
    assert str(exc).isascii()
    assert len(str(exc)) < 1000
    assert exc.id is None or exc.id.isprintable()


def _read_entries(data: bytes) -> str:
    plain = plain_entries(data)
    try:
        pieces = wire.split_pieces(data)
    except wire.MalformedError as exc:
        _check_reason(exc)
        assert plain is None or sum(entry.cost for entry in plain) > 2**53 - 1
        return "entries"
    assert plain is not None
    assert list(wire.split_entries(data)) == [entry.data for entry in plain]
    entries = wire.decode_entries(data)
    assert [entry.payload for entry in entries] == [entry.payload for entry in plain]
    assert sum(piece.operations for piece in pieces) == len(plain)
    assert sum(piece.cost for piece in pieces) == sum(entry.cost for entry in plain)
    assert sum(piece.bytes for piece in pieces) == len(data)
    blocks = b"".join(wire.block_of(1, one.data, one.cost) for one in plain)
    opened = wire.open_blocks(blocks, "w", ACCEPT)
    expected = "".join("x" if one.seen() is None else "d" for one in plain)
    assert opened.outcomes == expected
    return "payload" if "x" in expected else "readable"
