"""The readers of the wire format: whatever the bytes, an answer or `MalformedError`."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import op
from celery_batcher import wire
from fuzz.mutations import Mark, Mutator
from fuzz.readers import read_all

JSON = frozenset(["application/json"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    random=st.randoms(use_true_random=False), kind=st.sampled_from(Mutator(Random(0), Path()).kinds)
)
def test_any_message_is_read_or_malformed(random: Random, kind: str, tmp_path: Path) -> None:
    read_all(Mutator(random, tmp_path / "mark").bad(kind).raw)
    assert not (tmp_path / "mark").exists()


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    read_all(data)


@pytest.mark.parametrize("name", ["pickle", "application/x-python-serialize"])
def test_a_pickle_is_loaded_only_where_the_app_accepts_pickles(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    entry = op("p", serializer=name, payload=pickle.dumps(Mark(mark)))
    (piece,) = wire.split_pieces(entry)
    block = wire.block_of(1, entry, piece.cost)

    assert wire.open_blocks(block, "w", JSON).outcomes == "x"
    assert not mark.exists()
    assert wire.open_blocks(block, "w", wire.accepted(["pickle"])).outcomes == "d"
    assert mark.exists()


@pytest.mark.parametrize("name", ["", "raw", "text/plain", "application/data"])
def test_bytes_without_a_serializer_are_no_payload_unless_the_app_accepts_them(name: str) -> None:
    block = wire.block_of(1, op("p", serializer=name, payload=b"bytes"), 1)

    assert wire.open_blocks(block, "w", JSON).outcomes == "x"
