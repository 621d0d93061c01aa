"""Good packages are loaded and reported; bad ones are a verdict, never a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import (
    PackageRef,
    ServedModel,
    ServingDesired,
    VersionReport,
)
from driftloop.models import trial
from driftloop.models.package import Package, PackageRefused, read_package
from driftloop.models.signing import Signer, TrustedKeys
from driftloop.models.trial import Trial, TrialFailed
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Retry
from driftloop.scorer import loader
from driftloop.scorer.explaining.explainer import Explainer, Unexplained
from driftloop.scorer.loader import Loader, OpenModel, model_opener
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Shelf
from driftloop.scorer.tables import ScorerTried

from tests.unit.scorer import packages
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.support import wait_until

TRIAL_S, TRIAL_BYTES = 6, 8 * 2**30
META = Meta("e", packages.MONTH.start, "/driftloop/deployer", Chain("c"))


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def open_model(factory: Factory) -> Iterator[OpenModel]:
    settings = ScorerSettings(home=factory.home, trial_timeout_seconds=60)
    url = f"sqlite:///{factory.home}/scorer.db"
    engine = open_database(url, [ScorerTried])
    yield model_opener(factory.store, settings, engine)
    engine.dispose()


def test_a_trial_that_was_passed_is_not_repeated(
    factory: Factory, open_model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart loads the versions in service without delay; others are tried."""
    known = ServedModel(version=1, package=factory.package(50.0))
    open_model(NAME, known)

    def fail(*_: object) -> None:
        raise TrialFailed("tried")

    monkeypatch.setattr(loader, "try_model", fail)
    assert open_model(NAME, known).version == 1
    with pytest.raises(TrialFailed):
        open_model(NAME, ServedModel(version=2, package=factory.package(51.0)))


@pytest.mark.parametrize("patience", [1, trial.PATIENCE])
def test_a_machine_that_is_busy_says_nothing_about_a_model(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    """A child without its turn for longer than its time passes all the same."""
    monkeypatch.setattr(trial, "PATIENCE", patience)
    package = read(factory, factory.package(1.0))
    with closing(Trial(TRIAL_S, TRIAL_BYTES)) as slow:
        child = slow._child
        child.send_signal(signal.SIGSTOP)
        turn = threading.Timer(TRIAL_S + 1, child.send_signal, [signal.SIGCONT])
        turn.start()
        started = time.monotonic()
        if patience == 1:
            with pytest.raises(TrialFailed, match="took longer than 6 s"):
                slow.run(package)
        else:
            assert slow.run(package).p50_ms > 0
            assert time.monotonic() - started > TRIAL_S
        turn.join()


def test_the_time_for_which_a_child_has_no_processor_is_not_counted(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the test before shows, the child here would fail without that."""
    monkeypatch.setattr(trial, "PATIENCE", 1)
    began = time.monotonic()
    monkeypatch.setattr(trial, "waited_s", lambda _: time.monotonic() - began)
    package = read(factory, factory.package(1.0))
    with closing(Trial(TRIAL_S, TRIAL_BYTES)) as slow:
        child = slow._child
        child.send_signal(signal.SIGSTOP)
        turn = threading.Timer(TRIAL_S + 1, child.send_signal, [signal.SIGCONT])
        turn.start()
        assert slow.run(package).p50_ms > 0
        turn.join()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux says so")
def test_a_process_that_another_one_keeps_from_running_has_waited() -> None:
    busy = "import time; time.sleep(0.01)\nwhile True: pass"
    place = {min(os.sched_getaffinity(0))}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", busy],
            preexec_fn=lambda: os.sched_setaffinity(0, place),  # noqa: PLW1509 - no locks
        )
        for _ in range(2)
    ]
    try:
        wait_until(lambda: all(trial.waited_s(child.pid) > 0.1 for child in children))
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert trial.waited_s(2**22 + 1) == 0  # there is no such process


def test_a_model_that_takes_too_much_processor_time_fails(factory: Factory) -> None:
    endless = factory.package(extra=packages.multiplying(2000, times=2000))
    with (
        closing(Trial(TRIAL_S, TRIAL_BYTES)) as slow,
        pytest.raises(TrialFailed, match="more than 6 s of processor time"),
    ):
        slow.run(read(factory, endless))


def read(factory: Factory, ref: PackageRef) -> Package:
    trusted = TrustedKeys.from_folder(factory.home / "keys" / "trusted")
    return read_package(ref, factory.store, trusted)


def desired(
    generation: int,
    champion: tuple[int, PackageRef] | None,
    candidate: tuple[int, PackageRef] | None = None,
    share: float = 0.0,
) -> ServingDesired:
    def model(pair: tuple[int, PackageRef] | None) -> ServedModel | None:
        return ServedModel(version=pair[0], package=pair[1]) if pair else None

    return ServingDesired(
        pipeline=NAME,
        generation=generation,
        champion=model(champion),
        candidate=model(candidate),
        candidate_share=share,
    ).with_meta(META)


def test_a_good_package_is_opened(factory: Factory, open_model: OpenModel) -> None:
    loaded = open_model(NAME, ServedModel(version=1, package=factory.package(1.0)))
    assert loaded.answer(packages.SAMPLES).prediction.to_pylist() == [12.0, 3.0]
    assert loaded.pace.seconds(1) > 0


def test_a_version_explains_by_the_rows_of_its_package(
    factory: Factory, open_model: OpenModel
) -> None:
    """One without such rows serves all the same."""
    package = factory.package(1.0, reference=packages.SAMPLES)
    explainer = open_model(NAME, ServedModel(version=1, package=package)).explainer
    assert isinstance(explainer, Explainer)
    assert explainer.background.outputs.tolist() == [[12.0], [3.0]]
    assert explainer.pace > 0
    bare = open_model(NAME, ServedModel(version=2, package=factory.package(1.0)))
    assert isinstance(bare.explainer, Unexplained)


def test_a_classifier_is_opened(factory: Factory, open_model: OpenModel) -> None:
    package = factory.package(-5.0, is_binary=True)
    said = open_model(NAME, ServedModel(version=1, package=package)).answer(
        packages.SAMPLES
    )
    assert said.prediction.to_pylist() == ["yes", "no"]
    assert said.classes == ("no", "yes")


def test_a_trial_measures_a_profile_that_outlives_the_process(
    factory: Factory, open_model: OpenModel
) -> None:
    """By rows of a call; and it is the same after a restart, which tries nothing."""
    ref = factory.package(52.0)
    told = open_model(NAME, ServedModel(version=1, package=ref)).profile
    assert told
    assert [cost.rows for cost in told.batches] == list(trial.PROFILE_CALLS)
    assert all(0 < c.p50_seconds <= c.p99_seconds for c in told.batches)
    assert told.batches[-1].p50_seconds > told.batches[0].p50_seconds
    assert told.child_bytes
    assert told.child_bytes > 2**20
    assert open_model(NAME, ServedModel(version=1, package=ref)).profile == told


def test_a_slow_models_profile_ends_where_its_calls_take_too_long(
    factory: Factory,
) -> None:
    """Within the trial's time: a thousand rows of half a second each are not tried."""
    slow = factory.package(extra=packages.multiplying(2000, times=2))
    with closing(Trial(60, TRIAL_BYTES)) as one:
        figures = one.run(read(factory, slow))
    rows = [cost.rows for cost in figures.batches]
    assert rows == list(trial.PROFILE_CALLS)[: len(rows)]
    assert len(rows) < len(trial.PROFILE_CALLS)
    assert figures.batches[0].calls
    assert figures.batches[0].calls < trial.PROFILE_CALLS[1]


BAD: dict[str, tuple[Callable[[Factory], PackageRef], str]] = {
    "signed by a stranger": (
        lambda f: f.package(signer=Signer(Ed25519PrivateKey.generate())),
        "not trusted",
    ),
    "of another pipeline": (
        lambda f: f.package(pipeline="churn"),
        "made for pipeline 'churn'",
    ),
    "answers its samples wrongly": (
        lambda f: f.package(samples={"prediction": [1.0, 2.0]}),
        "sample 0: prediction is 11.0, expected 1.0",
    ),
    "answers NaN": (
        lambda f: f.package(200.0, extra=packages.NAN_ABOVE_100),
        "2 of 2 samples get no finite answer",
    ),
    "raises": (
        lambda f: f.package(200.0, extra=packages.RAISES_ABOVE_100),
        "Reshape",
    ),
    "gives another number of rows": (
        lambda f: f.package(extra=packages.TWICE_AS_MANY),
        "4 answers to 2 rows",
    ),
    "takes more memory than there is": (
        lambda f: f.package(extra=packages.TOO_MUCH_MEMORY),
        "Failed to allocate memory",
    ),
    "takes other inputs than it says": (
        lambda f: f.package(model=packages.onnx_bytes(0, inputs=("weight", "colour"))),
        "the graph takes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_package_is_refused(
    factory: Factory, open_model: OpenModel, name: str
) -> None:
    make, message = BAD[name]
    with pytest.raises((PackageRefused, TrialFailed), match=message):
        open_model(NAME, ServedModel(version=1, package=make(factory)))


class Stage:
    """A loader in its thread, with a shelf to look at and reports to read."""

    def __init__(self, open_model: OpenModel) -> None:
        self.shelf = Shelf()
        self.reports: list[tuple[int, list[VersionReport]]] = []
        self.stopping = threading.Event()
        self.loader = Loader(
            self.shelf,
            open_model,
            lambda wish, versions: self.reports.append((wish.generation, versions)),
            self.stopping,
        )
        caught_up = threading.Event()
        caught_up.set()
        self.thread = threading.Thread(target=self.loader.run, args=[caught_up])

    def wish(self, wish: ServingDesired) -> None:
        self.loader.wish(wish)
        wait_until(
            lambda: bool(self.reports) and self.reports[-1][0] == wish.generation
        )

    def now(self) -> tuple[int | None, int | None, float]:
        served = self.shelf.get(NAME)
        assert served is not None
        return (
            served.champion.version if served.champion else None,
            served.candidate.version if served.candidate else None,
            served.share,
        )

    def states(self) -> dict[int, str]:
        return {v.version: v.state for v in self.reports[-1][1]}


@pytest.fixture
def stage(request: pytest.FixtureRequest, open_model: OpenModel) -> Iterator[Stage]:
    stage = Stage(getattr(request, "param", open_model))
    stage.thread.start()
    yield stage
    stage.stopping.set()
    stage.thread.join(120)
    assert not stage.thread.is_alive()


def test_versions_come_and_go(factory: Factory, stage: Stage) -> None:
    one, two = (1, factory.package(1.0)), (2, factory.package(2.0))
    assert stage.loader.is_settled()
    stage.wish(desired(1, one))
    assert stage.now() == (1, None, 0.0)
    stage.wish(desired(2, one, two, 0.1))
    assert stage.now() == (1, 2, 0.1)
    first = stage.shelf.get(NAME)
    stage.wish(desired(3, two, one))
    assert stage.now() == (2, 1, 0.0)
    last = stage.shelf.get(NAME)
    assert first is not None
    assert last is not None
    assert first.champion is last.candidate  # not loaded again
    stage.wish(desired(4, None))
    assert stage.now() == (None, None, 0.0)
    assert stage.loader.is_settled()


def test_a_replica_that_is_ahead_answers_everything_by_the_candidate(
    factory: Factory, stage: Stage
) -> None:
    one, two = (1, factory.package(1.0)), (2, factory.package(2.0))
    for ahead, share in ((["1"], 0.0), (["0", "1"], 1.0)):
        wish = desired(len(ahead), one, two).model_copy(update={"ahead": ahead})
        stage.wish(wish.with_meta(META))
        assert stage.now() == (1, 2, share)


def test_a_sign_of_life_names_what_is_in_memory(factory: Factory, stage: Stage) -> None:
    one = (1, factory.package(1.0))
    bad = (2, factory.package(samples={"prediction": [0.0, 0.0]}))
    stage.wish(desired(1, one, bad))
    ((wish, told),) = stage.loader.in_memory()
    assert wish.generation == 1
    assert [(v.version, v.state) for v in told] == [(1, "ready"), (2, "failed")]


def test_a_sign_of_life_names_nothing_that_is_not_loaded_yet(
    factory: Factory, open_model: OpenModel
) -> None:
    stage = Stage(open_model)  # nobody runs its loader
    stage.loader.wish(desired(1, (1, factory.package(1.0))))
    ((wish, told),) = stage.loader.in_memory()
    assert (wish.generation, told) == (1, [])


def test_a_bad_candidate_harms_nobody(factory: Factory, stage: Stage) -> None:
    one = (1, factory.package(1.0))
    bad = (2, factory.package(samples={"prediction": [0.0, 0.0]}))
    stage.wish(desired(1, one))
    stage.wish(desired(2, one, bad, 0.5))
    assert stage.now() == (1, None, 0.0)
    assert stage.states() == {1: "ready", 2: "failed"}
    stage.wish(desired(3, bad, one))
    assert stage.now() == (1, None, 0.0)
    assert stage.loader.is_settled()


def test_a_version_taken_back_stops_answering_before_the_next_is_loaded(
    factory: Factory, open_model: OpenModel
) -> None:
    gate, held = threading.Event(), threading.Event()

    def slow(pipeline: str, model: ServedModel) -> Loaded:
        if model.version == 3:
            held.set()
            gate.wait(120)
        return open_model(pipeline, model)

    stage = Stage(slow)
    stage.thread.start()
    try:
        one, two = (1, factory.package(1.0)), (2, factory.package(2.0))
        stage.wish(desired(1, one, two, 0.5))
        stage.loader.wish(desired(2, one, (3, factory.package(3.0)), 0.1))
        assert held.wait(120)
        assert stage.now() == (1, None, 0.0)
        gate.set()
        wait_until(lambda: stage.now() == (1, 3, 0.1))
    finally:
        gate.set()
        stage.stopping.set()
        stage.thread.join(120)


def test_a_store_that_is_away_holds_up_its_pipeline_only(
    factory: Factory, open_model: OpenModel, tmp_path: Path
) -> None:
    is_away = threading.Event()
    is_away.set()

    def sometimes(pipeline: str, model: ServedModel) -> Loaded:
        if pipeline == NAME and is_away.is_set():
            raise Retry("store away")
        return open_model(pipeline, model)

    stage = Stage(sometimes)
    stage.thread.start()
    try:
        stage.loader.wish(desired(1, (1, factory.package(1.0))))
        other = factory.package(1.0, pipeline="churn")
        wish = desired(1, (1, other)).model_copy(update={"pipeline": "churn"})
        stage.loader.wish(wish.with_meta(META))
        wait_until(lambda: stage.shelf.pipelines() == ["churn"])
        assert not stage.loader.is_settled()
        is_away.clear()
        wait_until(lambda: stage.shelf.pipelines() == [NAME, "churn"])
        assert stage.loader.is_settled()
    finally:
        stage.stopping.set()
        stage.thread.join(120)


def test_a_champion_that_could_not_be_loaded_is_tried_again(
    factory: Factory, open_model: OpenModel
) -> None:
    """Without any version in memory, a passing lack of memory must not last."""
    is_short_of_memory = threading.Event()
    is_short_of_memory.set()

    def sometimes(pipeline: str, model: ServedModel) -> Loaded:
        if is_short_of_memory.is_set():
            raise TrialFailed("Failed to allocate memory")
        return open_model(pipeline, model)

    stage = Stage(sometimes)
    stage.thread.start()
    try:
        stage.wish(desired(1, (1, factory.package(1.0))))
        assert stage.states() == {1: "failed"}
        is_short_of_memory.clear()
        wait_until(lambda: stage.states() == {1: "ready"})
        assert stage.now() == (1, None, 0.0)
    finally:
        stage.stopping.set()
        stage.thread.join(120)
