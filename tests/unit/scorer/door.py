"""A scorer's doors in process, with what they keep for the log of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from driftloop.contracts.events import RequestsAnswered
from driftloop.contracts.pipeline import AnswersLogged
from driftloop.runtime.http import http_app
from driftloop.runtime.identity.routing import GuardedRouter
from driftloop.scorer.answer_log import events_of
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.asked import Asked
from driftloop.scorer.door import doors_first
from driftloop.scorer.settings import MIB, ScorerSettings
from driftloop.scorer.shelf import Loaded, Served, Shelf
from fastapi import FastAPI

from tests.unit.scorer.packages import NAME
from tests.unit.support import HttpClient

TOKEN = "token-of-the-tests"
INVOKE = f"/pipelines/{NAME}/invocations"


def open_doors(app: FastAPI, doors: Sequence[GuardedRouter]) -> None:
    """Give an application its routes as the service does."""
    for router in doors:
        app.include_router(router)
    doors_first(app, doors)


class Door:
    """A scorer's HTTP interface with one version, and what it keeps."""

    def __init__(
        self, loaded: Loaded, log: AnswersLogged = "all", memory_bytes: int = MIB
    ) -> None:
        shelf, self.asked = Shelf(), Asked(lambda _: log, memory_bytes)
        shelf.show(NAME, Served(1, loaded, is_settled=True))
        settings = ScorerSettings.model_validate({"api_token": TOKEN})
        app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
        self.traffic = Traffic()
        open_doors(
            app, routers(Desk(shelf, self.traffic, self.asked), settings, lambda: True)
        )
        self.client = HttpClient(app, {"Authorization": f"Bearer {TOKEN}"})

    def invoke(self, *records: dict[str, Any], request_id: str | None = None) -> None:
        reply = self.client.post(
            INVOKE,
            json={"dataframe_records": list(records)},
            headers={"x-request-id": request_id} if request_id else None,
        )
        assert reply.status_code == 200, reply.text

    def told(self, *hidden: str) -> list[RequestsAnswered]:
        events = []
        for key, kept in self.asked.take(is_last=True).items():
            events += events_of(key, kept, "scorer-0", hidden)
            self.asked.release(kept.size_bytes)
        return events
