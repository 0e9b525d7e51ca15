"""The round in memory and the one in Lua answer alike, whatever came before."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_batcher.embedded import EmbeddedServer
from celery_batcher.leases import Demand, LeaseManager
from leasing import memory_leasing, redis_leasing

rounds = st.tuples(
    st.integers(0, 1),  # the process
    st.sampled_from(["a", "b:1", "c", "d"]),
    st.integers(0, 14),  # wanted
    st.integers(1, 5),  # weight
    st.dictionaries(st.integers(0, 11), st.sampled_from([0.0, 0.0004, 0.7, 2.5]), max_size=6),
    st.sampled_from(["t1", "t1", "t2"]),
    st.sampled_from([0.0, 0.001, 0.3, 1.0, 3.999]),  # seconds before it
    st.sampled_from([12, 12, 12, 7]),  # partitions
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rounds, max_size=25))
def test_memory_and_redis_answer_alike(
    redis_flavour: EmbeddedServer, unique: str, steps: list[tuple[object, ...]]
) -> None:
    test_memory_and_redis_answer_alike.runs += 1  # type: ignore[attr-defined]
    prefix = f"{unique}:{test_memory_and_redis_answer_alike.runs}:"  # type: ignore[attr-defined]
    memory, redis = memory_leasing(), redis_leasing(redis_flavour.url, prefix)
    pairs: list[tuple[LeaseManager, LeaseManager]] = [
        (memory.manager(), redis.manager()) for _ in range(2)
    ]
    for process, owner, wanted, weight, unused, turn, seconds, partitions in steps:
        for leasing in (memory, redis):
            leasing.advance(seconds)  # type: ignore[arg-type]
        answers = []
        for manager in pairs[process]:  # type: ignore[index]
            manager.provision(partitions)  # type: ignore[arg-type]
            demand = Demand(wanted, weight, unused=unused, turn=turn)  # type: ignore[arg-type]
            answers.append(manager.lease(owner, demand))  # type: ignore[arg-type]
        assert answers[0] == answers[1]


test_memory_and_redis_answer_alike.runs = 0  # type: ignore[attr-defined]
