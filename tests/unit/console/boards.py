"""Boards that have taken some events."""

from driftloop.console.core import Board
from driftloop.contracts.base import Event


def board_of(events: list[Event]) -> Board:
    board = Board()
    for event in events:
        board.take(event)
    return board
