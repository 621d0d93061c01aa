"""The requests in docs/serving.md get answers."""

import re
from pathlib import Path

import pytest
from driftloop.runtime.http import http_app
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Served, Shelf

from tests.unit.scorer.packages import Factory
from tests.unit.support import HttpClient

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
REQUEST = re.compile(r"<!-- POST (\S+) -->\n```json\n(.*?)```", re.DOTALL)
REQUESTS = REQUEST.findall(PAGE.read_text("utf-8"))


def test_the_page_has_a_request_for_each_protocol() -> None:
    assert [path.rsplit("/", 1)[1] for path, _ in REQUESTS] == ["infer", "invocations"]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_request_of_the_page(tmp_path: Path, path: str, body: str) -> None:
    shelf = Shelf()
    loaded = Factory(tmp_path).loaded(1, pipeline="shirts")
    shelf.show("shirts", Served(1, loaded, is_settled=True))
    settings = ScorerSettings.model_validate({"api_token": "t"})
    app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
    for router in routers(Desk(shelf, Traffic()), settings, lambda: True):
        app.include_router(router)
    client = HttpClient(app, {"Authorization": "Bearer t"})
    headers = {"content-type": "application/json"}
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-driftloop-model-version"] == "1"
    assert "[11.0,2.0]" in answer.text
