"""The requests in docs/serving.md get answers."""

import json
import re
from pathlib import Path

import pytest
from driftloop.runtime.http import http_app
from driftloop.scorer.answering import Desk, Traffic
from driftloop.scorer.api import routers
from driftloop.scorer.explaining.pool import Explaining
from driftloop.scorer.explaining.wish import Times
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Served, Shelf

from tests.unit.scorer.door import open_doors
from tests.unit.scorer.packages import SAMPLES, Factory
from tests.unit.support import HttpClient

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
REQUEST = re.compile(r"<!-- POST (\S+) -->\n```json\n(.*?)```", re.DOTALL)
REQUESTS = REQUEST.findall(PAGE.read_text("utf-8"))
(TOLD,) = re.findall(
    r"```json\n(\{\n  \"unit\".*?)```", PAGE.read_text("utf-8"), re.DOTALL
)
EXAMPLE = json.loads(TOLD)
EXPLAINED = EXAMPLE["rows"][0]


def test_the_page_has_a_request_for_each_protocol() -> None:
    assert [path.rsplit("/", 1)[1] for path, _ in REQUESTS] == [
        "infer", "invocations", "invocations",
    ]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_request_of_the_page(tmp_path: Path, path: str, body: str) -> None:
    shelf = Shelf()
    loaded = Factory(tmp_path).loaded(1, pipeline="shirts", reference=SAMPLES)
    shelf.show("shirts", Served(1, loaded, is_settled=True))
    settings = ScorerSettings.model_validate({"api_token": "t"})
    app = http_app("scorer", settings, lambda: {"live": True, "ready": True})
    explaining = Explaining(1, 1, Times(60_000, 60_000))
    desk = Desk(shelf, Traffic(), None, explaining)
    open_doors(app, routers(desk, settings, lambda: True))
    client = HttpClient(app, {"Authorization": "Bearer t"})
    headers = {"content-type": "application/json"}
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-driftloop-model-version"] == "1"
    assert "[11.0,2.0]" in answer.text
    if "explain" in body:
        rows = answer.json()["explanations"]["rows"]
        assert rows[0].keys() == EXPLAINED.keys()
        assert rows[0]["contributions"].keys() == EXPLAINED["contributions"].keys()
    explaining.close()


def test_the_explanation_of_the_page_sums_up() -> None:
    """Rows of the example are what an answer would be."""
    for row in EXAMPLE["rows"]:
        assert row["base"] + sum(row["contributions"].values()) == pytest.approx(
            row["answer"]
        )
