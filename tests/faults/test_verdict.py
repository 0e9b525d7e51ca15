"""The verdict on a round sees what it is there to see."""

from __future__ import annotations

from pathlib import Path

from faults.facts import Fact, FactBook, Facts
from faults.field import Strike
from faults.report import Results, rows
from faults.rounds import Outcome
from faults.verdict import Ledger

WORKER, OTHER, PRODUCER = 100, 200, 300


def ledger(*facts: tuple[float, str, str, str, int]) -> Ledger:
    """Facts as (at, kind, operation, batch, group); the writer leads its group."""
    found = Ledger()
    found.add(Fact(*fact, group=fact[-1]) for fact in facts)
    return found


def kill(at: float, group: int, pid: int = 0, fault: str = "SIGKILL") -> Strike:
    return Strike("worker", fault, at, at, group=group, pid=pid, kills=1)


def test_an_operation_that_no_handler_executed_is_missing() -> None:
    found = ledger((1.0, "returned", "a", "", PRODUCER), (2.0, "started", "a", "b1", WORKER))
    assert found.missing() == {"a"}
    found.add([Fact(3.0, "executed", "a", "b1", WORKER, WORKER)])
    assert found.missing() == set()


def test_an_operation_that_runs_although_it_was_refused_is_seen() -> None:
    found = ledger((1.0, "refused", "a", "", PRODUCER), (2.0, "started", "a", "b1", WORKER))
    assert found.refused_but_run() == {"a"}


def test_a_second_execution_is_put_down_to_the_kill_of_the_first() -> None:
    found = ledger((1.0, "executed", "a", "b1", WORKER), (6.0, "executed", "a", "b2", OTHER))
    strike = kill(1.5, WORKER)
    (twice,) = found.twice([kill(0.5, WORKER), strike, kill(1.2, OTHER)])
    assert twice.strike is strike
    assert twice.cause == "killed before its outcome was recorded"


def test_a_second_execution_of_a_settled_operation_is_unexplained() -> None:
    found = ledger(
        (1.0, "executed", "a", "b1", WORKER),
        (1.1, "ended", "settled", "b1", WORKER),
        (6.0, "executed", "a", "b2", OTHER),
        (6.1, "ended", "settled", "b2", OTHER),
    )
    (twice,) = found.twice([kill(1.5, WORKER)])
    assert twice.cause.startswith("unexplained")
    outcome = Outcome("Redis", "storm", 0, twice=[{"cause": twice.cause}])
    assert not outcome.sound


def test_a_late_settle_is_put_down_to_the_stop_of_its_worker() -> None:
    found = ledger(
        (1.0, "executed", "a", "b1", WORKER),
        (7.0, "ended", "ClaimExpiredError", "b1", WORKER),
        (6.0, "executed", "a", "b2", OTHER),
    )
    stop = kill(1.1, WORKER, fault="SIGSTOP, SIGCONT")
    (twice,) = found.twice([stop])
    assert (twice.strike, twice.cause) == (stop, "its claim had expired when it was settled")


def test_a_late_execution_that_comes_last_is_the_one_to_be_explained() -> None:
    found = ledger(
        (5.0, "executed", "a", "b2", OTHER),
        (5.1, "ended", "settled", "b2", OTHER),
        (7.0, "executed", "a", "b1", WORKER),
        (7.1, "ended", "ClaimExpiredError", "b1", WORKER),
    )
    (twice,) = found.twice([kill(1.0, WORKER, fault="SIGSTOP, SIGCONT")])
    assert twice.cause == "its claim had expired when it was settled"


def test_recovery_lasts_until_the_last_of_what_was_on_its_way_is_done() -> None:
    found = ledger(
        (1.0, "returned", "a", "", PRODUCER),
        (1.0, "returned", "b", "", PRODUCER),
        (2.5, "returned", "late", "", PRODUCER),
        (1.5, "executed", "a", "b1", WORKER),
        (5.0, "executed", "b", "b2", WORKER),
        (9.0, "executed", "late", "b3", WORKER),
    )
    assert found.recovery(kill(2.0, OTHER)) == 3.0
    assert found.next_start(kill(2.0, OTHER)) is None


def test_what_a_dead_worker_had_begun_is_begun_again() -> None:
    found = ledger(
        (1.0, "started", "a", "b1", WORKER),
        (1.0, "started", "b", "b1", WORKER),
        (4.0, "started", "a", "b2", OTHER),
        (5.0, "started", "b", "b3", OTHER),
    )
    assert found.started_again(kill(2.0, WORKER)) == 3.0


def test_facts_are_read_as_they_come(tmp_path: Path) -> None:
    book, facts = FactBook(tmp_path), Facts(tmp_path)
    book.add("returned", ["a", "b"])
    assert [fact.operation for fact in facts.read()] == ["a", "b"]
    book.add("executed", ["a"], "b1")
    assert [(fact.kind, fact.batch) for fact in facts.read()] == [("executed", "b1")]
    assert len(facts.all) == 3
    facts.close()
    book.close()


def test_a_line_that_was_cut_short_is_no_result(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add(Outcome("Redis", "storm", 0))
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"broker": "Redis", "ki')
    results = Results(tmp_path)
    results.add(Outcome("Redis", "storm", 1))
    assert [one.number for one in results.all()] == [0, 1]


def test_a_lost_operation_counts_in_every_row_of_its_round() -> None:
    strike = {"component": "beat", "fault": "SIGKILL", "kills": 1, "recovery": 0.1}
    row = rows([Outcome("Redis", "storm", 0, lost=["a"], strikes=[strike, strike])])
    assert row["Redis", "beat", "SIGKILL"].lost == 1
    assert row["Redis", "beat", "SIGKILL"].kills == 2
