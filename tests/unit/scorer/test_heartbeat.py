"""A scorer says what it has in memory, from the start on, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    PackageRef,
    ScorerReported,
    ServedModel,
    ServingDesired,
    VersionReport,
)
from driftloop.scorer.loader import heartbeat
from driftloop.scorer.settings import MIB, ScorerSettings
from sqlalchemy.exc import ProgrammingError

from tests.unit.scorer.telling import AWAY, BUG, Outbox

PACKAGE = PackageRef(uri="artifact:sha256/0", digest="0" * 64, signer="k")
WISH = ServingDesired(
    pipeline="bikes",
    generation=3,
    champion=ServedModel(version=1, package=PACKAGE),
)
READY = VersionReport(version=1, role="champion", state="ready")


class Memory:
    """A loader that has loaded what was wished."""

    def in_memory(self) -> Iterator[tuple[ServingDesired, list[VersionReport]]]:
        yield WISH, [READY]


def beat(outbox: Outbox) -> list[Event]:
    caught_up = threading.Event()
    caught_up.set()
    settings = ScorerSettings(replica="a", heartbeat_seconds=0.001)
    heartbeat(
        cast("Any", Memory()), caught_up, cast("Any", outbox), settings, outbox.stopping
    )()
    return outbox.told


def test_it_says_what_is_in_memory_and_how_long_that_holds() -> None:
    told = [event for event in beat(Outbox(2)) if isinstance(event, ScorerReported)]
    assert all((event.memory_bytes or 0) > MIB for event in told)
    assert [event.model_copy(update={"memory_bytes": None}) for event in told] == [
        ScorerReported(
            pipeline="bikes",
            replica="a",
            generation=3,
            versions=[READY],
            lease_seconds=0.003,
        )
    ] * 2


def test_a_database_that_is_away_costs_one_sign_of_life() -> None:
    assert len(beat(Outbox(3, AWAY))) == 2


def test_a_bug_ends_it() -> None:
    with pytest.raises(ProgrammingError):
        beat(Outbox(3, BUG))


def test_it_says_nothing_before_the_wishes_are_read() -> None:
    outbox = Outbox(1)
    outbox.stopping.set()
    heartbeat(
        cast("Any", Memory()),
        threading.Event(),
        cast("Any", outbox),
        ScorerSettings(),
        outbox.stopping,
    )()
    assert outbox.told == []
