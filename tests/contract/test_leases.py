"""Every lease manager: a partition has one owner at a time, and owners get what they are due."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from celery_batcher.clock import ManualClock
from celery_batcher.embedded import EmbeddedServer
from celery_batcher.errors import (
    ConfigurationError,
    ImproperOrderError,
    LeaseStoreUnavailableError,
    PartitionsOutOfRangeError,
)
from celery_batcher.leases import (
    AzureBlobLeaseManager,
    Demand,
    LeaseManager,
    Leases,
    MemoryLeaseManager,
    RedisLeaseManager,
)
from eventually import eventually
from faults.proxy import Proxy
from leasing import Leasing, azure_leasing, memory_leasing, redis_leasing
from servers import AzuriteServer, azurite_script

KINDS = ["memory", "redis", "azure"]


@pytest.fixture(params=KINDS)
def leasing(request: pytest.FixtureRequest, unique: str) -> Leasing:
    """A store of each kind, with nothing leased."""
    if request.param == "memory":
        return memory_leasing()
    if request.param == "redis":
        return redis_leasing(request.getfixturevalue("redis_server").url, f"{unique}:")
    return azure_leasing(request.getfixturevalue("azurite_server"), unique)


def provisioned(leasing: Leasing, partitions: int) -> LeaseManager:
    manager = leasing.manager()
    manager.provision(partitions)
    return manager


def lease(manager: LeaseManager, owner: str, demand: Demand, leased: int) -> Leases:
    """Rounds until so many are leased; a manager may need to look around first."""
    found: list[Leases] = []

    def enough() -> bool:
        found.append(manager.lease(owner, demand))
        return len(found[-1].left) == leased

    eventually(enough, timeout=5.0, interval=0.2)
    return found[-1]


def test_who_asks_gets_and_the_lease_is_not_longer_than_it_is(leasing: Leasing) -> None:
    manager = provisioned(leasing, 10)

    leases = manager.lease("a", Demand(3))

    assert len(leases.left) == 3
    assert all(0 <= at < 10 for at in leases.left)
    assert all(
        leasing.lease_time - 2 < seconds < leasing.lease_time + 1
        for seconds in leases.left.values()
    )
    assert not leases.guarded


def test_provisioning_twice_or_in_two_fleets_changes_nothing(leasing: Leasing) -> None:
    first = provisioned(leasing, 5)
    before = first.lease("a", Demand(5))
    events: list[tuple[str, int]] = []
    second = leasing.manager()
    second.raise_events_to(lambda event, val, msg, data: events.append((event, val)))

    first.provision(5)
    second.provision(5)

    assert first.lease("a", Demand(5)).left.keys() == before.left.keys()
    assert second.lease("b", Demand(1)).left == {}
    assert not any(event.startswith("created") for event, _ in events)


def test_more_partitions_come_to_those_that_are_there(leasing: Leasing) -> None:
    manager = provisioned(leasing, 2)
    lease(manager, "a", Demand(10), 2)

    manager.provision(4)

    lease(manager, "a", Demand(10), 4)


def test_partitions_that_are_no_more_are_left_out(leasing: Leasing) -> None:
    manager = provisioned(leasing, 4)
    lease(manager, "a", Demand(10), 4)

    manager.provision(2)

    assert sorted(manager.lease("a", Demand(10)).left) == [0, 1]


@pytest.mark.parametrize(("partitions", "factor"), [(501, 2), (-1, 1), (100_000, 200)])
def test_more_than_500_partitions_are_refused_with_the_factor_that_fits(
    leasing: Leasing, partitions: int, factor: int
) -> None:
    with pytest.raises(PartitionsOutOfRangeError) as caught:
        leasing.manager().provision(partitions)

    assert (caught.value.partitions, caught.value.factor) == (partitions, factor)


def test_nothing_is_leased_before_it_is_provisioned(leasing: Leasing) -> None:
    with pytest.raises(ImproperOrderError, match="provision"):
        leasing.manager().lease("a", Demand(1))


def test_no_partition_is_leased_to_two(leasing: Leasing) -> None:
    a, b = provisioned(leasing, 6), provisioned(leasing, 6)
    of_a = a.lease("a", Demand(4))
    of_b = b.lease("b", Demand(6))

    assert of_a.left.keys().isdisjoint(of_b.left)
    assert len(of_b.left) <= 2


def test_a_lease_is_renewed_while_it_is_wanted(leasing: Leasing) -> None:
    manager = provisioned(leasing, 2)
    other = provisioned(leasing, 2)
    first = lease(manager, "a", Demand(1), 1)
    (at,) = first.left
    step, over = leasing.lease_time / 5, 0.0

    while over < leasing.lease_time + 1:
        leasing.advance(step)
        over += step
        leases = manager.lease("a", Demand(1))
        assert leases.left.keys() == {at}
        assert leases.left[at] > leasing.lease_time / 2 - step
        assert at not in other.lease("b", Demand(0)).left

    assert at not in other.lease("b", Demand(2)).left


def test_who_ends_without_a_word_loses_its_leases_when_they_end_and_not_before(
    leasing: Leasing,
) -> None:
    dead, living = provisioned(leasing, 3), provisioned(leasing, 3)
    began = leasing.clock.monotonic()
    lease(dead, "dead", Demand(2), 2)
    taken = leasing.clock.monotonic()
    lease(living, "living", Demand(1), 1)
    got_at: list[float] = []

    def got_all() -> bool:
        leasing.advance(0.25)
        leases = living.lease("living", Demand(3))
        now = leasing.clock.monotonic()
        if len(leases.left) > 1:
            got_at.append(now)
        return len(leases.left) == 3

    eventually(got_all, timeout=2 * leasing.lease_time + 10, interval=0.0)

    assert got_at[0] >= began + leasing.lease_time - 0.25
    assert got_at[-1] <= taken + leasing.lease_time + 3


def test_a_lease_ends_on_time_to_the_millisecond(leasing: Leasing) -> None:
    if not isinstance(leasing.clock, ManualClock):
        pytest.skip("time goes by itself here")
    a, b = provisioned(leasing, 1), provisioned(leasing, 1)
    a.lease("a", Demand(1))
    leasing.advance(leasing.lease_time - 0.001)
    assert b.lease("b", Demand(1, weight=2)).left == {}
    assert b.lease("b", Demand(1, weight=2)).wait == pytest.approx(0.001)
    leasing.advance(0.001)
    assert b.lease("b", Demand(1, weight=2)).left.keys() == {0}


def test_a_lease_is_shortened_to_what_is_still_in_use(leasing: Leasing) -> None:
    if not isinstance(leasing.clock, ManualClock):
        pytest.skip("blobs are given back when nothing uses them")
    a, b = provisioned(leasing, 1), provisioned(leasing, 1)
    a.lease("a", Demand(1))
    a.lease("a", Demand(0))
    a.lease("a", Demand(0, unused={0: 1.01}))
    leasing.advance(1.01)
    assert b.lease("b", Demand(1, weight=2)).left == {}
    leasing.advance(0.001)
    assert b.lease("b", Demand(1, weight=2)).left.keys() == {0}


def test_what_is_not_wanted_stays_leased_until_its_owner_says_that_nothing_uses_it(
    leasing: Leasing,
) -> None:
    a, b = provisioned(leasing, 2), provisioned(leasing, 2)
    of_a = lease(a, "a", Demand(2), 2).left
    leasing.advance(1.1)

    assert a.lease("a", Demand(0)).left == {}
    assert b.lease("b", Demand(2)).left == {}

    a.lease("a", Demand(0, unused=dict.fromkeys(of_a, 0.0)))
    lease(b, "b", Demand(2), 2)


def test_the_word_of_a_process_that_is_not_the_last_to_act_counts_for_nothing(
    leasing: Leasing,
) -> None:
    old, new, other = (provisioned(leasing, 2) for _ in range(3))
    held = lease(old, "a", Demand(2, turn="old"), 2).left
    lease(new, "a", Demand(2, turn="new"), 2)
    leasing.advance(1.1)

    old.lease("a", Demand(0, turn="old", unused=dict.fromkeys(held, 0.0)))

    assert other.lease("b", Demand(2)).left == {}


def test_a_process_that_acts_again_does_not_count_on_what_another_gave_back(
    leasing: Leasing,
) -> None:
    first, second, other = (provisioned(leasing, 1) for _ in range(3))
    lease(first, "a", Demand(1, turn="1"), 1)
    lease(second, "a", Demand(1, turn="2"), 1)
    second.lease("a", Demand(0, turn="2"))
    second.lease("a", Demand(0, turn="2", unused={0: 0.0}))
    lease(other, "b", Demand(1, weight=2), 1)

    assert first.lease("a", Demand(1, turn="3")).left == {}


def test_another_process_of_the_fleet_goes_on_with_its_leases(leasing: Leasing) -> None:
    first, second = provisioned(leasing, 4), provisioned(leasing, 4)
    held = lease(first, "a", Demand(4, turn="first"), 4).left

    assert lease(second, "a", Demand(4, turn="second"), 4).left.keys() == held.keys()


def test_a_fleet_that_ends_gives_everything_back(leasing: Leasing) -> None:
    a, b = provisioned(leasing, 3), provisioned(leasing, 3)
    lease(a, "a", Demand(3), 3)

    a.release("a")
    a.release("never heard of")

    lease(b, "b", Demand(3), 3)


def test_owners_that_want_too_much_are_told_of_their_shares(leasing: Leasing) -> None:
    managers = [provisioned(leasing, 12) for _ in range(3)]
    demands = [Demand(12, weight=2), Demand(12), Demand(1)]
    for manager, owner, demand in zip(managers, "abc", demands, strict=True):
        manager.lease(owner, demand)

    def shared() -> bool:
        leasing.advance(0.3)
        told = []
        for manager, owner, demand in zip(managers, "abc", demands, strict=True):
            held = manager.lease(owner, demand).left
            unused = {at: 0.0 for at in range(12) if at not in held}
            told.append(
                len(
                    manager.lease(
                        owner, Demand(demand.partitions, demand.weight, unused=unused)
                    ).left
                )
            )
        return told == [7, 4, 1]

    eventually(shared, timeout=10.0, interval=0.0)


# Servers that are away, and that refuse


def rounds_after(manager: LeaseManager, owner: str, demand: Demand) -> Leases:
    """A round as soon as the server answers again."""
    return eventually(
        lambda: manager.lease(owner, demand), timeout=20.0, retry=(LeaseStoreUnavailableError,)
    )


def test_a_redis_that_is_away_is_an_error_and_afterwards_nothing_is_leased_for_a_lease_time(
    unique: str,
) -> None:
    with EmbeddedServer() as server:
        leasing = redis_leasing(server.url, f"{unique}:")
        manager, other = provisioned(leasing, 2), provisioned(leasing, 2)
        manager.lease("a", Demand(2))
        server.kill()

        with pytest.raises(LeaseStoreUnavailableError, match="is it up"):
            manager.lease("a", Demand(2))
        with pytest.raises(LeaseStoreUnavailableError):
            manager.provision(2)

        server.start()
        Redis.from_url(server.url).flushall()  # nothing was written to disk in time
        assert rounds_after(other, "b", Demand(2)).guarded
        leasing.advance(leasing.lease_time - 0.1)
        assert other.lease("b", Demand(2)).guarded
        assert manager.lease("a", Demand(2)).guarded
        leasing.advance(0.1)
        assert len(other.lease("b", Demand(2)).left) == 2


def test_a_redis_is_known_again_by_its_run_id(redis_server: EmbeddedServer, unique: str) -> None:
    url = redis_server.url
    manager = RedisLeaseManager(url, name="shared", prefix=f"{unique}:", lease_time=0.1)
    manager.provision(2)
    assert manager.lease("a", Demand(2)).guarded
    leases = lease(manager, "a", Demand(2), 2)
    assert max(leases.left.values()) < 0.1
    state = f"{unique}:{{shared}}:leases:state"
    manager._client.hset(state, "run_id", "anothers")

    assert manager.lease("a", Demand(2)).guarded


def test_wrong_credentials_of_redis_are_told(redis_server: EmbeddedServer) -> None:
    url = redis_server.url.replace("redis://", "redis://nobody:wrong@")
    with pytest.raises(ConfigurationError, match="check user and password"):
        RedisLeaseManager(url, name="shared").provision(1)


def test_a_redis_that_does_not_answer_is_waited_for_once_and_its_leases_stand(
    redis_server: EmbeddedServer, unique: str
) -> None:
    proxy = Proxy(redis_server.port)
    try:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        options: dict[str, Any] = {"name": "shared", "prefix": f"{unique}:", "lease_time": 30.0}
        manager = RedisLeaseManager(url, clock=(clock := ManualClock()), **options)
        other = RedisLeaseManager(redis_server.url, clock=clock, **options)
        for one in (manager, other):
            one.provision(2)
            one.lease("first", Demand(0))
        clock.advance(30.0)
        lease(manager, "a", Demand(2), 2)
        proxy.stall()

        with pytest.raises(LeaseStoreUnavailableError, match="does not answer"):
            manager.lease("a", Demand(2))
        assert other.lease("b", Demand(1)).left == {}
        proxy.flow()
        assert len(rounds_after(manager, "a", Demand(1)).left) == 1
    finally:
        proxy.close()


def azure(server: AzuriteServer, container: str, *, key: str = "", url: str = "") -> LeaseManager:
    return AzureBlobLeaseManager(
        url or server.url, container=container, master_key=key or server.KEY
    )


@pytest.fixture
def proxy(azurite_server: AzuriteServer) -> Iterator[Proxy]:
    """What a test puts between a manager and the emulator."""
    proxy = Proxy(azurite_server.port)
    yield proxy
    proxy.close()


def test_an_azure_that_does_not_answer_is_an_error_and_its_leases_stand(
    azurite_server: AzuriteServer, proxy: Proxy, unique: str
) -> None:
    away = azurite_server.url.replace(str(azurite_server.port), str(proxy.port))
    manager, other = azure(azurite_server, unique, url=away), azure(azurite_server, unique)
    manager.provision(2)
    other.provision(2)
    lease(manager, "a", Demand(2), 2)
    proxy.stall()

    with pytest.raises(LeaseStoreUnavailableError, match="does not answer"):
        manager.lease("a", Demand(2, hold=10.0))

    assert other.lease("b", Demand(2)).left == {}
    proxy.flow()
    assert len(rounds_after(manager, "a", Demand(2)).left) == 1  # the other has asked, too


def test_an_azure_that_was_down_is_used_again(unique: str) -> None:
    if azurite_script() is None:
        pytest.skip("azurite is not installed")
    server = AzuriteServer()
    try:
        server.start()
        manager = azure(server, unique)
        manager.provision(2)
        server.end()
        with pytest.raises(LeaseStoreUnavailableError, match="is it reachable"):
            manager.lease("a", Demand(2))
        with pytest.raises(LeaseStoreUnavailableError):
            manager.provision(2)
        server.start()

        manager.provision(2)
        lease(manager, "a", Demand(2), 2)
    finally:
        server.stop()


@pytest.mark.parametrize("key", ["AAAA", "not base64!"])
def test_a_wrong_key_of_azure_is_told(azurite_server: AzuriteServer, unique: str, key: str) -> None:
    with pytest.raises(ConfigurationError, match="Storage Blob Data Contributor"):
        azure(azurite_server, unique, key=key).provision(1)


def test_a_container_that_was_deleted_is_told_and_provisioned_again(
    azurite_server: AzuriteServer, unique: str
) -> None:
    from azure.storage.blob import ContainerClient

    manager = azure(azurite_server, unique)
    manager.provision(2)
    key = {"account_name": azurite_server.ACCOUNT, "account_key": azurite_server.KEY}
    ContainerClient(azurite_server.url, unique, credential=key).delete_container()

    with pytest.raises(ConfigurationError, match=r"was it deleted\? provision\(\)"):
        manager.lease("a", Demand(1))

    rounds = eventually(lambda: manager.provision(2) or True, retry=(LeaseStoreUnavailableError,))
    assert rounds
    lease(manager, "a", Demand(1), 1)


def test_what_azure_creates_and_finds_is_told(azurite_server: AzuriteServer, unique: str) -> None:
    manager = azure(azurite_server, unique)
    events: list[tuple[str, int]] = []
    manager.raise_events_to(lambda event, val, msg, data: events.append((event, val)))

    manager.provision(2)
    manager.provision(3)

    assert [events[0], *sorted(events[1:3])] == [
        ("created-container", 0),
        ("created-blob", 0),
        ("created-blob", 1),
    ]
    assert events[3:] == [
        ("verified-container", 0),
        ("verified-blob", 0),
        ("verified-blob", 1),
        ("created-blob", 2),
    ]


def test_a_blob_that_another_owner_was_faster_to_lease_is_told(
    azurite_server: AzuriteServer, unique: str
) -> None:
    slow, fast = azure(azurite_server, unique), azure(azurite_server, unique)
    events: list[tuple[str, int]] = []
    slow.raise_events_to(lambda event, val, msg, data: events.append((event, val)))
    slow.provision(1)
    fast.provision(1)
    slow.lease("slow", Demand(0))  # it looks, and sees the partition free
    lease(fast, "fast", Demand(1), 1)
    owner = slow._owners["slow"]  # type: ignore[attr-defined]
    owner.share = 1  # what it would be if the other had been a moment later

    assert slow.lease("slow", Demand(1)).left == {}
    assert events[-1] == ("failed", 0)


@pytest.mark.parametrize("status", [429, 503])
def test_throttled_storage_is_told(
    azurite_server: AzuriteServer, unique: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient

    def throttled(*_: object, **__: object) -> None:
        error = HttpResponseError("ServerBusy")
        error.status_code = status
        raise error

    manager = azure(azurite_server, unique)
    manager.provision(1)
    monkeypatch.setattr(ContainerClient, "upload_blob", throttled)

    with pytest.raises(LeaseStoreUnavailableError, match="larger factor"):
        manager.lease("a", Demand(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"account": "a", "container": "C"}, "small letters"),
        ({"account": "a", "container": "ccc"}, "either credential or master_key"),
        ({"container": "ccc", "master_key": "k"}, "either credential or master_key"),
        ({"account": "a", "container": "ccc", "connection_string": "x"}, "alone"),
        ({"container": "ccc", "connection_string": "x"}, "address or string is none"),
        ({"account": "a", "container": "ccc", "master_key": "k", "lease_time": 14}, "15 to 60"),
        ({"account": "a", "container": "ccc", "master_key": "k", "lease_time": 61}, "15 to 60"),
    ],
)
def test_wrong_arguments_of_azure_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AzureBlobLeaseManager(**options)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.storage.blob", None)

    with pytest.raises(ConfigurationError, match=r"celery-batcher\[azure\]"):
        AzureBlobLeaseManager("account", container="ccc", master_key="k")


@pytest.mark.parametrize("lease_time", [0, -1, float("nan"), "1"])
def test_wrong_lease_times_are_refused(lease_time: Any) -> None:
    with pytest.raises(ConfigurationError, match="lease_time="):
        MemoryLeaseManager(lease_time=lease_time)
    with pytest.raises(ConfigurationError, match="lease_time="):
        RedisLeaseManager("redis://", name="shared", lease_time=lease_time)


def test_an_address_that_is_none_of_redis_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not one of Redis"):
        RedisLeaseManager("amqp://localhost", name="shared")
