"""Whether enough people of each role have said yes, each person counted once.

Who has several of the roles counts for whichever lets the others count too: a largest
matching of people to seats, found with augmenting paths (Kuhn, The Hungarian Method
for the Assignment Problem, 1955).
"""

from collections.abc import Mapping, Sequence, Set


def open_seats(
    seats: Mapping[str, int], people: Sequence[Set[str]]
) -> Mapping[str, int]:
    """Return how many are still needed of each role that lacks somebody.

    Parameters
    ----------
    seats : how many people of each role have to say yes.
    people : the roles of each who did.

    >>> open_seats({"approver": 1, "compliance": 1}, [{"approver", "compliance"}])
    {'compliance': 1}
    >>> both = [{"approver", "compliance"}, {"approver"}]
    >>> open_seats({"approver": 1, "compliance": 1}, both)
    {}
    """
    taken: dict[str, list[int]] = {role: [] for role in seats}
    for person in range(len(people)):
        _seat(person, seats, people, taken, set())
    return {
        role: seats[role] - len(taken[role])
        for role in seats
        if len(taken[role]) < seats[role]
    }


def is_same_person(one: str, other: str) -> bool:
    """Whether two names are one person's.

    >>> is_same_person("Ann  Lee", "ann lee"), is_same_person("ann", "ben")
    (True, False)
    """
    return _person(one) == _person(other)


def _person(name: str) -> str:
    return " ".join(name.split()).casefold()


def _seat(
    person: int,
    seats: Mapping[str, int],
    people: Sequence[Set[str]],
    taken: dict[str, list[int]],
    tried: set[str],
) -> bool:
    """Give a person a seat, if need be by moving others to another of their roles."""
    for role in seats:
        if role not in people[person] or role in tried:
            continue
        tried.add(role)
        if len(taken[role]) < seats[role]:
            taken[role].append(person)
            return True
        for other in taken[role]:
            if _seat(other, seats, people, taken, tried):
                taken[role].remove(other)
                taken[role].append(person)
                return True
    return False
