"""The frontier tells repeats, gaps and stale work apart."""

from driftloop.runtime.drivers.frontier import Frontier, Place
from driftloop.runtime.transport import Message


def message(offset: int) -> Message:
    return Message("t", 0, offset, None, b"")


def test_places_relative_to_the_next_offset() -> None:
    """Below, at and above the next offset."""
    frontier = Frontier()
    frontier.begin({("t", 0): 5})
    places = [frontier.place(message(offset)) for offset in (4, 5, 6)]
    assert places == [Place.REPEAT, Place.NEXT, Place.AHEAD]


def test_advance_moves_the_next_offset_also_over_a_gap() -> None:
    """After a processed message the one behind it is next."""
    frontier = Frontier()
    frontier.begin({("t", 0): 5})
    assert frontier.advance(message(9), frontier.epoch)
    assert frontier.place(message(9)) is Place.REPEAT
    assert frontier.place(message(10)) is Place.NEXT


def test_work_begun_before_a_new_start_moves_nothing() -> None:
    """A rewind during the work wins: the message will come again."""
    frontier = Frontier()
    frontier.begin({("t", 0): 5})
    epoch = frontier.epoch
    frontier.begin({("t", 0): 3})
    assert not frontier.advance(message(5), epoch)
    assert frontier.place(message(3)) is Place.NEXT


def test_nothing_is_known_after_forgetting() -> None:
    """Between assignment and seek no message has a place."""
    frontier = Frontier()
    frontier.begin({("t", 0): 5})
    frontier.forget()
    assert frontier.place(message(5)) is Place.UNKNOWN
    assert frontier.place(message(6)) is Place.UNKNOWN
