"""The served model learns the hold-out after it was judged, and nobody is fooled."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, ServedModel, Span, TableRef
from driftloop.models.package import read_package
from driftloop.trainer import core, package_files, refitting
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.request import JobRequest
from driftloop.trainer.training import Trained, TrainingRefused

from tests.unit.trainer.cases import START, job, rows, spec
from tests.unit.trainer.test_training import Place

HOUR = timedelta(hours=1)
REFIT = {"candidates": ["linear"], "refit": True}


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path, train=REFIT)


def judged_only(place: Place) -> Trained:
    how = spec(train=REFIT | {"refit": False})
    return place.train("judged", job(place.uri, place.table, how))


def test_the_served_model_has_learned_all_rows(place) -> None:
    before, trained = judged_only(place), place.train()
    manifest = package_files.manifest_of(trained)
    assert trained.chosen.row_count == manifest.train_row_count == 500
    assert manifest.learned_span == Span(start=START, end=START + 499 * HOUR)
    assert manifest.train_span == before.request.train_span
    assert trained.chosen.model != before.chosen.model
    assert trained.learned.num_rows == 500
    told = manifest.model_dump(mode="json")
    assert "learned_span" in told
    assert "learned_span" not in package_files.manifest_of(before).model_dump()


def test_an_input_says_between_what_it_was_learned(place) -> None:
    """Of the rows that what is served has learned, and of no others."""
    for trained in (judged_only(place), place.train()):
        inputs = package_files.manifest_of(trained).inputs
        for column in inputs:
            values = trained.learned.column(column.name)
            if column.type in {"number", "integer"}:
                found = pc.min_max(values.cast(pa.float32())).as_py()
                assert (column.least, column.greatest) == (found["min"], found["max"])
            else:
                assert "least" not in column.model_dump()
        assert {c.type for c in inputs} > {"number"}


def test_what_the_holdout_said_is_said_of_the_model_that_had_not_learned_it(
    place,
) -> None:
    before, after = judged_only(place).evaluation, place.train().evaluation
    refit = after.measures.refit
    assert before.measures.refit is None
    assert refit.row_count == 500
    assert after.candidate == before.candidate
    unchanged = {"measures"}
    assert after.model_dump(exclude=unchanged) == before.model_dump(exclude=unchanged)
    assert refit.loss < after.candidate  # it knows these rows now
    assert refit.mean_difference == pytest.approx(
        refit.loss - after.candidate, abs=1e-6
    )


def test_the_same_request_gives_the_same_package(place) -> None:
    first = place.package(place.train("one"))
    assert place.package(place.train("two")) == first
    assert place.package(place.train("one")) == first  # from its checkpoints
    package = read_package(first, place.store, place.trusted)
    with pa.ipc.open_stream(package.files["reference.arrow"]) as reader:
        assert reader.read_all().num_rows == 500
    with pa.ipc.open_stream(package.files["holdout.arrow"]) as reader:
        held = reader.read_all()
    errors = np.abs(held["y"].to_numpy() - held["prediction"].to_numpy())
    evaluation = package.manifest.evaluation  # said by the model that had not seen them
    assert held.num_rows == evaluation.holdout_row_count
    assert errors.mean() == pytest.approx(evaluation.candidate, rel=1e-5)
    assert "fitted once more" in package.files["card.html"].decode()


def grown(place: Place, hours: int) -> JobRequest:
    """A request some hours later, with the first model as champion."""
    champion = ServedModel(version=1, package=place.package(place.train("first")))
    table = rows(500 + hours)
    uri = place.folder / f"grown{hours}"
    write_deltalake(str(uri), table)
    return job(uri, table, place.request.spec).model_copy(
        update={"champion": champion, "dataset": dataset_of(uri)}
    )


def dataset_of(uri) -> DatasetRef:
    return DatasetRef(observations=TableRef(uri=str(uri), version=0))


def test_a_champion_is_judged_on_rows_that_it_has_not_learned(place) -> None:
    request = grown(place, refitting.MIN_FAIR_ROWS)
    assert request.train_span.end < START + 499 * HOUR  # the plan's cut
    trained = place.train("second", request)
    holdout = trained.split.holdout["event_time"]
    assert trained.evaluation.champion_knows_rows == 0
    assert trained.evaluation.holdout_row_count == refitting.MIN_FAIR_ROWS
    assert pc.min(holdout).as_py() == START + 500 * HOUR
    assert trained.split.training.num_rows == 500  # the candidate learned them too
    manifest = package_files.manifest_of(trained)
    assert manifest.train_span.end == START + 499 * HOUR
    assert manifest.holdout_span.start == START + 500 * HOUR


def test_where_too_few_rows_are_new_the_champion_is_favoured_and_it_is_said(
    place,
) -> None:
    request = grown(place, refitting.MIN_FAIR_ROWS - 1)
    trained = place.train("second", request)
    assert trained.request.train_span == request.train_span
    known = trained.evaluation.champion_knows_rows
    assert known == trained.split.holdout.num_rows - (refitting.MIN_FAIR_ROWS - 1) > 0


def test_a_champion_that_was_served_as_judged_changes_nothing(place) -> None:
    champion = ServedModel(version=1, package=place.package(judged_only(place)))
    request = place.request.model_copy(update={"champion": champion})
    trained = place.train("second", request)
    assert trained.request.train_span == request.train_span
    assert trained.evaluation.champion_knows_rows == 0


def test_a_refit_without_numbers_is_refused_in_words(place, monkeypatch) -> None:
    def broken(*_: object) -> object:
        raise CandidateRefused("its answers on the hold-out are not finite")

    monkeypatch.setattr(refitting, "refitted", broken)
    with pytest.raises(TrainingRefused, match=r"train\.refit.*not finite"):
        place.train()


def test_the_holdout_is_at_most_so_many_days_long() -> None:
    labelled = Span(start=START, end=START + timedelta(days=100))
    long = core.plan(labelled, spec(train={"holdout_ratio": 0.2}).train)
    short = core.plan(labelled, spec(train={"holdout_days": 5}).train)
    same = core.plan(labelled, spec(train={"holdout_days": 50}).train)
    assert long[0].end == same[0].end == START + timedelta(days=80)
    assert short[0].end == START + timedelta(days=95)
    assert np.isclose((short[1].end - short[1].start) / timedelta(days=1), 5)
