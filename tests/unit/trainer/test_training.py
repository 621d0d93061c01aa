"""From rows to a package: split by time, judged on what training never saw."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import ServedModel, Span, TableRef
from driftloop.contracts.pipeline import DataSection
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import PackageRefused, read_package, write_package
from driftloop.models.samples import check_samples
from driftloop.models.signing import TrustedKeys, generate_key
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.errors import Retry
from driftloop.trainer import core, package_files, training
from driftloop.trainer.dataset import read_rows
from driftloop.trainer.training import TrainingRefused

from tests.unit.trainer.cases import START, job, quiet, rows, spec


class Place:
    """A table, a store and a key."""

    def __init__(self, folder, task: str = "regression", **sections) -> None:
        self.folder, self.uri = folder, folder / "observations"
        self.table = rows(500, task=task)
        write_deltalake(str(self.uri), self.table)
        self.store = FolderStore(folder / "artifacts")
        self.signer = generate_key(folder / "key.pem", folder / "trusted" / "key.pem")
        self.trusted = TrustedKeys.from_folder(folder / "trusted")
        self.request = job(self.uri, self.table, spec(task=task, **sections))

    def environment(self, name: str = "work") -> training.Environment:
        work = self.folder / name
        work.mkdir(exist_ok=True)
        return training.Environment(self.store, self.trusted, None, 1, work)

    def train(self, name: str = "work", request=None) -> training.Trained:
        return training.train(request or self.request, self.environment(name), quiet)

    def package(self, trained):
        return write_package(
            package_files.manifest_of(trained),
            package_files.files_of(trained),
            self.signer,
            self.store,
        )


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path, train={"candidates": ["gradient_boosting", "linear"]})


def test_the_best_on_validation_is_chosen_and_beats_no_skill(place) -> None:
    trained = place.train()
    assert trained.chosen.name == "linear"  # the truth is a straight line
    losses = {result.name: result.validation_loss for result in trained.tried}
    assert losses["linear"] < losses["gradient_boosting"]
    found = trained.evaluation
    assert found.candidate < 0.3 * found.baseline
    assert found.champion is None
    assert found.comparison.mean_difference == pytest.approx(
        found.candidate - found.baseline
    )


def test_parts_are_in_order_of_time_and_share_no_row(place) -> None:
    split = place.train().split
    ends = [
        (min(part["event_time"].to_pylist()), max(part["event_time"].to_pylist()))
        for part in (split.fitting, split.validation, split.holdout)
    ]
    assert ends[0][1] < ends[1][0] <= ends[1][1] < ends[2][0]
    assert ends[1][1] <= place.request.train_span.end
    assert split.training.num_rows + split.holdout.num_rows == 500


def test_training_cannot_touch_the_holdout(place, tmp_path) -> None:
    """Other targets in the hold-out change the evaluation and not the model."""
    before = place.train()
    cut = place.request.train_span.end
    y = [
        value + 1000 if time > cut else value
        for value, time in zip(
            place.table["y"].to_pylist(),
            place.table["event_time"].to_pylist(),
            strict=True,
        )
    ]
    changed = place.table.set_column(5, "y", pa.array(y))
    write_deltalake(str(tmp_path / "other"), changed)
    after = place.train("again", job(tmp_path / "other", changed, place.request.spec))
    assert after.chosen.model == before.chosen.model
    assert after.evaluation.candidate > before.evaluation.candidate + 900


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_the_same_request_gives_the_same_digest(task, tmp_path) -> None:
    place = Place(tmp_path, task, train={"candidates": ["gradient_boosting"]})
    first = place.package(place.train("one"))
    assert place.package(place.train("two")) == first
    assert place.package(place.train("one")) == first  # from its checkpoints
    package = read_package(first, place.store, place.trusted)
    model = OnnxModel.from_package(package)
    check_samples(model, package.manifest.inputs, package.files["samples.json"])
    with pa.ipc.open_stream(package.files["reference.arrow"]) as reader:
        reference = reader.read_all()
    assert {"a", "kind", "y", "prediction"} <= set(reference.column_names)
    assert reference.num_rows == package.manifest.train_row_count
    assert "which training never saw" in package.files["card.html"].decode()


def test_another_seed_is_another_package(place) -> None:
    first = place.package(place.train("one"))
    other = job(place.uri, place.table, spec(
        train={"candidates": ["linear"], "seed": 1})
    )  # fmt: skip
    assert place.package(place.train("two", other)).digest != first.digest


def test_the_champion_is_measured_on_the_same_rows(place) -> None:
    first = place.train("one")
    champion = ServedModel(version=7, package=place.package(first))
    request = place.request.model_copy(update={"champion": champion})
    found = place.train("two", request).evaluation
    assert found.champion_version == 7
    assert found.champion == pytest.approx(first.evaluation.candidate)
    assert found.comparison.mean_difference == pytest.approx(0.0)
    manifest = package_files.manifest_of(place.train("two", request))
    assert manifest.parent_digest == champion.package.digest


def test_a_champion_of_other_features_is_left_out(place) -> None:
    champion = ServedModel(version=1, package=place.package(place.train("one")))
    renamed = place.table.rename_columns(["id", "event_time", "source", "b", "k", "y"])
    uri = place.folder / "renamed"
    write_deltalake(str(uri), renamed)
    fresh = spec(data={"features": {"b": {"nullable": True}}})
    request = job(uri, renamed, fresh).model_copy(update={"champion": champion})
    found = place.train("two", request).evaluation
    assert found.champion is None
    assert found.champion_version == 1
    assert found.comparison.mean_difference == pytest.approx(
        found.candidate - found.baseline
    )


def test_a_champion_signed_by_a_stranger_is_refused(place, tmp_path) -> None:
    stranger = generate_key(tmp_path / "s.pem", tmp_path / "elsewhere" / "s.pem")
    trained = place.train("one")
    package = write_package(
        package_files.manifest_of(trained),
        package_files.files_of(trained),
        stranger,
        place.store,
    )
    champion = ServedModel(version=1, package=package)
    with pytest.raises(PackageRefused, match="not trusted"):
        place.train("two", place.request.model_copy(update={"champion": champion}))


def test_too_few_rows_are_refused_with_the_remedy(tmp_path) -> None:
    place = Place(tmp_path, train={"min_rows": 501})
    with pytest.raises(TrainingRefused, match="500 labelled rows.*window_days"):
        place.train()


def test_a_holdout_of_a_few_rows_is_refused(tmp_path) -> None:
    place = Place(tmp_path, train={"holdout_ratio": 0.01})
    with pytest.raises(TrainingRefused, match="hold-out has 5"):
        place.train()


def test_no_usable_candidate_is_refused(tmp_path) -> None:
    place = Place(tmp_path, "binary")
    one_class = place.table.set_column(5, "y", pa.array(["no"] * 500))
    write_deltalake(str(tmp_path / "one"), one_class)
    with pytest.raises(TrainingRefused, match=r"linear: .*needs two"):
        place.train("two", job(tmp_path / "one", one_class, place.request.spec))


DATA = DataSection(target="y")

# ── reading ─────────────────────────────────────────────────────────────────


def with_labels(place: Place, folder) -> training.JobRequest:
    """The table without targets; half of them as labels, some corrected."""
    bare = place.table.set_column(5, "y", pa.nulls(500, pa.float64()))
    write_deltalake(str(folder / "bare"), bare)
    ids = [f"r{i:05d}" for i in range(250)]
    labels = pa.table(
        {
            "id": [*ids, "r00003"],
            "event_time": pa.array([START] * 251, pa.timestamp("us", tz="UTC")),
            "source": ["test"] * 251,
            "y": [*range(250), 77.0],
            "revision": [*[0] * 250, 1],
        }
    )
    write_deltalake(str(folder / "labels"), labels)
    return job(folder / "bare", bare, place.request.spec)


def test_labels_that_came_later_are_joined_in_their_newest_revision(
    place, tmp_path
) -> None:
    request = with_labels(place, tmp_path)
    refs = request.dataset.model_copy(
        update={"labels": TableRef(uri=str(tmp_path / "labels"), version=0)}
    )
    span = request.train_span
    found, _ = read_rows(refs, span, DATA, None)
    expected = np.arange(250.0)
    expected[3] = 77.0
    assert found["y"].to_pylist() == expected.tolist()
    assert found["id"].to_pylist()[0] == "r00000"


def test_labels_that_come_long_after_their_rows_move_the_split(place, tmp_path) -> None:
    """The policy saw labels of a much later time than the rows they belong to."""
    request = with_labels(place, tmp_path)
    later = {"start": START + timedelta(days=90), "end": START + timedelta(days=120)}
    train_span, holdout_span = core.plan(Span(**later), request.spec.train)
    request = request.model_copy(
        update={
            "train_span": train_span,
            "holdout_span": holdout_span,
            "dataset": request.dataset.model_copy(
                update={"labels": TableRef(uri=str(tmp_path / "labels"), version=0)}
            ),
        }
    )
    trained = place.train("two", request)
    assert trained.request.holdout_span.end == START + timedelta(hours=249)
    assert trained.split.holdout.num_rows == 50
    assert package_files.manifest_of(trained).train_span == trained.request.train_span


def test_a_label_of_a_time_beyond_the_horizon_is_as_if_it_had_not_come(
    place, tmp_path
) -> None:
    """Also a correction: then the label in time holds."""
    request = with_labels(place, tmp_path)
    day = timedelta(days=1)
    labels = pa.table(
        {
            "id": ["r00000", "r00001", "r00001", "r00002"],
            "event_time": pa.array(
                [START, START + day, START + 40 * day, START + 40 * day],
                pa.timestamp("us", tz="UTC"),
            ),
            "source": ["test"] * 4,
            "y": [0.0, 1.0, 11.0, 2.0],
            "revision": [0, 0, 1, 0],
        }
    )
    write_deltalake(str(tmp_path / "late"), labels)
    refs = request.dataset.model_copy(
        update={"labels": TableRef(uri=str(tmp_path / "late"), version=0)}
    )
    short = DATA.model_copy(update={"label_horizon_days": 30})
    found = {
        data.label_horizon_days: read_rows(refs, request.train_span, data, None)[0][
            "y"
        ].to_pylist()
        for data in (short, DATA)
    }
    assert found == {30: [0.0, 1.0], 90: [0.0, 11.0, 2.0]}


def test_rows_without_a_target_are_left_out(place, tmp_path) -> None:
    request = with_labels(place, tmp_path)
    found, _ = read_rows(request.dataset, request.train_span, DATA, None)
    assert found.num_rows == 0


def test_only_the_recorded_version_and_span_are_read(place) -> None:
    write_deltalake(str(place.uri), rows(10, seed=5), mode="append")
    span = place.request.train_span.model_copy(
        update={"end": START + timedelta(hours=9)}
    )
    found, _ = read_rows(place.request.dataset, span, DATA, None)
    assert found.num_rows == 10
    assert len(set(found["id"].to_pylist())) == 10


def test_a_table_that_is_away_is_waited_for(place, tmp_path) -> None:
    request = job(tmp_path / "nowhere", place.table, place.request.spec)
    with pytest.raises(Retry, match="nowhere"):
        place.train("two", request)
