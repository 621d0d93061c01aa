"""Which rows a model learns from, and models together: chosen on validation alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import blending, choosing, fitting, package_files, training
from driftloop.trainer.blending import Shares
from driftloop.trainer.losses import Floats
from driftloop.trainer.recipes import Recipe

from tests.unit.trainer.cases import START, drift, job, quiet, rows, spec

COUNT, CHANGED_AT = 1000, 400
"""Hours, of which training gets the first 800 and validation their newest 160."""
BOTH = ["linear", "gradient_boosting"]


def changing(slope_of: Any, seed: int = 0) -> pa.Table:
    """Hourly rows whose slope depends on the hour."""
    draw = np.random.default_rng(seed)
    a = draw.normal(size=COUNT)
    hours = np.arange(COUNT)
    y = slope_of(hours) * a + draw.normal(scale=0.3, size=COUNT)
    table = rows(COUNT).set_column(3, "a", pa.array(a))
    return table.set_column(5, "y", pa.array(y))


def flips(hours: Any) -> Any:
    return np.where(hours < CHANGED_AT, -3.0, 3.0)


def turns(hours: Any) -> Any:
    return 3.0 * np.cos(hours / 250)


def stays(hours: Any) -> Any:
    return np.full(len(hours), 3.0)


def train(
    folder: Path, table: pa.Table, since: datetime | None = None, **settings: Any
) -> training.Trained:
    how = spec(train={"candidates": ["linear"], **settings})
    if not (folder / "table").exists():
        write_deltalake(str(folder / "table"), table)
    request = job(folder / "table", table, how)
    trigger = request.trigger.model_copy(update={"since": since})
    (folder / "work").mkdir(exist_ok=True)
    using = training.Environment(
        FolderStore(folder / "artifacts"), TrustedKeys([]), None, 1, folder / "work"
    )
    return training.train(request.model_copy(update={"trigger": trigger}), using, quiet)


def losses(trained: training.Trained) -> dict[str, float | None]:
    return {f"{t.name}: {t.detail}": t.validation_loss for t in trained.tried}


# ── windows and weights ─────────────────────────────────────────────────────


def test_after_a_change_the_rows_since_then_win(tmp_path: Path) -> None:
    since = START + timedelta(hours=CHANGED_AT)
    windows = ["all", "since_drift"]
    trained = train(tmp_path, changing(flips), since, windows=windows)
    assert trained.chosen.parameters["window"] == "since_drift"
    assert trained.chosen.row_count == 800 - CHANGED_AT
    assert len(losses(trained)) == 2
    assert trained.evaluation.candidate < 0.5 * trained.evaluation.baseline
    manifest = package_files.manifest_of(trained)
    assert manifest.parameters["window"] == "since_drift"
    assert "rows since 2011-01-17 16:00" in manifest.tried[1].detail
    with pa.ipc.open_stream(package_files.reference(trained)) as reader:
        reference = reader.read_all()  # what the monitor compares with
    assert min(reference["event_time"].to_pylist()) == since


def test_where_nothing_changed_all_rows_win(tmp_path: Path) -> None:
    """The control: the verdict's start is a guess, validation decides."""
    since = START + timedelta(hours=560)
    windows = ["all", "since_drift"]
    trained = train(tmp_path, changing(stays), since, windows=windows)
    assert "window" not in trained.chosen.parameters
    assert trained.chosen.row_count == 800


@pytest.mark.parametrize(
    ("since", "why"),
    [
        (None, "no drift is the reason"),
        (START + timedelta(hours=600), "40 rows, at least 100"),
    ],
)
def test_a_window_that_cannot_be_tried_says_why(
    since: datetime | None, why: str, tmp_path: Path
) -> None:
    trained = train(tmp_path, changing(stays), since, windows=["since_drift", "all"])
    assert why in trained.tried[0].detail
    assert trained.tried[0].validation_loss is None
    assert trained.chosen.row_count == 800


def test_the_newest_days_are_counted_back_from_the_newest_row(tmp_path: Path) -> None:
    trained = train(tmp_path, changing(flips), windows=["all", 10])
    assert trained.chosen.parameters["window"] == 10
    assert trained.chosen.row_count == 241  # ten days of hours, both ends


@pytest.mark.parametrize(("slope", "expected"), [(turns, 2), (stays, None)])
@pytest.mark.parametrize("name", ["linear", "gradient_boosting", "random_forest"])
def test_newer_rows_count_more_where_the_world_turns(
    slope: Any, expected: float | None, name: str, tmp_path: Path
) -> None:
    trained = train(
        tmp_path,
        changing(slope),
        candidates=[name],
        recency_half_life_days=[None, 2],
    )
    assert trained.chosen.parameters.get("recency_half_life_days") == expected


def test_weights_halve_and_have_a_mean_of_one() -> None:
    weights = Recipe("linear", half_life_days=1).weights(rows(49))
    assert weights is not None
    assert weights.mean() == pytest.approx(1)
    assert weights[48] / weights[24] == pytest.approx(2)
    assert Recipe("linear").weights(rows(49)) is None


def test_a_drift_verdict_names_the_start_of_the_change() -> None:
    from driftloop.trainer import core
    from driftloop.trainer.facts import Start, State

    from tests.unit.trainer.cases import data

    state = State(data=data(), champion_version=1)
    started = core.after_drift(drift(), "d", state, spec())
    assert isinstance(started, Start)
    assert started.trigger.since == drift().since


# ── ensembles ───────────────────────────────────────────────────────────────


def wavy(count: int = 1200, task: str = "regression") -> pa.Table:
    """A line for ``big``, a wave on it for ``small``: each suits another candidate."""
    draw = np.random.default_rng(3)
    a = draw.uniform(-3, 3, count)
    kind = draw.choice(["big", "small"], count)
    truth = 20 * a + np.where(kind == "big", 0, 20 * np.cos(4 * a))
    y: Any = truth + draw.normal(scale=0.5, size=count)
    if task != "regression":
        cut = [-8, 8] if task == "multiclass" else [0]
        y = np.array(["a", "b", "c"])[np.digitize(y, cut)]
    table = rows(count).set_column(3, "a", pa.array(a))
    table = table.set_column(4, "kind", pa.array(kind.tolist()))
    return table.set_column(5, "y", pa.array(y.tolist()))


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
@pytest.mark.parametrize("kind", ["average", "stacking", "experts"])
def test_a_blend_answers_as_its_members_do(kind: Any, task: str) -> None:
    how, table = spec(task=task), wavy(400, task)
    members = [fitting.fit(name, table, how, 1) for name in BOTH]
    weights = {
        "average": Shares(np.array([[0.5, 0.5]])),
        "stacking": Shares(np.array([[0.2, 0.8]])),
        "experts": Shares(np.array([[0.0, 1.0], [1.0, 0.0]]), "kind", ("big",)),
    }[kind]
    recipes = tuple(Recipe(name) for name in BOTH)
    blend = choosing.Choice(recipes, kind, weights).of(members, table)
    said = [blending.answers(member, table) for member in members]
    pairs = zip(weights.of(table).T, said, strict=True)
    expected = sum(weight[:, None] * answer for weight, answer in pairs)
    assert blending.answers(blend, table) == pytest.approx(expected, abs=1e-3)
    again = choosing.Choice(recipes, kind, weights).of(members, table)
    assert again.model == blend.model
    strange = pa.RecordBatch.from_pydict({"a": [None, 1.0], "kind": ["new", None]})
    assert blend.loaded().predict(strange).non_finite_count() == 0


def test_a_blend_that_answers_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = wavy(400)
    members = [fitting.fit(name, table, spec(), 1) for name in BOTH]
    choice = choosing.Choice(
        tuple(map(Recipe, BOTH)), "stacking", Shares(np.array([[0.2, 0.8]]))
    )
    monkeypatch.setattr(
        blending, "_graph", lambda parts, *_: parts[0].model
    )  # one member alone
    with pytest.raises(choosing.CandidateRefused, match="differs"):
        choice.of(members, table)


def test_experts_give_each_value_its_best(tmp_path: Path) -> None:
    trained = train(
        tmp_path,
        wavy(),
        candidates=BOTH,
        ensembles=["average", "experts"],
    )
    found = losses(trained)
    assert trained.chosen.name == "experts"
    assert found["experts: by kind"] < min(
        loss for name, loss in found.items() if name != "experts: by kind"
    )
    parameters = trained.chosen.parameters
    assert parameters["column"] == "kind"
    assert [m["name"] for m in parameters["members"]] != []
    assert parameters["values"] == ["", "big", "small"]
    # Twice the same files, the second time from the checkpoints.
    first = package_files.files_of(trained)
    again = train(tmp_path, wavy(), candidates=BOTH, ensembles=["average", "experts"])
    assert package_files.files_of(again) == first


def test_a_blend_needs_two_that_can_be_used(tmp_path: Path) -> None:
    trained = train(tmp_path, changing(stays), ensembles=["average", "stacking"])
    assert trained.chosen.name == "linear"
    assert ["two candidates" in t.detail for t in trained.tried[1:]] == [True, True]


def test_selection_gives_weight_to_what_helps() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=500)
    ours = [truth + draw.normal(scale=s, size=500) for s in (1.0, 1.0, 9.0)]
    members: list[Floats] = [one.reshape(-1, 1) for one in ours]

    def loss(answer: Floats) -> Floats:
        return (answer[:, 0] - truth) ** 2

    shares = blending.selected_shares(members, loss)
    assert shares.weights.sum() == pytest.approx(1)
    assert shares.weights[0, 2] <= 0.05
    assert 0.3 < shares.weights[0, 0] < 0.7
    mixed = sum(w * m for w, m in zip(shares.weights[0], members, strict=True))
    assert loss(np.asarray(mixed)).mean() < 0.7 * min(loss(m).mean() for m in members)
    # The control: one that is right takes all.
    alone = blending.selected_shares([truth.reshape(-1, 1), *members], loss)
    assert alone.weights.tolist() == [[1.0, 0.0, 0.0, 0.0]]


# ── a job that is begun again ───────────────────────────────────────────────


def test_a_killed_job_goes_on_at_the_recipe_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "candidates": BOTH, "windows": ["all", 20], "ensembles": ["stacking"],
    }  # fmt: skip
    (tmp_path / "whole").mkdir()
    whole = train(tmp_path / "whole", wavy(), **settings)
    real, done = fitting.fit, []

    def until_killed(*args: Any, **options: Any) -> fitting.Fitted:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args[0])
        return real(*args, **options)

    monkeypatch.setattr(fitting, "fit", until_killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, wavy(), **settings)
    begun = len(done)
    done.clear()

    def counted(*args: Any, **options: Any) -> fitting.Fitted:
        done.append(args[0])
        return real(*args, **options)

    monkeypatch.setattr(fitting, "fit", counted)
    again = train(tmp_path, wavy(), **settings)
    assert begun == 3
    assert len(done) < 7  # of four trials and at most two members: three were there
    assert again.chosen.model == whole.chosen.model
    assert losses(again) == losses(whole)
