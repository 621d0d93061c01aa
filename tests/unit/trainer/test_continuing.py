"""Going on from the champion: each row once, judged on rows it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import ServedModel
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.package import (
    Package,
    PackageRefused,
    read_package,
    write_package,
)
from driftloop.models.signing import TrustedKeys, generate_key
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import (
    continuing,
    encoding_json,
    inheriting,
    package_files,
    training,
)
from driftloop.trainer.candidates import river_state
from driftloop.trainer.continuing import HEADER_FILE, Heritage
from driftloop.trainer.encoding import learn_encoding
from driftloop.trainer.encoding_json import EncodingUnknown
from driftloop.trainer.request import JobRequest
from driftloop.trainer.training import Trained

from tests.unit.trainer.cases import job, quiet, rows, spec

FIRST, SECOND = 300, 500
STATE_FILE = "continue.river.json"


def asked(**train: Any) -> PipelineSpec:
    return spec(
        train={
            "candidates": ["online_linear"], "continue_from_champion": True, **train
        }
    )  # fmt: skip


class Place:
    """A table, a store and a key; trainings on its first rows."""

    def __init__(self, folder: Path, table: pa.Table) -> None:
        self.folder, self.table = folder, table
        write_deltalake(str(folder / "rows"), table)
        self.store = FolderStore(folder / "artifacts")
        self.signer = generate_key(folder / "key", folder / "trusted" / "key.pem")
        self.trusted = TrustedKeys.from_folder(folder / "trusted")

    def request(
        self, count: int, how: PipelineSpec, champion: ServedModel | None = None
    ) -> JobRequest:
        request = job(self.folder / "rows", self.table.slice(0, count), how)
        return request.model_copy(update={"champion": champion})

    def train(self, request: JobRequest, name: str) -> Trained:
        work = self.folder / name
        work.mkdir(exist_ok=True)
        using = training.Environment(self.store, self.trusted, None, 1, work)
        return training.train(request, using, quiet)

    def packed(self, trained: Trained, number: int) -> ServedModel:
        manifest = package_files.manifest_of(trained)
        files = package_files.files_of(trained)
        ref = write_package(manifest, files, self.signer, self.store)
        return ServedModel(version=number, package=ref)

    def package(self, served: ServedModel) -> Package:
        return read_package(served.package, self.store, self.trusted)

    def champion(self, how: PipelineSpec | None = None) -> ServedModel:
        request = self.request(FIRST, how or asked())
        return self.packed(self.train(request, "first"), 1)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, rows(SECOND))


def seen(package: Package) -> float:
    """How many rows the scaler of an ``online_linear`` state has seen."""
    return float(river_state.loaded(package.files[STATE_FILE])["scaler"].counts[0])


def test_each_row_is_learned_once_over_two_trainings(place: Place) -> None:
    first = place.champion()
    before = place.package(first)
    header = json.loads(before.files[HEADER_FILE])
    assert header["algorithm"] == "online_linear"
    assert seen(before) == 192  # of 300: less the hold-out, less validation
    trained = place.train(place.request(SECOND, asked(), first), "second")
    continued, fresh = trained.tried
    assert continued.detail == "continued from version 1"
    assert fresh.detail == ""
    assert trained.is_continued
    assert trained.chosen.parameters["continued_from"] == 1
    after = place.package(place.packed(trained, 2))
    assert after.manifest.continued_from == 1
    assert after.manifest.parent_digest == first.package.digest
    assert seen(after) == 320  # of 500; each of the first 192 was not learned again
    assert before.manifest.continued_from is None


def test_a_continued_model_is_the_one_that_never_stopped(tmp_path: Path) -> None:
    """Without missing values, which a fresh median would fill otherwise."""
    table = rows(SECOND)
    full = table.filter(pa.compute.is_valid(table["a"]))
    classes = pa.array(
        np.where(np.array(full["y"].to_pylist()) > 4, "yes", "no").tolist()
    )
    full = full.set_column(5, "y", classes)
    how = spec(task="binary", train=asked().train.model_dump(mode="json"))
    place = Place(tmp_path, full)
    count = full.num_rows
    first = place.packed(place.train(place.request(250, how), "first"), 1)
    going = place.train(place.request(count, how, first), "going")
    fresh = place.train(place.request(count, how), "fresh")
    assert going.is_continued
    assert scores(going) == scores(fresh)
    # The control: a model of fewer rows says something else.
    assert scores(place.train(place.request(250, how), "less")) != scores(fresh)


def scores(trained: Trained) -> Any:
    said = trained.chosen.loaded().predict(trained.split.holdout.slice(0, 20))
    assert said.score is not None
    return said.score.tolist()


def test_the_same_job_gives_the_same_digest_and_a_request_can_be_made_again(
    place: Place,
) -> None:
    first = place.champion()
    request = place.request(SECOND, asked(), first)
    second = place.packed(place.train(request, "one"), 2)
    assert place.packed(place.train(request, "two"), 2) == second
    assert place.packed(place.train(request, "two"), 2) == second  # from checkpoints
    kept = place.package(second).manifest.request
    assert kept is not None
    again = JobRequest.model_validate_json(kept)
    assert place.packed(place.train(again, "again"), 2) == second
    # The control: without the parent it is another one.
    alone = place.request(SECOND, asked())
    assert place.packed(place.train(alone, "alone"), 2) != second


def test_nothing_is_kept_and_nothing_goes_on_unless_the_file_says_so(
    place: Place,
) -> None:
    first = place.champion()
    plain = asked(continue_from_champion=False)
    trained = place.train(place.request(SECOND, plain, first), "second")
    assert [one.detail for one in trained.tried] == [""]
    assert not trained.state
    assert not trained.is_continued
    assert not any(n.startswith("continue.") for n in package_files.files_of(trained))


def told(place: Place, how: PipelineSpec, first: ServedModel, name: str = "x") -> str:
    trained = place.train(place.request(SECOND, how, first), name)
    assert not trained.is_continued
    found = trained.tried[0]
    assert found.validation_loss is None
    assert trained.tried[1].validation_loss is not None
    return found.detail


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"continue_from_champion": False}, {}, "keeps no state"),
        ({"candidates": ["linear"]}, {}, "keeps no state"),
        (
            {"candidates": ["hoeffding_adaptive_tree"]},
            {},
            "version 1 is hoeffding_adaptive_tree",
        ),
        (
            {},
            {"preprocessing": {"defaults": {"scaling": "standard"}}},
            "version 1: train.preprocessing has changed since",
        ),
        ({}, {"seed": 5}, "another seed"),
    ],
)
def test_why_it_begins_anew_is_said(
    place: Place, first: dict[str, Any], second: dict[str, Any], why: str
) -> None:
    assert why in told(place, asked(**second), place.champion(asked(**first)))


def test_a_state_that_has_seen_what_judges_it_is_not_used(place: Place) -> None:
    """The champion learned up to a later row than this training may."""
    late = place.packed(place.train(place.request(SECOND, asked()), "late"), 1)
    trained = place.train(place.request(FIRST, asked(), late), "x")
    assert not trained.is_continued
    assert "some of which would judge it" in trained.tried[0].detail
    same = place.train(place.request(SECOND, asked(), late), "y")
    assert "no row is newer" in same.tried[0].detail


def test_a_new_category_needs_a_model_from_scratch(tmp_path: Path) -> None:
    table = rows(SECOND)
    kinds = table["kind"].to_pylist()
    kinds[320:] = ["new" if k == "odd" else k for k in kinds[320:]]
    place = Place(tmp_path, table.set_column(4, "kind", pa.array(kinds)))
    assert "kind has had new values, such as 'new'" in told(
        place, asked(), place.champion()
    )


def test_a_scale_that_moves_is_no_obstacle(place: Place) -> None:
    how = asked(preprocessing={"defaults": {"scaling": "standard"}})
    first = place.champion(how)
    trained = place.train(place.request(SECOND, how, first), "x")
    assert trained.is_continued
    header = json.loads(place.package(first).files[HEADER_FILE])
    before = encoding_json.of_json(header["encoding"]).records()
    scale = [step for step in trained.chosen.preprocessing if "scale" in step.step]
    assert scale == [step for step in before if "scale" in step.step]


def test_a_state_that_was_tampered_with_is_refused(place: Place) -> None:
    """First by the signature; by its own form where the signature is right."""
    first = place.champion()
    package = place.package(first)
    files = dict(package.files)
    wrong = json.loads(files[STATE_FILE])
    wrong["objects"][1][0] = "Popen"
    files[STATE_FILE] = json.dumps(wrong).encode()
    signed = write_package(package.manifest, files, place.signer, place.store)
    assert "'Popen'" in told(
        place, asked(), first.model_copy(update={"package": signed})
    )
    stranger = generate_key(place.folder / "s", place.folder / "s.pub")
    theirs = write_package(package.manifest, files, stranger, place.store)
    request = place.request(
        SECOND, asked(), first.model_copy(update={"package": theirs})
    )
    with pytest.raises(PackageRefused):
        place.train(request, "theirs")


def test_a_model_whose_parts_do_not_fit_is_refused(place: Place) -> None:
    first = place.champion()
    package = place.package(first)
    wrong = json.loads(package.files[STATE_FILE])
    at = next(n for n, o in enumerate(wrong["objects"]) if o[0] == "SGD")
    wrong["objects"][at][1] = None
    files = dict(package.files) | {STATE_FILE: json.dumps(wrong).encode()}
    signed = write_package(package.manifest, files, place.signer, place.store)
    served = first.model_copy(update={"package": signed})
    assert "cannot go on from the champion's state" in told(place, asked(), served)


def test_a_header_of_another_form_is_told(place: Place) -> None:
    first = place.champion()
    package = place.package(first)
    files = dict(package.files) | {HEADER_FILE: b'{"form": 2}'}
    signed = write_package(package.manifest, files, place.signer, place.store)
    served = first.model_copy(update={"package": signed})
    assert "of another form" in told(place, asked(), served)


def test_an_encoding_whose_parts_do_not_fit_is_refused(place: Place) -> None:
    how = asked(preprocessing={"defaults": {"scaling": "standard"}})
    first = place.champion(how)
    package = place.package(first)
    header = json.loads(package.files[HEADER_FILE])
    two = {"type": "float32", "shape": [2], "values": [0.0, 1.0]}
    header["encoding"]["blocks"][0]["steps"][0]["fields"]["centre"] = two
    header["encoding"]["blocks"][0]["steps"][0]["fields"]["width"] = {
        "type": "float32", "shape": [3], "values": [1.0, 1.0, 1.0]
    }  # fmt: skip
    files = dict(package.files) | {HEADER_FILE: json.dumps(header).encode()}
    signed = write_package(package.manifest, files, place.signer, place.store)
    served = first.model_copy(update={"package": signed})
    assert "its encoding is not whole" in told(place, how, served)


def test_only_longer_windows_and_late_folds_go_on(place: Place) -> None:
    first = place.champion()
    how = asked(windows=["all", 10], validation={"folds": 3})
    trained = place.train(place.request(SECOND, how, first), "x")
    assert [one.detail for one in trained.tried] == [
        "continued from version 1", "", "newest 10.0 days",
    ]  # fmt: skip


def test_a_state_that_is_too_big_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(river_state, "SIZE_LIMIT_BYTES", 100)
    trained = place.train(place.request(FIRST, asked()), "first")
    assert "its state is not kept: it has 0 MiB" in trained.tried[0].detail
    assert not trained.state


def test_who_serves_does_not_fetch_it(place: Place) -> None:
    first = place.champion()
    served = read_package(first.package, place.store, place.trusted, is_served=True)
    assert HEADER_FILE in served.manifest.files
    assert not any(name.startswith("continue.") for name in served.files)


def heritage(at_end: int) -> Heritage:
    table = rows(50)
    header = continuing.Header(
        algorithm="online_linear", task="regression", target="y", classes=[],
        preprocessing={}, sequences={}, learned_until=table["event_time"][20].as_py(),
        learned_at_end=at_end, state_file=STATE_FILE, encoding={},
    )  # fmt: skip
    return Heritage(1, header)


def test_rows_of_the_same_time_are_counted() -> None:
    """Three rows at the end of what was learned, two of which had been learned."""
    table = rows(50)
    times = table["event_time"].to_pylist()
    times[19] = times[21] = times[20]
    table = table.set_column(1, "event_time", pa.array(times, table["event_time"].type))
    assert heritage(2).start(table["event_time"]).first == 21
    assert heritage(3).start(table["event_time"]).first == 22
    assert heritage(1).start(rows(50)["event_time"]).first == 21
    cut = table.slice(0, 20)  # one of the three
    assert "would judge it" in (heritage(2).obstacle("online_linear", cut) or "")
    assert "no row is newer" in (heritage(1).obstacle("online_linear", cut) or "")
    assert heritage(2).obstacle("online_linear", table) is None


PREPROCESSING: list[dict[str, Any]] = [
    {},
    {"scaling": "robust", "missing": "median", "outliers": "clip"},
    {"transform": "yeo_johnson", "indicator": True},
    {"transform": "quantile", "missing": "most_frequent"},
    {"transform": "log1p", "encoding": "ordinal"},
    {"encoding": "hashing", "indicator": True},
]


@pytest.mark.parametrize("section", PREPROCESSING)
def test_an_encoding_comes_back_whole(section: dict[str, Any]) -> None:
    table, how = rows(300), asked(preprocessing={"defaults": section})
    truth = np.array(table["y"].to_pylist()).reshape(-1, 1)
    encoding, _ = learn_encoding(table, how, truth)
    content = json.loads(json.dumps(encoding_json.as_json(encoding), allow_nan=False))
    again = encoding_json.of_json(content)
    other = rows(200, seed=4)
    assert np.array_equal(again.matrix(other), encoding.matrix(other), equal_nan=True)
    assert again.records() == encoding.records()
    assert again.inputs == encoding.inputs
    assert inheriting.difference(again, encoding) is None
    # The control: of other columns.
    less, _ = learn_encoding(table, replace_features(how), truth)
    assert inheriting.difference(again, less) is not None


def replace_features(how: PipelineSpec) -> PipelineSpec:
    only = how.data.model_copy(update={"features": {"a": how.data.features["a"]}})
    return how.model_copy(update={"data": only})


@pytest.mark.parametrize("section", [{}, {"missing": "median", "indicator": True}])
def test_an_encoding_of_moments_comes_back_whole(section: dict[str, Any]) -> None:
    table = rows(300)
    moments = pc.if_else(
        pa.array(np.arange(300) % 7 == 0), None, table["event_time"].combine_chunks()
    )
    table = table.append_column("seen", moments)
    how = spec(
        data={"features": {"seen": {"type": "datetime", "nullable": True}}},
        train={"preprocessing": {"defaults": section}},
    )
    encoding, _ = learn_encoding(table, how, np.zeros((300, 1)))
    content = json.loads(json.dumps(encoding_json.as_json(encoding), allow_nan=False))
    again = encoding_json.of_json(content)
    assert np.array_equal(again.matrix(table), encoding.matrix(table), equal_nan=True)
    assert again.records() == encoding.records()


@pytest.mark.parametrize(
    "change",
    [
        {"step": "Popen", "fields": {}},
        {"step": "OneHot", "fields": {"more": 1}},
        {"step": "Clip", "fields": {"low": {"type": "object", "values": []}}},
        {},
    ],
)
def test_a_step_that_is_none_is_refused(change: dict[str, Any]) -> None:
    table = rows(100)
    truth = np.array(table["y"].to_pylist()).reshape(-1, 1)
    encoding, _ = learn_encoding(table, asked(), truth)
    content = encoding_json.as_json(encoding)
    content["blocks"][1]["steps"] = [change]
    with pytest.raises(EncodingUnknown):
        encoding_json.of_json(content)


def test_target_encoding_is_not_gone_on_with(place: Place) -> None:
    how = asked(preprocessing={"defaults": {"encoding": "target"}})
    trained = place.train(place.request(FIRST, how), "first")
    assert "target encoding is learned anew each time" in trained.tried[0].detail
    assert not trained.state
