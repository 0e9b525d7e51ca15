"""What both stores do with producers, turns and messages, up to the index."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from builders import BACKFILL, HIGH, Bench, op
from celery_batcher.store.base import Admission, Admitted, Arrival, Staged
from celery_batcher.store.options import WatcherOptions

DAY = 86_400


def admission(id: str, operations: int = 1, cost: int = 1, watcher: str = "w") -> Admission:
    return Admission(id, watcher, operations, cost)


# Producers


def test_admitted_messages_are_in_the_books_with_their_cost(bench: Bench) -> None:
    answer = bench.store.admit([admission("a", 2, 7), admission("b", 3, 5)], 100)

    assert answer == Admitted(messages=2, buffered=5)
    counts = bench.store.counts()
    assert (counts.admitted_messages, counts.admitted, counts.admitted_cost) == (2, 5, 12)
    assert counts.unsettled_cost == 12


def test_only_as_many_messages_are_admitted_as_the_buffer_has_room_for(bench: Bench) -> None:
    messages = [admission("a", 4), admission("b", 4), admission("c", 1)]

    assert bench.store.admit(messages, 8) == Admitted(messages=2, buffered=8)
    assert bench.store.admit(messages[2:], 8) == Admitted(messages=0, buffered=8)
    assert bench.store.admit(messages[2:], 9) == Admitted(messages=1, buffered=9)


def test_messages_behind_one_that_does_not_fit_are_refused_to_keep_the_order(bench: Bench) -> None:
    assert bench.store.admit([admission("big", 5), admission("small", 1)], 4).messages == 0


def test_a_refused_admission_leaves_no_trace(bench: Bench) -> None:
    bench.store.admit([admission("a", 4)], 4)
    before = bench.snapshot()

    assert bench.store.admit([admission("b", 1, 9)], 4).messages == 0

    assert bench.snapshot() == before


def test_what_waits_in_the_index_counts_against_the_buffer(bench: Bench) -> None:
    bench.begin().put_many("abc")

    assert bench.store.admit([admission("m", 2)], 4) == Admitted(messages=0, buffered=3)
    assert bench.store.admit([admission("m", 1)], 4) == Admitted(messages=1, buffered=4)


def test_a_withdrawn_message_is_in_no_counter(bench: Bench) -> None:
    bench.store.admit([admission("a", 2, 7), admission("b", 1, 1)], 100)

    assert bench.store.withdraw(["a", "unknown"]) == 1

    counts = bench.store.counts()
    assert (counts.admitted_messages, counts.admitted, counts.admitted_cost) == (1, 1, 1)


def test_a_message_that_arrived_cannot_be_withdrawn(bench: Bench) -> None:
    bench.begin().put(op("a", cost=5), id="m")

    assert bench.store.withdraw(["m"]) == 0
    assert bench.store.counts().waiting_cost == 5


def test_a_message_is_published_again_only_while_it_has_not_arrived(bench: Bench) -> None:
    bench.begin()
    bench.store.admit([admission("m")], 10)
    assert bench.store.repeat("m") is True

    bench.store.stage(bench.token, [Arrival("m", "w", op("a"))], "")

    assert bench.store.repeat("m") is False
    assert bench.store.repeat("never seen") is False


def test_of_a_message_published_twice_the_second_is_dropped_even_after_its_id_was_forgotten(
    bench: Bench,
) -> None:
    bench.begin()
    bench.store.admit([admission("m")], 10)
    bench.store.repeat("m")
    arrival = Arrival("m", "w", op("a"))

    assert bench.store.stage(bench.token, [arrival], "").operations == 1
    bench.store.forget(["m"])
    assert bench.store.stage(bench.token, [arrival], "") == Staged()

    assert bench.store.counts().waiting == 1
    assert bench.store.counts().admitted == 0


# The turn


def test_one_process_has_the_turn_until_its_time_is_over(bench: Bench) -> None:
    assert bench.store.take_turn("one", 1000).mine
    assert not bench.store.take_turn("two", 1000).mine
    bench.clock.advance(0.999)
    assert not bench.store.take_turn("two", 1000).mine
    bench.clock.advance(0.001)
    assert bench.store.take_turn("two", 1000).mine
    assert not bench.store.take_turn("one", 1000, keep=True).mine


def test_keeping_the_turn_lengthens_it_and_never_takes_it(bench: Bench) -> None:
    assert not bench.store.take_turn("one", 1000, keep=True).mine
    assert bench.store.take_turn("one", 1000).mine
    bench.clock.advance(0.9)
    assert bench.store.take_turn("one", 1000, keep=True).mine
    bench.clock.advance(0.9)
    assert not bench.store.take_turn("two", 1000).mine


def test_the_turn_can_be_given_back_by_its_holder_only(bench: Bench) -> None:
    bench.store.take_turn("one", 1000)

    assert bench.store.leave_turn("two") is False
    assert bench.store.counts().turn_ms == 1000
    assert bench.store.leave_turn("one") is True
    assert bench.store.counts().turn_ms == 0
    assert bench.store.take_turn("two", 1000).mine


def test_a_turn_that_is_refused_leaves_no_trace(bench: Bench) -> None:
    bench.begin()
    before = bench.snapshot()

    bench.store.take_turn("other", 1000)
    bench.store.take_turn("other", 1000, keep=True)
    bench.store.leave_turn("other")

    assert bench.snapshot() == before


def test_the_turn_learns_what_there_is_to_do(bench: Bench) -> None:
    bench.begin().put_many("abc")
    bench.store.want(2500, wake=True)
    bench.store.admit([admission("m", watcher="other")], 100)

    turn = bench.store.take_turn(bench.token, 1000, keep=True)

    assert (turn.wanted_ms, turn.wakes, turn.waiting) == (2500, 1, 3)
    assert sorted(turn.lanes) == ["other", "w"]


def test_wanting_never_shortens_an_earlier_want_and_says_how_long_the_turn_lasts(
    bench: Bench,
) -> None:
    assert bench.store.want(5000) == 0
    bench.store.take_turn("one", 700)
    assert bench.store.want(10) == 700
    assert bench.store.take_turn("one", 700, keep=True).wanted_ms == 5000


# Intake


def test_a_staged_message_moves_from_the_books_into_the_index(bench: Bench) -> None:
    bench.begin()
    bench.store.admit([admission("m", 2, 5)], 100)

    staged = bench.store.stage(
        bench.token, [Arrival("m", "w", op("a", cost=2) + op("b", cost=3))], ""
    )

    assert staged == Staged(operations=2)
    counts = bench.store.counts()
    assert (counts.admitted, counts.admitted_cost, counts.admitted_messages) == (0, 0, 0)
    assert (counts.waiting, counts.waiting_cost, counts.unsettled_cost) == (2, 5, 5)


def test_a_turn_that_was_lost_stages_nothing(bench: Bench) -> None:
    bench.begin()
    bench.store.admit([admission("m")], 100)
    before = bench.snapshot()

    assert bench.store.stage("lost", [Arrival("m", "w", op("a"))], "") == Staged(lost=True)

    assert bench.snapshot() == before


def test_a_message_that_comes_twice_is_staged_once(bench: Bench) -> None:
    bench.begin()
    arrival = Arrival("m", "w", op("a"))

    first = bench.store.stage(bench.token, [arrival, arrival], "")
    second = bench.store.stage(bench.token, [arrival], "")

    assert (first.operations, second.operations) == (1, 0)
    assert bench.drain() == [["a"]]


def test_an_id_is_noted_until_its_acknowledgement_is_known_or_a_day_has_passed(
    bench: Bench,
) -> None:
    bench.begin()
    for id in "abc":
        bench.put(op(id), id=id)

    assert bench.store.forget([]) == 3
    assert bench.store.forget(["a"]) == 2
    bench.clock.advance(DAY)
    assert bench.store.forget([]) == 0


def test_a_registered_id_is_dropped_while_it_lives_and_accepted_again_when_done(
    bench: Bench,
) -> None:
    bench.begin().put(op("mine", registered=True))

    assert bench.put(op("mine", registered=True), op("b")) == Staged(operations=1, duplicates=1)
    batch = bench.released()
    bench.claim(batch)
    assert bench.put(op("mine", registered=True)).duplicates == 1
    bench.settle(batch, "d", forget=["mine"])
    assert bench.put(op("mine", registered=True)) == Staged(operations=1)


def test_a_registered_id_lives_through_a_retry_and_ends_with_its_death(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=2)).put(op("mine", registered=True))
    bench.run("r")
    assert bench.put(op("mine", registered=True)).duplicates == 1
    bench.run("r")
    assert bench.store.counts().dead == 1
    assert bench.put(op("mine", registered=True)).operations == 1


def test_ids_that_are_not_registered_may_repeat(bench: Bench) -> None:
    assert bench.begin().put(op("same"), op("same")) == Staged(operations=2)


def test_dropped_duplicates_leave_the_books(bench: Bench) -> None:
    bench.begin().put(op("mine", cost=3, registered=True))
    bench.put(op("mine", cost=3, registered=True))

    counts = bench.store.counts()
    assert (counts.admitted, counts.admitted_cost, counts.waiting) == (0, 0, 1)


GOOD = op("good")
BAD = {
    "truncated entry": GOOD[:-1],
    "unknown version 2": GOOD[:4] + b"\x02" + GOOD[5:],
    "impossible header": GOOD[:6] + b"\x03" + GOOD[7:],
    "no entry": b"",
}


@pytest.mark.parametrize("reason", BAD)
def test_a_malformed_message_is_set_aside_whole_with_its_reason_and_bytes(
    bench: Bench, reason: str
) -> None:
    bench.begin()
    bench.store.admit([admission("m", 2, 8)], 100)
    data = GOOD + BAD[reason] if BAD[reason] else b""

    assert bench.store.stage(bench.token, [Arrival("m", "w", data)], "") == Staged(set_aside=1)

    (found,) = bench.store.set_asides(10)
    assert (found.at_ms, found.watcher, found.data) == (bench.clock.now_ms(), "w", data)
    assert found.reason == reason
    counts = bench.store.counts()
    assert (counts.set_aside, counts.waiting, counts.admitted, counts.unsettled_cost) == (
        1,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:8] + struct.pack(">H", 0) + data[10:], id="attempt 0"),
        pytest.param(
            lambda data: data[:10] + struct.pack(">Q", 2**53) + data[18:], id="cost 2**53"
        ),
        pytest.param(lambda data: data[:10] + b"\xff" * 8 + data[18:], id="cost 2**64-1"),
        pytest.param(lambda data: data[:26] + b"\x00" + data[27:], id="no id"),
        pytest.param(lambda data: data[:27] + b"\xff\xff" + data[29:], id="key beyond its end"),
        pytest.param(lambda data: b"\xff\xff\xff\xff" + data[4:], id="endless"),
        pytest.param(lambda data: b"\x00\x00\x00\x00" + data[4:], id="empty"),
        pytest.param(lambda data: data + b"\x00", id="a byte behind it"),
    ],
)
def test_an_impossible_header_is_set_aside(bench: Bench, change: object) -> None:
    bench.begin()
    data = change(GOOD)  # type: ignore[operator]

    staged = bench.store.stage(
        bench.token, [Arrival("m", "w", data), Arrival("n", "w", op("b"))], ""
    )

    assert staged == Staged(operations=1, set_aside=1)
    assert bench.drain() == [["b"]]


def test_a_message_that_the_intake_could_not_read_is_set_aside_with_its_reason(
    bench: Bench,
) -> None:
    bench.begin()

    staged = bench.store.stage(
        bench.token, [Arrival("m", "w", b"\x00garbage", fault="not ours")], ""
    )

    assert staged == Staged(set_aside=1)
    assert [(one.reason, one.data) for one in bench.store.set_asides(1)] == [
        ("not ours", b"\x00garbage")
    ]


def test_a_name_that_is_not_utf8_fails_nothing(bench: Bench) -> None:
    bench.begin()
    data = op("xx").replace(b"xx", b"\xff\xfe") + op("yy")

    assert bench.store.stage(bench.token, [Arrival("m", "w", data)], "") == Staged(operations=2)
    assert bench.store.counts().waiting == 2


def test_a_set_aside_message_that_comes_again_is_set_aside_once(bench: Bench) -> None:
    bench.begin()
    for _ in range(2):
        bench.store.stage(bench.token, [Arrival("m", "w", b"", fault="bad")], "")

    assert bench.store.counts().set_aside == 1


def test_a_lane_stays_marked_while_the_books_expect_a_message_of_it(bench: Bench) -> None:
    bench.begin()
    bench.store.admit([admission("m")], 100)

    assert bench.store.idle(["w"]) == 0
    bench.store.stage(bench.token, [Arrival("m", "w", op("a"))], "")
    assert bench.store.idle(["w"]) == 1
    assert bench.store.take_turn(bench.token, 1000, keep=True).lanes == ()


# The index


def test_operations_of_a_key_are_released_in_the_order_they_were_staged(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2))
    bench.put(op("a"), op("b"))
    bench.put(op("c"), op("d"), op("e"))

    assert bench.drain() == [["a", "b"], ["c", "d"], ["e"]]


def test_priorities_are_released_in_order_whatever_came_first(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1))
    bench.put(op("later", priority=BACKFILL), op("normal"), op("first", priority=HIGH))

    assert bench.drain() == [["first"], ["normal"], ["later"]]


def test_a_batch_may_take_from_several_priorities(bench: Bench) -> None:
    bench.begin().put(op("n"), op("b", priority=BACKFILL), op("h", priority=HIGH))

    assert bench.drain() == [["h", "n"], ["b"]]


def test_keys_take_turns(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=10))
    bench.put_many([f"a{n:02}" for n in range(40)], key="a")
    bench.put_many([f"b{n:02}" for n in range(20)], key="b")

    batches = bench.drain()

    assert [id[0] for batch in batches[:4] for id in batch] == list("a" * 10 + "b" * 10) * 2
    for key in "ab":
        ids = [id for batch in batches for id in batch if id[0] == key]
        assert ids == sorted(ids)


def test_a_key_that_comes_late_does_not_get_what_it_missed(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=10))
    bench.put_many([f"a{n:03}" for n in range(100)], key="a")
    for _ in range(5):
        bench.run()
    bench.put_many([f"b{n:03}" for n in range(50)], key="b")

    firsts = [batch[0][0] for batch in bench.drain()]

    assert sorted(firsts[:4]) == ["a", "a", "b", "b"]


def test_operations_without_a_key_are_a_key_of_their_own(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=10))
    bench.put_many([f"a{n:02}" for n in range(20)], key="a")
    bench.put_many([f"-{n:02}" for n in range(20)])

    assert {batch[0][0] for batch in bench.drain()[:2]} == {"a", "-"}


def test_a_key_splits_batches_only_when_asked(bench: Bench) -> None:
    entries = [op("a", key="1"), op("b", key="2")]
    bench.begin().put(*entries)
    assert bench.drain() == [["a", "b"]]

    bench.store.configure(bench.limits, [WatcherOptions("w", batch_by_key=True)])
    bench.put(*entries)
    assert bench.drain() == [["a"], ["b"]]


def test_names_may_contain_what_keys_of_the_store_contain(bench: Bench) -> None:
    bench.begin()
    bench.put(op("a:b", key="k:1:{x}"), op("c", key="k"), op("é", key="ü:\n"))

    assert sorted(id for batch in bench.drain() for id in batch) == ["a:b", "c", "é"]


@pytest.mark.parametrize("number", [2, 20])
def test_a_message_whose_costs_no_counter_can_hold_is_set_aside(bench: Bench, number: int) -> None:
    bench.begin()
    entries = b"".join(op(f"o{at}", cost=2**53 - 1) for at in range(number))
    before = bench.store.counts()

    staged = bench.store.stage(bench.token, [Arrival("m", "w", entries)], "")

    assert (staged.operations, staged.set_aside) == (0, 1)
    assert [one.reason for one in bench.store.set_asides(9)] == ["impossible cost"]
    assert bench.store.counts() == replace(before, set_aside=1)


def test_messages_that_are_not_in_the_books_cannot_pass_the_sum_of_all_costs(bench: Bench) -> None:
    bench.begin()
    costs = (2**52, 2**51, 2**51)
    dear = [Arrival(f"m{at}", "w", op(f"o{at}", cost=cost)) for at, cost in enumerate(costs)]
    bench.store.admit([Admission("m0", "w", 1, 2**52)], 9)

    staged = bench.store.stage(bench.token, dear, "")

    assert (staged.operations, staged.set_aside) == (2, 1)
    assert bench.store.counts().unsettled_cost == 2**52 + 2**51
