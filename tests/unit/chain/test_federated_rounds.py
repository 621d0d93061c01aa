"""Three sites with different weather train one model, and nobody sees a row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.cli.federated.site import update_of
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    DatasetRef,
    FederatedRoundClosed,
    FederatedRoundOpened,
    FederatedUpdateSubmitted,
    FederationRequested,
    PipelineApplied,
    Span,
    TableRef,
)
from driftloop.contracts.federated import FederationRules, encoding_of
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from driftloop.models.federated import answers_of, matrix_of, target_of
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import read_package, write_package
from driftloop.models.samples import check_samples
from driftloop.models.signing import TrustedKeys, generate_key
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import encode
from driftloop.runtime.state import StateView
from driftloop.trainer import handlers, package_files, training
from driftloop.trainer.core import Data
from driftloop.trainer.handlers import Deps
from driftloop.trainer.tables import TABLES, last_job, pipeline_row
from sklearn.linear_model import LogisticRegression
from sqlmodel import Session

RAIN = Path(__file__).parents[3] / "examples/rain"
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
CENTRAL_SHARE = 0.2
ROUNDS = 30
LOCAL = {"learning_rate": 1.0, "batch_rows": 64, "l2": 1e-5}
SITES = ("cold", "mild", "warm")
Poison = Callable[[FederatedUpdateSubmitted], FederatedUpdateSubmitted]


class Weather:
    """Rain: the oldest days are the sites', by temperature; the newest central."""

    def __init__(self) -> None:
        loaded = load_pipeline(RAIN / "pipeline.yaml")
        train = loaded.train.model_copy(update={"candidates": ["linear"]})
        self.spec: PipelineSpec = loaded.model_copy(update={"train": train})
        days = pl.read_csv(RAIN / "days.csv", try_parse_dates=True)
        cut = round(days.height * (1 - CENTRAL_SHARE))
        self.known, self.central = days[:cut].to_arrow(), days[cut:].to_arrow()
        self.encoding = encoding_of(self.spec)
        heat = self.known["temperature"].to_numpy()
        order = np.argsort(heat, kind="stable")
        self.sites = {
            name: self.known.take(pa.array(part))
            for name, part in zip(SITES, np.array_split(order, 3), strict=True)
        }

    def loss(self, weights: Any) -> float:
        """Log loss on the central days."""
        matrix = matrix_of(self.central, self.encoding)
        target, _ = target_of(self.central, self.encoding)
        said = np.clip(answers_of(weights, matrix, self.encoding), 1e-9, 1 - 1e-9)
        return float(-np.mean(np.log(np.where(target == 1, said, 1 - said))))

    def learned_from(self, rows: pa.Table) -> float:
        """The loss of a logistic regression that has all these rows."""
        matrix = matrix_of(rows, self.encoding)
        target, _ = target_of(rows, self.encoding)
        model = LogisticRegression(max_iter=500).fit(matrix, target[:, 0])
        return self.loss([*model.coef_[0], *model.intercept_])


@pytest.fixture(scope="module")
def weather() -> Weather:
    return Weather()


class Trainer:
    """The trainer's handlers in this process; remembers all that was on topics."""

    def __init__(self, folder: Path, weather: Weather) -> None:
        self.folder, self.weather = folder, weather
        self.name = weather.spec.name
        applied = PipelineApplied(
            pipeline=self.name, spec=weather.spec, applied_by="ada"
        )
        self.pipelines = StateView(PipelineApplied, {self.name: applied})
        self.engine = open_database(f"sqlite:///{folder}/trainer.db", TABLES)
        self.store = FolderStore(folder / "artifacts")
        self.told: list[Event] = []
        self._give_central_rows()

    def _give_central_rows(self) -> None:
        rows = self.weather.central.rename_columns({"time": "event_time"})
        times = rows["event_time"].cast(pa.timestamp("us", tz="UTC"))
        place = rows.schema.get_field_index("event_time")
        rows = rows.set_column(place, "event_time", times)
        rows = rows.append_column("source", pa.array(["central"] * rows.num_rows))
        uri = str(self.folder / "table")
        write_deltalake(uri, rows)
        span = Span(start=times[0].as_py(), end=times[-1].as_py())
        dataset = DatasetRef(observations=TableRef(uri=uri, version=0))
        count = rows.num_rows
        with Session(self.engine) as session:
            pipeline_row(session, self.name).set_data(Data(dataset, count, count, span))
            session.commit()

    def handle(self, handler: Any, event: Event, name: str) -> list[Any]:
        self.told.append(event)
        meta = Meta(name, NOW + timedelta(seconds=len(self.told)), "/t", Chain("c"))
        with Session(self.engine) as session:
            deps = Deps(session, self.pipelines, threading.Event(), threading.Event())
            said = list(handler(event.with_meta(meta), deps))
            session.commit()
        self.told += said
        return said

    def run(
        self, sites: dict[str, pa.Table], poison: Poison | None = None, **more: Any
    ) -> list[float]:
        """Let sites take part in all rounds; return the last weights."""
        rules = {
            "rounds": ROUNDS, "site_count": len(sites), "min_sites": len(sites),
            "local": LOCAL,
        } | more  # fmt: skip
        wish = FederationRequested(
            pipeline=self.name, requested_by="ada", reason="together",
            rules=FederationRules.model_validate(rules),
        )  # fmt: skip
        said = self.handle(handlers.on_federation_requested, wish, "wish")
        while isinstance(opened := said[-1], FederatedRoundOpened):
            for site, rows in sites.items():
                update = update_of(opened, site, rows)
                if poison and site == SITES[-1]:
                    update = poison(update)
                said = self.handle(
                    handlers.on_federated_update_submitted,
                    update,
                    f"{site}/{opened.round}",
                )
        last = next(
            e for e in reversed(self.told) if isinstance(e, FederatedRoundClosed)
        )
        assert last.is_last
        return last.weights


@pytest.fixture
def trainer(tmp_path: Path, weather: Weather) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path, weather)
    yield trainer
    trainer.engine.dispose()


def test_together_is_nearly_as_good_as_in_one_place_and_better_than_alone(
    trainer: Trainer, weather: Weather
) -> None:
    together = weather.loss(trainer.run(weather.sites))
    alone = [weather.learned_from(rows) for rows in weather.sites.values()]
    central = weather.learned_from(weather.known)
    assert together < 1.05 * central, (together, central)
    assert together < 0.98 * min(alone), (together, alone)
    no_skill = weather.loss([0.0] * weather.encoding.weight_count)
    assert together < 0.8 * no_skill


def test_the_trimmed_mean_withstands_a_poisoned_site(
    tmp_path: Path, weather: Weather
) -> None:
    """Negative control: the weighted mean does not."""

    def turned(update: FederatedUpdateSubmitted) -> FederatedUpdateSubmitted:
        values = [-20 * value for value in update.update]
        return update.model_copy(update={"update": values, "row_count": 10**6})

    five = {
        name: weather.known.take(pa.array(part))
        for name, part in zip(
            ("a", "b", "c", "d", SITES[-1]),
            np.array_split(np.random.default_rng(0).permutation(len(weather.known)), 5),
            strict=True,
        )
    }
    losses = {}
    for ratio in (0.2, 0.0):
        folder = tmp_path / str(ratio)
        folder.mkdir()
        trainer = Trainer(folder, weather)
        losses[ratio] = weather.loss(trainer.run(five, turned, trim_ratio=ratio))
        trainer.engine.dispose()
    no_skill = weather.loss([0.0] * weather.encoding.weight_count)
    assert losses[0.2] < 0.85 * no_skill, losses
    assert losses[0.0] > no_skill, losses


def test_the_result_is_a_package_like_any_other(
    trainer: Trainer, weather: Weather
) -> None:
    weights = trainer.run(weather.sites)
    with Session(trainer.engine) as session:
        job = last_job(session, trainer.name)
        assert job is not None
        request = job.asked()
    key = generate_key(trainer.folder / "key.pem", trainer.folder / "trusted/key.pem")
    trusted = TrustedKeys.from_folder(trainer.folder / "trusted")
    using = training.Environment(trainer.store, trusted, None, 1, trainer.folder)
    trained = training.train(request, using, lambda *_: None)
    assert trained.evaluation.candidate < 0.95 * trained.evaluation.baseline
    [tried] = trained.tried
    assert (tried.name, tried.detail) == ("federated_linear", "30 rounds, 3 sites")
    files = package_files.files_of(trained)
    manifest = package_files.manifest_of(trained)
    package = read_package(
        write_package(manifest, files, key, trainer.store), trainer.store, trusted
    )
    assert package.manifest.algorithm == "federated_linear"
    assert package.manifest.train_row_count == weather.known.num_rows
    model = OnnxModel.from_package(package)
    check_samples(model, package.manifest.inputs, package.files["samples.json"])
    rows = trained.split.holdout
    expected = answers_of(weights, matrix_of(rows, weather.encoding), weather.encoding)
    said = model.predict(rows).score
    np.testing.assert_allclose(said, expected[:, 0], atol=1e-5)
    assert package_files.files_of(training.train(request, using, lambda *_: None)) == (
        files
    )


MARKERS = ("Zanzibar-patient-7", "31.415926")


def marked(weather: Weather) -> dict[str, pa.Table]:
    """One site's rows with values that are nowhere else."""
    rows = weather.sites["cold"]
    ids = rows["id"].to_pylist()
    heat = rows["temperature"].to_pylist()
    ids[5], heat[5] = MARKERS[0], float(MARKERS[1])
    for name, values in (("id", ids), ("temperature", heat)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, [values])
    return {**weather.sites, "cold": rows}


def found_in(trainer: Trainer) -> list[str]:
    """Which markers are in what was published, or below the trainer's folder."""
    meta = Meta("x", NOW, "/t", Chain("c"))
    held = [encode(event, meta, trainer.store).value for event in trainer.told]
    held += [path.read_bytes() for path in trainer.folder.rglob("*") if path.is_file()]
    return [mark for mark in MARKERS if any(mark.encode() in data for data in held)]


def test_no_row_of_a_site_is_on_a_topic_or_kept(
    trainer: Trainer, weather: Weather
) -> None:
    """Negative control: a site that sends a value is found out."""
    sites = marked(weather)
    trainer.run(sites, rounds=2)
    assert len(trainer.told) > 10
    assert found_in(trainer) == []
    row = sites["cold"].slice(5, 1).to_pylist()[0]
    leak = FederatedUpdateSubmitted(
        pipeline=trainer.name, federation_id=row["id"], round=1, site="cold",
        row_count=1, update=[row["temperature"]],
    )  # fmt: skip
    trainer.handle(handlers.on_federated_update_submitted, leak, "leak")
    assert found_in(trainer) == list(MARKERS)
