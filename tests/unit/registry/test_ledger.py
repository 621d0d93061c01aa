"""Where versions are follows from the facts, in whatever order they were read."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from driftloop.registry.ledger import (
    MOVES,
    ApprovalRule,
    Decision,
    Fact,
    Ledger,
    Registration,
    ServingChange,
    is_allowed,
    objection,
    open_ledger,
    rollback_objection,
)

from tests.unit.registry.story import START

TWO = ApprovalRule("approver", 2)
ONE = ApprovalRule("approver", 1)


def registered(
    version: int,
    rule: ApprovalRule | None = None,
    failures: tuple[str, ...] = (),
    author: str | None = None,
) -> Registration:
    at = START + timedelta(days=version)
    return Registration(
        version, f"trained-{version}", at, f"{version}" * 64, failures, rule, author
    )


def said(
    by: str, decision: str = "approve", version: int = 1, of: str = "1"
) -> Decision:
    at = START + timedelta(days=version, hours=1)
    return Decision(
        version, f"{by}-{decision}", at, decision, by, f"{by} said so", of * 64
    )


def deployed(version: int, generation: int) -> ServingChange:
    at = START + timedelta(days=100 + generation)
    return ServingChange(version, f"deployed-{generation}", at, generation, "deployed")


def rolled_back(version: int, restored: int | None, generation: int) -> ServingChange:
    at = START + timedelta(days=100 + generation, hours=1)
    return ServingChange(
        version, f"back-{generation}", at, generation, "rolled_back", restored, "worse"
    )


def states(book: Ledger) -> dict[int, str]:
    return {version: standing.state for version, standing in book.standings.items()}


def serving(*changes: ServingChange, count: int = 3) -> Ledger:
    return open_ledger([registered(v) for v in range(1, count + 1)], (), changes)


def test_the_gate_alone() -> None:
    book = open_ledger([registered(1), registered(2, failures=("latency: slow",))])
    assert states(book) == {1: "approved", 2: "rejected"}
    assert book.standings[2].reasons == ("latency: slow",)
    assert book.aliases == {"candidate": 1}


def test_two_people_approve() -> None:
    book = open_ledger([registered(1, TWO)], [said("ann")])
    assert states(book) == {1: "awaiting_approval"}
    book = open_ledger([registered(1, TWO)], [said("ann"), said("bob")])
    assert states(book) == {1: "approved"}
    assert book.standings[1].decided_by == ("ann", "bob")


def test_one_no_is_enough_and_a_later_yes_is_late() -> None:
    decisions = [said("ann"), said("bob", "reject"), said("cid")]
    book = open_ledger([registered(1, TWO)], decisions)
    assert states(book) == {1: "rejected"}
    assert book.standings[1].reasons == ("bob said so",)
    assert "is rejected" in book.standings[1].ignored["cid-approve"]


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (said("ann", of="2"), "is about package"),
        (said("  EVE "), "asked for the training"),
        (said("Bob"), "has decided"),
        (said("bob", "reject"), "has decided"),
    ],
    ids=["wrong package", "author", "twice", "twice, otherwise"],
)
def test_decisions_that_do_not_count(decision: Decision, why: str) -> None:
    facts = [registered(1, TWO, author="Eve")]
    before = open_ledger(facts, [said("bob")])
    assert why in (objection(facts[0], before.standings[1], decision) or "")
    book = open_ledger(facts, [said("bob"), decision])
    assert states(book) == {1: "awaiting_approval"}
    assert why in book.standings[1].ignored[decision.event_id]
    assert any("did not count" in entry.detail for entry in book.history)


BOTH = ApprovalRule("approver", 1, also={"compliance": 1})


def as_roles(decision: Decision, *roles: str) -> Decision:
    return replace(decision, roles=frozenset(roles))


@pytest.mark.parametrize("order", [0, 1])
def test_somebody_of_each_role_approves(order: int) -> None:
    """Who has both roles counts for the one that is missing, whoever came first."""
    ann = as_roles(said("ann"), "approver", "compliance")
    bob = as_roles(said("bob"), "approver")
    decisions = [ann, bob] if order else [bob, ann]
    assert states(open_ledger([registered(1, BOTH)], decisions[:1])) == {
        1: "awaiting_approval"
    }
    book = open_ledger([registered(1, BOTH)], decisions)
    assert states(book) == {1: "approved"}
    assert set(book.standings[1].decided_by) == {"ann", "bob"}


def test_two_of_one_role_are_not_somebody_of_each() -> None:
    ann, bob = (as_roles(said(name), "approver") for name in ("ann", "bob"))
    book = open_ledger([registered(1, BOTH)], [ann, bob])
    assert states(book) == {1: "awaiting_approval"}
    assert book.standings[1].decided_by == ("ann",)
    assert book.standings[1].ignored[bob.event_id] == (
        "version 1 needs no other approver: it waits for 1 compliance, and bob "
        "decides as approver"
    )
    cid = as_roles(said("cid"), "compliance")
    book = open_ledger([registered(1, BOTH)], [ann, bob, cid])
    assert states(book) == {1: "approved"}


def test_a_no_of_any_role_is_enough() -> None:
    ann = as_roles(said("ann"), "approver")
    bob = as_roles(said("bob", "reject"), "approver")
    assert states(open_ledger([registered(1, BOTH)], [ann, bob])) == {1: "rejected"}


def test_a_good_decision_has_no_objection() -> None:
    fact = registered(1, ONE, author="Eve")
    standing = open_ledger([fact]).standings[1]
    assert objection(fact, standing, said("ann")) is None
    assert objection(fact, standing, said("eve", "reject")) is None


def test_deployments_supersede() -> None:
    book = serving(deployed(1, 1), deployed(3, 4))
    assert states(book) == {1: "superseded", 2: "superseded", 3: "deployed"}
    assert book.aliases == {"champion": 3, "previous": 1}


def test_rollback_of_a_champion_restores() -> None:
    book = serving(deployed(1, 1), deployed(2, 3), rolled_back(2, 1, 4))
    assert states(book) == {1: "deployed", 2: "rolled_back", 3: "approved"}
    assert book.aliases == {"champion": 1, "candidate": 3}


def test_rollback_of_a_canary_leaves_the_champion() -> None:
    book = serving(deployed(1, 1), rolled_back(2, 1, 3), count=2)
    assert states(book) == {1: "deployed", 2: "rolled_back"}
    assert book.aliases == {"champion": 1}


def test_rollback_to_nothing() -> None:
    book = serving(deployed(1, 1), rolled_back(1, None, 1), count=1)
    assert states(book) == {1: "rolled_back"}
    assert book.aliases == {}


def test_a_version_may_come_back_twice() -> None:
    changes = [
        deployed(1, 1), deployed(2, 2), rolled_back(2, 1, 3), rolled_back(1, 2, 4),
    ]  # fmt: skip
    book = serving(*changes, count=2)
    assert states(book) == {1: "rolled_back", 2: "deployed"}


def test_each_alias_change_has_its_event() -> None:
    book = serving(deployed(1, 1), deployed(2, 3), rolled_back(2, 1, 4), count=2)
    moves = [
        (e.subject, e.before, e.after, e.event_id)
        for e in book.history
        if e.subject.startswith("alias")
    ]
    assert moves == [
        ("alias:champion", None, "1", "deployed-1"),
        ("alias:champion", "1", "2", "deployed-3"),
        ("alias:previous", None, "1", "deployed-3"),
        ("alias:champion", "2", "1", "back-4"),
        ("alias:previous", "1", None, "back-4"),
    ]


def test_order_of_reading_does_not_matter() -> None:
    """Versions and serving changes in any order: the same ledger."""
    versions = [registered(v, ONE if v == 2 else None) for v in (1, 2, 3)]
    decisions = [said("ann", version=2, of="2")]
    changes = [
        deployed(1, 1), deployed(2, 3), rolled_back(2, 1, 3), deployed(3, 6),
    ]  # fmt: skip
    expected = open_ledger(versions, decisions, changes)
    for seed in range(20):
        dice = random.Random(seed)
        dice.shuffle(versions)
        dice.shuffle(changes)
        assert open_ledger(versions, decisions, changes) == expected


def test_a_forbidden_move_is_written_down_and_not_made() -> None:
    book = open_ledger([registered(1, failures=("bad",))], (), [deployed(1, 1)])
    assert states(book) == {1: "rejected"}
    assert any("not a move of the table" in entry.detail for entry in book.history)


def test_the_table_of_moves() -> None:
    """Nothing leads out of rejected; nothing is approved that was not judged."""
    assert MOVES["rejected"] == frozenset()
    assert {s for s in MOVES if is_allowed(s, "approved")} == {
        "registered",
        "awaiting_approval",
    }
    assert not is_allowed("awaiting_approval", "deployed")


def test_random_stories_keep_to_the_table() -> None:
    """Every move in a history is one of the table, or is marked as not made."""
    for seed in range(200):
        dice = random.Random(seed)
        versions = [
            registered(v, dice.choice([None, ONE, TWO]), dice.choice([(), (), ("x",)]))
            for v in range(1, 6)
        ]
        facts: list[Fact] = []
        for number in range(12):
            version = dice.randint(1, 5)
            facts.append(
                dice.choice(
                    [
                        said(f"p{number}", "approve", version, str(version)),
                        said(f"p{number}", "reject", version, str(version)),
                        deployed(version, number),
                        rolled_back(version, dice.choice([None, 1, 2, 3]), number),
                    ]
                )
            )
        book = open_ledger(versions, _of(facts, Decision), _of(facts, ServingChange))
        for entry in book.history:
            if entry.subject == "state" and entry.before is not None:
                allowed = entry.after in MOVES[entry.before]
                assert allowed != ("not made" in entry.detail), (seed, entry)


def _of(facts: Sequence[Fact], kind: type) -> list:
    return [fact for fact in facts if isinstance(fact, kind)]


def test_rollbacks_that_are_not_possible() -> None:
    book = serving(deployed(1, 1), deployed(2, 3), count=2)
    assert rollback_objection(book, None) is None
    assert rollback_objection(book, 1) is None
    assert "in service already" in (rollback_objection(book, 2) or "")
    assert "never in service" in (rollback_objection(book, 7) or "")
    only = serving(deployed(1, 1), count=1)
    assert "no version before" in (rollback_objection(only, None) or "")
    on_its_way = serving(deployed(1, 1), count=2)
    assert rollback_objection(on_its_way, None) is None
