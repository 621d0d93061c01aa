"""A scorer's doors in process, with what they keep for the skew check."""

from __future__ import annotations

from typing import Any

from driftloop.contracts.events import RequestsAnswered
from driftloop.runtime.http import http_app
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.asked import Asked
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Served, Shelf

from tests.unit.scorer.packages import NAME
from tests.unit.support import HttpClient

TOKEN = "token-of-the-tests"
INVOKE = f"/pipelines/{NAME}/invocations"


class Door:
    """A scorer's HTTP interface with one version, and what it keeps."""

    def __init__(self, loaded: Loaded) -> None:
        shelf, self.asked = Shelf(), Asked()
        shelf.show(NAME, Served(1, loaded, is_settled=True))
        settings = ScorerSettings.model_validate({"api_token": TOKEN})
        app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
        for router in routers(
            Desk(shelf, Traffic(), self.asked), settings, lambda: True
        ):
            app.include_router(router)
        self.client = HttpClient(app, {"Authorization": f"Bearer {TOKEN}"})

    def invoke(self, *records: dict[str, Any]) -> None:
        reply = self.client.post(INVOKE, json={"dataframe_records": list(records)})
        assert reply.status_code == 200, reply.text

    def told(self, *hidden: str) -> list[RequestsAnswered]:
        return list(self.asked.drain("scorer-0", lambda _: hidden))
