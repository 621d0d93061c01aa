"""Real rows in which one thing changes at a known moment: the matrix's streams.

The examples' days (rain: weeks) are drawn without replacement and put in a new order,
so that rows, and what depends on what within them, are real while nothing changes by
itself: each difference between the first and the second half of a stream is the one
that was put in. One stretch of them is what the champion learned.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, Evaluation, TableRef, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.signing import TrustedKeys, generate_key
from driftloop.monitor.turn import Packaged
from driftloop.runtime.artifacts import FolderStore
from driftloop.trainer import core, package_files, training
from driftloop.trainer.core import Span
from driftloop.trainer.request import JobRequest
from driftloop.trainer.training import Environment

from tests.bench.examples import load_example

START = datetime(2013, 1, 1, tzinfo=UTC)
SOURCES = ("north", "east", "south")
STRENGTHS = ("weak", "moderate", "strong")
RUSH_HOURS = (7, 8, 17, 18, 19)
RUSH_DAYS = 24
"""Their error differs much from block to block: a rise takes longer to stand out."""
YEAR_DAYS, HARD_DAYS, HARD_FROM = 15, 5, 0.65
"""Days of the stream in a year that has a hard season, those of this season, and from
which quantile of :func:`_unusual` a day is hard."""
Desks = Literal["none", "thirds", "rush"]
Floats = npt.NDArray[np.float64]
Dice = np.random.Generator
Expected = Literal[
    "none", "not_enough_data", "sensor_fault", "schema_change", "seasonality",
    "population_shift", "concept_drift", "label_fault", "traffic_mix",
]  # fmt: skip


@dataclass(frozen=True)
class World:
    """One example as a pool of days.

    Attributes
    ----------
    days : each a table of rows in order.
    learned_days, before_days, after_days : of a stream.
    step : event time of a day of the stream.
    sensors : number columns that may break.
    covariate : by whose rows the population shifts.
    """

    name: str
    spec: PipelineSpec
    days: tuple[pd.DataFrame, ...]
    learned_days: int
    before_days: int
    after_days: int
    step: timedelta
    sensors: tuple[str, ...]
    covariate: str

    @property
    def target(self) -> str:
        return self.spec.data.target


def bike() -> World:
    """Hours of 2012's warmer half, two days at a time."""
    example = load_example("bike-demand")
    said = example.spec.model_dump(mode="json")
    features = said["data"]["features"]
    for name in ("hum", "windspeed"):
        features[name]["nullable"] = True
    features["sky"] = {"type": "category"}
    # Days of all months are beside each other here, so that the calendar would tell one
    # stretch from another where nothing else does; in a real stream it stands still.
    del features["weathersit"], features["month"], features["season"]
    spec = PipelineSpec.model_validate(said)
    rows = example.rows.to_pandas()
    rows["sky"] = rows["weathersit"].map({1: "clear", 2: "mist", 3: "wet", 4: "wet"})
    rows = rows.drop(columns=["weathersit", "month", "season"])
    rows = rows[(rows.event_time >= "2012-03-15") & (rows.event_time < "2012-11-15")]
    days = [day for _, day in rows.groupby(rows.event_time.dt.date) if len(day) == 24]
    return World(
        "bike-demand", spec, _joined(days, 2), 60, 16, 10, timedelta(days=2),
        ("temp", "hum", "windspeed"), "temp",
    )  # fmt: skip


def rain() -> World:
    """Runs of 52 days of the years from 1955 on: each a block."""
    example = load_example("rain")
    said = example.spec.model_dump(mode="json")
    said["train"]["candidates"] = ["gradient_boosting"]
    said["data"]["features"]["visibility"]["nullable"] = True
    said["checks"] = []
    spec = PipelineSpec.model_validate(said)
    rows = example.rows.to_pandas()
    rows = rows[rows.event_time >= "1955-01-01"].reset_index(drop=True)
    runs = [rows.iloc[at : at + 52] for at in range(0, len(rows) - 52, 52)]
    return World(
        "rain", spec, tuple(runs), 75, 28, 18, timedelta(days=52),
        ("dew_point", "max_temperature", "visibility"), "temperature",
    )  # fmt: skip


def _joined(days: list[pd.DataFrame], size: int) -> tuple[pd.DataFrame, ...]:
    """Return neighbouring days as one."""
    return tuple(
        pd.concat(days[at : at + size]) for at in range(0, len(days) - size + 1, size)
    )


@dataclass(frozen=True)
class Learned:
    """A champion: what answers, and what the monitor knows of it."""

    packaged: Packaged
    model: OnnxModel
    classes: tuple[str, ...]


def learn(world: World, rows: pd.DataFrame, folder: Path) -> Learned:
    """Train a real champion on rows, with driftloop's own training."""
    folder.mkdir(parents=True)
    signer = generate_key(folder / "key", folder / "key.pub")
    trusted = TrustedKeys.from_pems([signer.public_pem])
    using = Environment(FolderStore(folder / "artifacts"), trusted, None, 1, folder)
    write_deltalake(
        str(folder / "rows"), pa.Table.from_pandas(rows, preserve_index=False)
    )
    train = world.spec.train.model_copy(update={"window_days": None})
    spec = world.spec.model_copy(update={"train": train})
    span = Span(start=rows.event_time.iloc[0], end=rows.event_time.iloc[-1])
    train_span, holdout_span = core.plan(span, spec.train)
    request = JobRequest(
        job_id="job", spec=spec, train_span=train_span, holdout_span=holdout_span,
        trigger=Trigger(event_id="e", event_type="dataset-versioned", reason="first"),
        dataset=DatasetRef(
            observations=TableRef(uri=str(folder / "rows"), version=0)
        ),
    )  # fmt: skip
    trained = training.train(request, using, lambda *_: None)
    sample = pa.ipc.open_stream(package_files.reference(trained)).read_all()
    evaluation: Evaluation = trained.evaluation
    return Learned(
        Packaged(evaluation, sample), trained.chosen.loaded(), trained.chosen.classes
    )


@dataclass(frozen=True)
class Stream:
    """Days that come one after the other; from ``onset`` on, something is changed.

    Attributes
    ----------
    sent : columns as upstream sends them; observations without the target.
    labels : id, event_time, source and target, as labellers send them.
    """

    world: World
    learned: Learned
    days: tuple[pd.DataFrame, ...]
    sent: tuple[pd.DataFrame, ...]
    labels: tuple[pd.DataFrame, ...]
    onset: int
    key: str


Change = Callable[["Draft"], None]


@dataclass
class Draft:
    """A stream being changed in place, from ``onset`` on.

    ``sent`` and ``labels`` are those days' rows; strength 0 to 2.
    """

    world: World
    dice: Dice
    strength: int
    before: pd.DataFrame
    sent: list[pd.DataFrame]
    labels: list[pd.DataFrame]

    def pick(self, *of_strength: float) -> float:
        return of_strength[self.strength]

    def sensor(self, *, nullable: bool | None = None) -> str:
        names = [
            name
            for name in self.world.sensors
            if nullable is None
            or self.world.spec.data.features[name].nullable is nullable
        ]
        return str(self.dice.choice(names))


# ── what may change ─────────────────────────────────────────────────────────


def _decimals(values: pd.Series) -> int:
    text = values.dropna().map(lambda x: f"{x:.4f}".rstrip("0"))
    return int(text.str.split(".").str[1].str.len().max())


def _on_sensor(draft: Draft, make: Callable[[Floats], Any], *, one: bool) -> None:
    """Let a sensor, of one source or of all, give other values, as finely rounded."""
    name = draft.sensor()
    decimals = _decimals(draft.before[name])
    source = str(draft.dice.choice(SOURCES))
    for day in draft.sent:
        hit = (day.source == source).to_numpy() if one else np.ones(len(day), bool)
        values = day[name].to_numpy(dtype=np.float64, copy=True)
        values[hit] = np.round(make(values[hit]), decimals)
        day[name] = values


def _spread(draft: Draft, name: str) -> float:
    return float(draft.before[name].quantile(0.75) - draft.before[name].quantile(0.25))


def stuck(draft: Draft) -> None:
    name = draft.sensor()
    value = float(draft.before[name].quantile(draft.pick(0.5, 0.5, 0.98)))
    source = str(draft.dice.choice(SOURCES))
    for day in draft.sent:
        hit = (day.source == source) if draft.strength == 0 else day.source != ""
        day.loc[hit, name] = (
            draft.before[name]
            .dropna()
            .iloc[(draft.before[name].dropna() - value).abs().argmin()]
        )


def scaled(draft: Draft) -> None:
    factor = draft.pick(1.15, 1.5, 3.0)
    if draft.dice.random() < 0.5:
        factor = 1 / factor
    _on_sensor(draft, lambda x: x * factor, one=False)


def shifted(draft: Draft) -> None:
    _shift(draft, draft.pick(0.5, 1.0, 2.0), one=False)


def shifted_one_source(draft: Draft) -> None:
    _shift(draft, draft.pick(0.75, 1.5, 3.0), one=True)


def _shift(draft: Draft, spreads: float, *, one: bool) -> None:
    sign = -1 if draft.dice.random() < 0.5 else 1
    name = draft.sensor()
    only = replace(draft.world, sensors=(name,))
    draft.world, whole = only, draft.world
    _on_sensor(draft, lambda x: x + sign * spreads * _spread(draft, name), one=one)
    draft.world = whole


def nulls(draft: Draft) -> None:
    name, share = draft.sensor(), draft.pick(0.1, 0.4, 0.8)
    for day in draft.sent:
        day.loc[draft.dice.random(len(day)) < share, name] = np.nan


def nulls_one_source(draft: Draft) -> None:
    name, share = draft.sensor(nullable=True), draft.pick(0.2, 0.6, 1.0)
    source = str(draft.dice.choice(SOURCES))
    for day in draft.sent:
        hit = (draft.dice.random(len(day)) < share) & (day.source == source)
        day.loc[hit, name] = np.nan


def renamed(draft: Draft) -> None:
    name = draft.sensor(nullable=draft.strength < 2)
    which = [str(draft.dice.choice(SOURCES))] if draft.strength == 0 else SOURCES
    for at, day in enumerate(draft.sent):
        moved = day.copy()
        moved[f"{name}_new"] = moved[name]
        moved.loc[moved.source.isin(which), name] = np.nan
        if draft.strength:
            moved = moved.drop(columns=[name])
        draft.sent[at] = moved


def removed(draft: Draft) -> None:
    name = draft.sensor(nullable=draft.strength < 2)
    for at, day in enumerate(draft.sent):
        if draft.strength == 0:
            draft.sent[at].loc[day.source == SOURCES[0], name] = np.nan
        else:
            draft.sent[at] = day.drop(columns=[name])


def retyped(draft: Draft) -> None:
    """Numbers arrive as texts with a unit."""
    name = draft.sensor()
    count = int(draft.pick(1, 2, 3))
    for day in draft.sent:
        hit = day.source.isin(SOURCES[:count])
        texts = day[name].map(lambda x: f"{x} u").where(hit, day[name].astype(str))
        day[name] = texts


def recoded(draft: Draft) -> None:
    """A category's values get other names; of numbers, codes count from 0."""
    if draft.world.name != "bike-demand":
        retyped(draft)
        return
    count = int(draft.pick(1, 3, 3))
    for day in draft.sent:
        hit = day.source.isin(SOURCES[:count])
        day.loc[hit, "sky"] = day.loc[hit, "sky"].str.upper()


def added(draft: Draft) -> None:
    for day in draft.sent:
        day["extra_sensor"] = draft.dice.normal(size=len(day))


def _rank(draft: Draft, name: str, values: pd.Series) -> Floats:
    known = np.sort(draft.before[name].dropna().to_numpy())
    return np.searchsorted(known, values.to_numpy()) / len(known)


def _relation(draft: Draft, name: str, at: int, share: float) -> None:
    """Let the target depend on a column as it did not before."""
    labels, rows = draft.labels[at], draft.sent[at]
    rank = _rank(draft, name, rows[name])
    target = draft.world.target
    if draft.world.spec.task == "regression":
        factor = 1 + share * (2 * rank - 1)
        labels[target] = np.round(labels[target].to_numpy() * factor)
    else:
        new = np.where(rank > 0.6, "wet", "dry")
        hit = draft.dice.random(len(labels)) < share
        labels[target] = np.where(hit, new, labels[target])


def concept_abrupt(draft: Draft) -> None:
    name, share = draft.sensor(), draft.pick(0.3, 0.7, 1.0)
    for at in range(len(draft.sent)):
        _relation(draft, name, at, share)


def concept_gradual(draft: Draft) -> None:
    name, share = draft.sensor(), draft.pick(0.3, 0.7, 1.0)
    for at in range(len(draft.sent)):
        _relation(draft, name, at, share * min(1.0, at / (len(draft.sent) / 2)))


def concept_level(draft: Draft) -> None:
    """All is more (it rains in drier air) than it was, for the same inputs."""
    factor = draft.pick(1.3, 1.6, 2.2)
    target = draft.world.target
    for at, labels in enumerate(draft.labels):
        if draft.world.spec.task == "regression":
            labels[target] = np.round(labels[target] * factor)
        else:
            rows = draft.sent[at]
            damp = (rows["dew_point"] - rows["temperature"]).to_numpy()
            usual = draft.before["dew_point"] - draft.before["temperature"]
            is_damp = damp > np.quantile(usual, draft.pick(0.6, 0.45, 0.3))
            labels.loc[is_damp, target] = "wet"


def concept_hours(draft: Draft) -> None:
    """The day begins later: demand of an hour is that of some hours before."""
    hours = int(draft.pick(1, 3, 6))
    for labels in draft.labels:
        target = draft.world.target
        labels[target] = np.roll(labels[target].to_numpy(), hours)


def labels_shuffled(draft: Draft) -> None:
    share = draft.pick(0.3, 0.7, 1.0)
    for labels in draft.labels:
        hit = np.flatnonzero(draft.dice.random(len(labels)) < share)
        values = labels[draft.world.target].to_numpy(copy=True)
        values[hit] = values[draft.dice.permutation(hit)]
        labels[draft.world.target] = values


def labels_constant(draft: Draft) -> None:
    target = draft.world.target
    values = draft.before[target]
    one = values.median() if draft.world.spec.task == "regression" else values.mode()[0]
    count = int(draft.pick(1, 2, 3))
    for labels in draft.labels:
        labels.loc[labels.source.isin(SOURCES[:count]), target] = one


def labels_scaled(draft: Draft) -> None:
    """One labeller writes another unit; of classes: the other class."""
    factor, target = draft.pick(1.4, 2.5, 10.0), draft.world.target
    for labels in draft.labels:
        hit = labels.source == SOURCES[1]
        if draft.world.spec.task == "regression":
            labels.loc[hit, target] = np.round(labels.loc[hit, target] * factor)
        else:
            _flip(draft, labels, hit.to_numpy(), draft.pick(0.3, 0.7, 1.0))


def labels_flipped(draft: Draft) -> None:
    share = draft.pick(0.3, 0.7, 1.0)
    for labels in draft.labels:
        if draft.world.spec.task == "regression":
            values = labels[draft.world.target].to_numpy()
            turned = draft.before[draft.world.target].max() - values
            hit = draft.dice.random(len(labels)) < share
            labels[draft.world.target] = np.where(hit, turned, values)
        else:
            _flip(draft, labels, np.ones(len(labels), bool), share)


def _flip(draft: Draft, labels: pd.DataFrame, hit: Any, share: float) -> None:
    hit = hit & (draft.dice.random(len(labels)) < share)
    other = labels[draft.world.target].map({"wet": "dry", "dry": "wet"})
    labels[draft.world.target] = labels[draft.world.target].where(~hit, other)


def labels_missing(draft: Draft) -> None:
    share = draft.pick(0.5, 0.9, 1.0)
    for at, labels in enumerate(draft.labels):
        draft.labels[at] = labels[draft.dice.random(len(labels)) >= share]


def nothing(_: Draft) -> None:
    pass


Days = Literal["same", "region", "seen", "weekends", "mix", "rush", "season", "hard"]


@dataclass(frozen=True)
class Case:
    """A cause and the way in which it comes.

    Attributes
    ----------
    also : verdicts that are as right: nothing to see, for what harms nothing.
    days : which days follow the onset: ``same`` as before, those of a ``region`` that
        the champion has not seen, ``seen`` ones of a covariate's end, ``weekends`` that
        it has not seen, another ``mix`` of sources (each a third of the day; ``rush``:
        one has the busiest hours), a ``season``, or the ``hard`` one of years
        that the champion has learned.
    """

    cause: Expected
    kind: str
    change: Change = nothing
    also: tuple[Expected, ...] = ()
    days: Days = "same"
    worlds: tuple[str, ...] = ("bike-demand", "rain")


CASES: tuple[Case, ...] = (
    Case("none", "nothing"),
    Case("none", "column added", added),
    Case("sensor_fault", "stuck", stuck),
    Case("sensor_fault", "scaled", scaled),
    Case("sensor_fault", "shifted", shifted),
    Case("sensor_fault", "shifted, one source", shifted_one_source),
    Case("sensor_fault", "nulls", nulls),
    Case("sensor_fault", "nulls, one source", nulls_one_source),
    Case("schema_change", "renamed", renamed),
    Case("schema_change", "removed", removed),
    Case("schema_change", "retyped", retyped),
    Case("schema_change", "recoded", recoded, worlds=("bike-demand",)),
    Case(
        "seasonality", "known season", days="season", also=("none",), worlds=("rain",)
    ),
    Case("population_shift", "unseen region", days="region"),
    Case("population_shift", "seen region", days="seen", also=("none",)),
    Case(
        "population_shift", "unseen weekends", days="weekends", worlds=("bike-demand",)
    ),
    Case("concept_drift", "abrupt", concept_abrupt),
    Case("concept_drift", "gradual", concept_gradual),
    Case("concept_drift", "level", concept_level),
    Case("concept_drift", "hours", concept_hours, worlds=("bike-demand",)),
    Case("label_fault", "shuffled", labels_shuffled),
    Case("label_fault", "constant", labels_constant),
    Case("label_fault", "one labeller", labels_scaled),
    Case("label_fault", "flipped", labels_flipped),
    Case("label_fault", "missing", labels_missing),
    Case("traffic_mix", "sources", days="mix", also=("none",), worlds=("bike-demand",)),
    Case("traffic_mix", "busy source", days="rush", worlds=("bike-demand",)),
    Case("seasonality", "hard months", days="hard", worlds=("bike-demand",)),
)


# ── drawing ─────────────────────────────────────────────────────────────────


class Drawn:
    """Streams of one world and seed; champions are trained once."""

    def __init__(self, world: World, seed: int, folder: Path) -> None:
        self._world, self._seed, self._folder = world, seed, folder
        self._learned: dict[str, Learned] = {}

    def stream(self, case: Case, strength: int) -> Stream:
        """Return a stream; ``onset`` counts its days."""
        world = _yearly(self._world) if case.days == "hard" else self._world
        dice = np.random.default_rng([self._seed, strength, _number(case.kind)])
        same = np.random.default_rng([self._seed, 2])
        learned, pool = self._days(case.days)
        desks: Desks = "none"
        if case.days == "mix" or (case.kind == "nothing" and strength == 0):
            desks = "thirds"
        elif case.days == "rush":
            desks = "rush"
        before = [
            _placed(world, pool.pop(), number, same, desks)
            for number in range(world.before_days)
        ]
        dice.shuffle(pool)
        after = self._after(case, strength, pool, dice)
        days = before + [
            _placed(world, day, world.before_days + number, dice, desks)
            for number, day in enumerate(after)
        ]
        if case.days in ("mix", "rush"):
            days = _mixed(days, world.before_days, strength, dice)
        onset = world.before_days
        labels = [
            day[["id", "event_time", "source", world.target]].copy() for day in days
        ]
        sent = [day.drop(columns=[world.target]) for day in days]
        draft = Draft(
            world, dice, strength, pd.concat(days[:onset]),
            [day.copy() for day in sent[onset:]], labels[onset:],
        )  # fmt: skip
        case.change(draft)
        return Stream(
            world, learned, tuple(days), (*sent[:onset], *draft.sent),
            (*labels[:onset], *draft.labels), onset,
            f"{world.name}-{self._seed}-{_champion_of(case.days)}-{desks}",
        )  # fmt: skip

    def _days(self, how: Days) -> tuple[Learned, list[pd.DataFrame]]:
        """Return the champion, and days that it has not learned from."""
        world = self._world
        dice = np.random.default_rng([self._seed, 1])
        order = list(dice.permutation(len(world.days)))
        key = _champion_of(how)
        if key == "region":  # the upper end of the covariate is not known yet
            means = self._means(world.covariate)
            order = [at for at in order if means[at] <= np.quantile(means, 0.6)]
        elif key == "workdays":
            order = [at for at in order if self._means("workingday")[at] == 1]
        count = min(world.learned_days, len(order) * 6 // 10)
        if key == "years":
            order = self._in_years(order, count)
            world = _yearly(world)
        if key not in self._learned:
            first = [
                _placed(world, world.days[at], number - count, dice, "none")
                for number, at in enumerate(order[:count])
            ]
            folder = self._folder / f"{world.name}-{self._seed}-{key}"
            self._learned[key] = learn(
                world, pd.concat(first).drop(columns=["source"]), folder
            )
        return self._learned[key], [world.days[at] for at in order[count:]]

    def _means(self, column: str) -> Floats:
        return np.array([day[column].mean() for day in self._world.days])

    def _in_years(self, order: list[Any], count: int) -> list[Any]:
        """Return days so that each year has a season of hard ones.

        The stream's first days follow some weeks after the last hard ones learned.
        """
        found = _unusual(self._world)
        limit = np.quantile(found, HARD_FROM)
        hard = [at for at in order if found[at] > limit]
        easy = [at for at in order if found[at] <= limit]
        learned = [
            (hard if _is_hard(number - count) else easy).pop(0)
            for number in range(count)
        ]
        return [*learned, *hard, *easy]

    def _after(
        self, case: Case, strength: int, pool: list[pd.DataFrame], dice: Dice
    ) -> list[pd.DataFrame]:
        world, count = self._world, self._world.after_days
        if case.days in ("same", "mix", "rush"):
            count = RUSH_DAYS if case.days == "rush" else count
            return [pool.pop() for _ in range(count)]
        share = (0.4, 0.75, 1.0)[strength]
        means = self._means(world.covariate)
        if case.days == "hard":  # none of which the champion has learned
            found = _unusual(world)
            limit = np.quantile(found, HARD_FROM)
            there = {id(d) for d, u in zip(world.days, found, strict=True) if u > limit}
            hard = [d for d in pool if id(d) in there]
            easy = [d for d in pool if id(d) not in there]
            return [
                (hard if dice.random() < share else easy).pop()
                for _ in range(HARD_DAYS)
            ]
        if case.days == "region":
            chosen = np.flatnonzero(means > np.quantile(means, 0.6))
        elif case.days == "weekends":
            chosen = np.flatnonzero(self._means("workingday") == 0)
        elif case.days == "seen":
            low = dice.random() < 0.5
            chosen = np.flatnonzero(
                means < np.quantile(means, 0.3) if low
                else means > np.quantile(means, 0.7)
            )  # fmt: skip
        else:
            chosen = np.flatnonzero(means < np.quantile(means, 0.25))
        there = dice.permutation(chosen)
        return [
            world.days[there[at % len(there)]] if dice.random() < share else pool.pop()
            for at in range(count)
        ]


def _champion_of(how: Days) -> str:
    """Return which champion a stream's days are answered by."""
    others = {"region": "region", "weekends": "workdays", "hard": "years"}
    return others.get(how, "all")


def _yearly(world: World) -> World:
    """Return the world with so long steps that its days make whole years."""
    said = world.spec.model_dump(mode="json")
    said["data"]["label_horizon_days"] = 365.0
    return replace(
        world, spec=PipelineSpec.model_validate(said),
        step=timedelta(days=365.25) / YEAR_DAYS, before_days=YEAR_DAYS - HARD_DAYS - 3,
    )  # fmt: skip


def _unusual(world: World) -> Floats:
    """Return of each day how far its target is from what is usual at its hours."""
    rows = pd.concat(world.days)
    usual = rows.groupby(["workingday", "hour"])[world.target].mean()
    rows["off"] = np.abs(
        rows[world.target].to_numpy()
        - usual.loc[pd.MultiIndex.from_frame(rows[["workingday", "hour"]])].to_numpy()
    )
    day = np.repeat(np.arange(len(world.days)), [len(day) for day in world.days])
    return np.asarray(rows["off"].groupby(day).mean())


def _is_hard(number: int) -> bool:
    """Whether a day of the stream, or of the years before it, is of the hard season."""
    return (number - (YEAR_DAYS - HARD_DAYS - 3)) % YEAR_DAYS < HARD_DAYS


def _number(text: str) -> int:
    return sum(ord(letter) * 31**at for at, letter in enumerate(text)) % 2**31


def _placed(
    world: World, day: pd.DataFrame, number: int, dice: Dice, desks: Desks
) -> pd.DataFrame:
    """Return a day's rows at their place in the stream, with their sources."""
    rows = day.drop(columns=["source"]).reset_index(drop=True)
    start = START + number * world.step
    each = world.step / len(rows)
    rows["event_time"] = pd.to_datetime(
        [start + at * each for at in range(len(rows))], utc=True
    ).astype("datetime64[us, UTC]")
    rows["id"] = [f"{number}-{at}" for at in range(len(rows))]
    if desks == "thirds":
        thirds = np.arange(len(rows)) * 3 // len(rows)
        rows["source"] = np.array(SOURCES)[thirds]
    elif desks == "rush":  # to work and back: the largest errors
        others = np.resize(SOURCES[:2], len(rows))
        rows["source"] = np.where(rows["hour"].isin(RUSH_HOURS), SOURCES[2], others)
    else:
        rows["source"] = dice.permuted(np.resize(SOURCES, len(rows)))
    return rows


def _mixed(
    days: list[pd.DataFrame], onset: int, strength: int, dice: Dice
) -> list[pd.DataFrame]:
    """Let the source with the hardest hours send most of the rows."""
    share = (0.5, 0.7, 0.9)[strength]
    weight = {"north": (1 - share) / 2, "east": (1 - share) / 2, "south": share}
    mixed = []
    for number, day in enumerate(days):
        if number >= onset:
            counts = day.source.value_counts()
            w = day.source.map({s: weight[s] / counts[s] for s in counts.index})
            w = w.to_numpy(dtype=np.float64)
            at = np.sort(dice.choice(len(day), len(day), p=w / w.sum()))
            drawn = day.iloc[at].reset_index(drop=True)
            for name in ("event_time", "id"):
                drawn[name] = day[name].to_numpy()
            times = pd.to_datetime(drawn["event_time"], utc=True)
            drawn["event_time"] = times.astype("datetime64[us, UTC]")
            mixed.append(drawn)
        else:
            mixed.append(day)
    return mixed


def streams(
    world: World,
    seeds: Iterable[int],
    folder: Path,
    causes: Collection[str] = (),
    strengths: Iterable[int] = range(len(STRENGTHS)),
) -> Iterator[tuple[Case, int, int, Stream]]:
    """Yield case, strength, seed and stream of a whole matrix.

    Parameters
    ----------
    causes : whose cases; empty: all.
    """
    for seed in seeds:
        drawn = Drawn(world, seed, folder)
        for case in CASES:
            if world.name not in case.worlds or (causes and case.cause not in causes):
                continue
            for strength in strengths:
                yield case, strength, seed, drawn.stream(case, strength)
