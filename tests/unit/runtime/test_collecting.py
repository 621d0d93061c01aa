"""What is built stays; what the work leaves behind is collected."""

import gc
import weakref
from collections.abc import Iterator

import pytest
from driftloop.runtime.collecting import FULL, keep_what_is_built


class Node:
    """Something that refers to itself, so only a collection can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def is_looked_at(wanted: object) -> bool:
    """Whether collections look at an object."""
    return any(found is wanted for found in gc.get_objects())


def test_what_is_built_is_not_looked_at_again() -> None:
    """And was before, as what comes later is (the control)."""
    built = Node()
    assert is_looked_at(built)
    count = keep_what_is_built()
    assert count > 1_000
    assert not is_looked_at(built)
    assert len(gc.get_objects()) < count / 10
    assert is_looked_at(Node())


def test_garbage_of_before_and_after_is_collected() -> None:
    """Nothing that is garbage already stays for ever; nor does what becomes it."""
    before, kept = Node(), Node()
    watched = [weakref.ref(before), weakref.ref(kept)]
    del before
    keep_what_is_built()
    after = Node()
    watched.append(weakref.ref(after))
    del kept, after
    gc.collect()
    # What was in use when the rest was built is looked at no more: the price.
    assert [ref() is None for ref in watched] == [True, False, True]


def test_full_collections_are_rare() -> None:
    """Ten times fewer than Python's own: the slowest requests waited for them."""
    gc.set_threshold(700, 10, 10)
    keep_what_is_built()
    assert gc.get_threshold() == (700, 10, FULL) == (700, 10, 100)
