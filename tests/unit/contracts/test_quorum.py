"""Who has several roles counts for the one that lets most others count."""

from itertools import product

from driftloop.contracts.quorum import open_seats
from hypothesis import given
from hypothesis import strategies as st

ROLES = ("approver", "compliance", "risk")
SEATS = st.dictionaries(st.sampled_from(ROLES), st.integers(1, 3), min_size=1)
PEOPLE = st.lists(st.frozensets(st.sampled_from(ROLES)), max_size=6)


def most_seated(seats: dict[str, int], people: list[frozenset[str]]) -> int:
    """Try every way to give each person one of their roles, or none."""
    best = 0
    for chosen in product(*([None, *sorted(roles)] for roles in people)):
        taken = {role: chosen.count(role) for role in seats}
        best = max(best, sum(min(taken[role], seats[role]) for role in seats))
    return best


@given(SEATS, PEOPLE)
def test_as_many_are_seated_as_can_be(
    seats: dict[str, int], people: list[frozenset[str]]
) -> None:
    missing = open_seats(seats, people)
    assert sum(seats.values()) - sum(missing.values()) == most_seated(seats, people)
    assert all(0 < count <= seats[role] for role, count in missing.items())


@given(SEATS, PEOPLE, st.randoms())
def test_the_order_of_people_changes_nothing(
    seats: dict[str, int], people: list[frozenset[str]], dice: st.DataObject
) -> None:
    before = sum(open_seats(seats, people).values())
    dice.shuffle(people)  # type: ignore[attr-defined]
    assert sum(open_seats(seats, people).values()) == before
