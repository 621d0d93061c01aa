"""Alerts on PostgreSQL: of two replicas one tells people, and another takes over."""

from __future__ import annotations

from datetime import timedelta

import pytest
from driftloop.contracts.base import Chain, Meta
from driftloop.registry.alerting import tables
from driftloop.registry.alerting.life import alerts_of
from driftloop.registry.app import SERVICE
from driftloop.runtime.database import open_database
from driftloop.runtime.replicas import SessionLock
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from tests.servers import PostgresqlServer
from tests.unit.registry.alerts import raised
from tests.unit.registry.story import NAME, START

pytestmark = [pytest.mark.slow]


def test_one_replica_tells_people(postgresql: PostgresqlServer) -> None:
    """Also when it loses its session: then it is not the one before it asks again."""
    url = postgresql.new_database()
    engines = [open_database(url, SERVICE.tables, "registry") for _ in range(2)]
    first, second = (SessionLock(engine, "alerts") for engine in engines)
    assert [first.take(), second.take()] == [True, False]
    assert [first.take(), second.take()] == [True, False]
    with engines[1].connect() as connection:
        found = text(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        )
        assert list(connection.execute(found).scalars()) == [True]
    assert second.take()
    with pytest.raises(DBAPIError):
        first.take()
    assert not first.take()
    second.release()
    assert first.take()
    first.release()
    for engine in engines:
        engine.dispose()


def test_facts_come_back_as_they_were(postgresql: PostgresqlServer) -> None:
    engine = open_database(postgresql.new_database(), SERVICE.tables, "registry")
    meta = Meta("a1", START, "/test", Chain("c", "00-aa-bb-01"))
    event = raised(detail="50 % 'of' \"it\" ✓ \u2028").with_meta(meta)
    with Session(engine) as session:
        tables.note(session, event)
        session.commit()
        (fact,) = tables.facts(session, [NAME], START)[NAME]
        assert tables.facts(session, [NAME], START + timedelta(seconds=1)) == {}
        assert tables.count(session) == 1
    (alert,) = alerts_of([fact], timedelta(0))
    assert alert.raised.model_dump() == event.model_dump()
    assert alert.raised_at == START
    assert alert.origin["traceparent"] == "00-aa-bb-01"
    engine.dispose()
