"""Whatever is in a lane: each message is staged, dropped as known, or set aside with its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from celery_batcher.intakes.base import lane_name
from fuzz.lanes import Lane, MemoryLane, RabbitLane, RedisLane
from fuzz.mutations import BATCHER, Mutator

MESSAGES = {"memory": 1000, "redis": 2000, "rabbitmq": 300}


@pytest.fixture(params=list(MESSAGES))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of lane."""
    return str(request.param)


@pytest.fixture
def lane(request: pytest.FixtureRequest, kind: str) -> Iterator[Lane]:
    """A lane of each kind."""
    makers: dict[str, Callable[[], Lane]] = {
        "memory": MemoryLane,
        "redis": lambda: RedisLane(request.getfixturevalue("redis_url")),
        "rabbitmq": lambda: RabbitLane(request.getfixturevalue("rabbitmq_url")),
    }
    lane = makers[kind]()
    yield lane
    lane.close()


def test_every_message_of_a_lane_is_accounted_for_and_good_ones_run(
    lane: Lane, kind: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    tally = lane.round(Mutator(Random(kind), mark).messages(MESSAGES[kind]))

    assert tally.messages.total() == MESSAGES[kind]
    assert all(tally.messages[verdict] for verdict in ("staged", "set aside"))
    assert all(tally.operations[became] for became in ("handled", "dead", "duplicate"))
    assert not mark.exists()


def test_a_lane_that_is_no_list_does_not_keep_the_flusher_from_the_others(
    redis_url: str, tmp_path: Path
) -> None:
    lane = RedisLane(redis_url)
    wrong = lane_name(BATCHER, "absent")
    lane.client.set(wrong, "no list")
    lane.watchers.append("absent")
    try:
        tally = lane.round([Mutator(Random(1), tmp_path / "mark").good() for _ in range(5)])
        assert lane.client.get(wrong) == b"no list"
    finally:
        lane.close()

    assert tally.messages == {"staged": 5}
