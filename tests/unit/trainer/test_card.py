"""The model card: all sections, nothing from outside, nothing unescaped."""

import json
import re

import pyarrow as pa
import pytest
from driftloop.contracts.events import ServedModel
from driftloop.models.onnx_model import OnnxModel
from driftloop.trainer import package_files
from driftloop.trainer.card import charts
from driftloop.trainer.card.page import to_html
from driftloop.trainer.evaluation import reproducibility

from tests.unit.trainer.test_training import Place

SECTIONS = {
    "model_details", "intended_use", "factors", "metrics", "evaluation_data",
    "training_data", "quantitative_analyses", "ethical_considerations",
    "caveats_and_recommendations",
}  # fmt: skip
"""Of the paper; Mitchell et al. (2019), section 4."""
HOSTILE = "<script>alert(1)</script>"


def files(place: Place, **update) -> dict[str, bytes]:
    request = place.request.model_copy(update=update)
    return package_files.files_of(place.train("card", request))


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_card_has_the_papers_sections_for_every_task(tmp_path, task) -> None:
    found = files(Place(tmp_path, task))
    card = json.loads(found["card.json"])
    assert set(card) >= SECTIONS
    assert card["metrics"]["candidate"] < card["metrics"]["no_skill"]
    assert "hold-out rows from 2011-" in card["quantitative_analyses"]["comparison"]
    assert "No groups of people" in card["ethical_considerations"][0]
    whole = json.loads(found["evaluation.json"])
    assert {"slices", "disturbances", "reliability", "fit", "parity"} <= set(whole)
    page = found["card.html"].decode()
    assert page.count("<svg") >= 5
    assert "What it looks at" in page


def test_a_card_beside_a_champion_says_what_changed(tmp_path) -> None:
    place = Place(tmp_path)
    champion = ServedModel(version=4, package=place.package(place.train("one")))
    page = files(place, champion=champion)["card.html"].decode()
    assert "champion v4" in page
    assert "Both lean on the same features" in page
    assert 'polyline class="champion"' in page


def test_a_page_loads_nothing_and_escapes_what_it_is_given(tmp_path) -> None:
    place = Place(tmp_path, description=HOSTILE, owner=f'"{HOSTILE}')
    page = files(place)["card.html"].decode()
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)\s*=|@import|url\(|https?:", page)


def test_charts_escape_names_and_shorten_them() -> None:
    shown = charts.bars({HOSTILE: {"candidate": 1.0}}, f"a {HOSTILE}")
    assert "<script" not in shown
    assert charts.figure(0.0) == "0"
    flat = charts.lines(["a", "b"], {"candidate": [1.0, 1.0]}, "flat")
    assert "nan" not in flat


def test_a_graph_that_is_fitted_twice_alike_or_not() -> None:
    rows = pa.table({"x": range(3000)})
    seen = []
    same = reproducibility.check(rows, lambda r: seen.append(r.num_rows) or b"graph")
    assert (same.same, same.row_count) == (True, reproducibility.MAX_ROWS)
    assert seen == [reproducibility.MAX_ROWS] * 2
    other = iter([b"one", b"two"])
    assert not reproducibility.check(rows, lambda _: next(other)).same


def test_a_training_is_repeated_where_the_file_asks_for_it(tmp_path) -> None:
    place = Place(tmp_path, gate={"reproducible": True})
    measures = place.train().evaluation.measures
    assert measures.reproducibility.same
    assert 0 < measures.parity.difference <= measures.parity.tolerance
    assert Place(tmp_path / "other").train().evaluation.measures.reproducibility is None


def test_explained_rows_are_the_models_own_answers(tmp_path) -> None:
    place = Place(tmp_path)
    trained = place.train()
    shown = trained.measured.explanation["rows"]
    answers = (
        OnnxModel(trained.chosen.model, list(trained.chosen.inputs))
        .predict(trained.split.holdout)
        .prediction
    )
    assert shown[-1]["answer"] <= answers.max() + 1e-3
    for row in shown:
        total = row["base"] + sum(row["contributions"].values())
        assert total == pytest.approx(row["answer"], abs=1e-3)


def test_features_that_matter_alike_are_in_the_order_of_their_names(tmp_path) -> None:
    """A set's order differs from process to process, and the package with it."""
    card = json.loads(files(Place(tmp_path))["card.json"])
    alike = {f"feature {n}": 0.0 for n in range(9)}
    card["explanation"]["importance"] = {"candidate": alike, "champion": alike}
    shown = to_html(card)
    places = [shown.index(f">{name}<") for name in sorted(alike)]
    assert places == sorted(places)
