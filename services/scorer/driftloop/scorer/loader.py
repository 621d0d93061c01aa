"""Brings the models in memory to what ``serving-desired`` asks for.

Works in the background: what answered before goes on until the new is verified,
loaded and tried; then one assignment switches.
"""

import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from driftloop.contracts.events import (
    Role,
    ScorerReported,
    ServedModel,
    ServingDesired,
    VersionReport,
)
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.models.memory import peak_bytes
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import PackageRefused, read_package
from driftloop.models.samples import SAMPLES_FILE, check_samples
from driftloop.models.signing import TrustedKeys
from driftloop.models.trial import try_model
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.database import is_passing
from driftloop.runtime.errors import Retry
from driftloop.runtime.outbox import Cause, OutboxRelay
from driftloop.runtime.telemetry import log
from driftloop.scorer.core import Plan, plan
from driftloop.scorer.explaining.explainer import REFERENCE_FILE, explainer_of
from driftloop.scorer.profiles import (
    keep_profile,
    kept_profile,
    profile_of,
)
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Pace, Served, Shelf
from driftloop.scorer.tables import ScorerAnnounced
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

POLL_S = 0.1
MAX_WAIT_S = 30.0
logger = log(__name__)

OpenModel = Callable[[str, ServedModel], Loaded]
Announce = Callable[[ServingDesired, list[VersionReport]], None]


def model_opener(
    store: ArtifactStore, settings: ScorerSettings, engine: Engine
) -> OpenModel:
    """Return the function that verifies, tries and loads a version."""

    def open_model(pipeline: str, model: ServedModel) -> Loaded:
        trusted = TrustedKeys.from_folder(settings.trusted_keys_folder)
        package = read_package(model.package, store, trusted, is_served=True)
        manifest = package.manifest
        if manifest.pipeline != pipeline:
            raise PackageRefused(f"it was made for pipeline {manifest.pipeline!r}")
        digest = model.package.digest
        kept = kept_profile(engine, digest)
        profile = kept or profile_of(
            try_model(
                package, settings.trial_timeout_seconds, settings.trial_memory_bytes
            )
        )
        onnx = OnnxModel.from_package(package)
        check_samples(onnx, manifest.inputs, package.files[SAMPLES_FILE])
        if kept is None:
            keep_profile(engine, digest, profile)
        return Loaded(
            model.version, model.package, manifest, onnx, Pace.of(profile),
            explainer_of(onnx, manifest, package.files.get(REFERENCE_FILE)), profile,
        )  # fmt: skip

    return open_model


def announcer(outbox: OutboxRelay, replica: str, lease_seconds: float) -> Announce:
    """Return the function that reports a loaded state, each state once."""

    def announce(desired: ServingDesired, versions: list[VersionReport]) -> None:
        told = [v.model_dump(mode="json") for v in versions]
        state = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        name = f"{replica}/{desired.pipeline}/{desired.generation}/{state}"
        key = (replica, desired.pipeline)
        with outbox.unit(Cause(name, desired.meta.chain)) as (session, events):
            last = session.get(ScorerAnnounced, key)
            if last and (last.generation, last.state) == (desired.generation, state):
                return
            session.merge(
                ScorerAnnounced(
                    replica=replica,
                    pipeline=desired.pipeline,
                    generation=desired.generation,
                    state=state,
                )
            )
            events.append(
                ScorerReported(
                    pipeline=desired.pipeline,
                    replica=replica,
                    environment=desired.environment,
                    generation=desired.generation,
                    versions=versions,
                    lease_seconds=lease_seconds,
                ).following(desired.meta)
            )

    return announce


def heartbeat(
    loader: "Loader",
    caught_up: threading.Event,
    outbox: OutboxRelay,
    settings: ScorerSettings,
    stopping: threading.Event,
) -> Callable[[], None]:
    """Return the loop that says, from the start on, what this replica has in memory.

    Beside the loader, which may be busy with a large model for minutes.
    """

    def tell(wish: ServingDesired, versions: list[VersionReport]) -> None:
        with outbox.unit(Cause.none(f"alive/{uuid4()}")) as (_, events):
            events.append(
                ScorerReported(
                    pipeline=wish.pipeline,
                    replica=settings.replica,
                    environment=wish.environment,
                    generation=wish.generation,
                    versions=versions,
                    lease_seconds=settings.lease_seconds,
                    memory_bytes=peak_bytes(),
                )
            )

    def run() -> None:
        while not caught_up.wait(POLL_S):
            if stopping.is_set():
                return
        wait_s = 0.0
        while not stopping.wait(wait_s):
            wait_s = settings.heartbeat_seconds
            try:
                for wish, versions in loader.in_memory():
                    tell(wish, versions)
            except DBAPIError as error:
                if not is_passing(error):
                    raise
                logger.warning("no sign of life", error="the database is away")

    return run


@dataclass(frozen=True, slots=True)
class _Retry:
    """When to try a pipeline again (monotonic seconds), and the wait before."""

    at: float
    wait_s: float


class Loader:
    """Converges the shelf to the last wish of each pipeline, one after the other."""

    def __init__(
        self,
        shelf: Shelf,
        open_model: OpenModel,
        announce: Announce,
        stopping: threading.Event,
        replica: str = "0",
        environment: str = PRODUCTION,
    ) -> None:
        self._shelf = shelf
        self._replica = replica
        self._environment = environment
        self._open_model = open_model
        self._announce = announce
        self._stopping = stopping
        self._wishes: dict[str, ServingDesired] = {}
        self._changed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._retries: dict[str, _Retry] = {}

    def wish(self, desired: ServingDesired) -> None:
        """Take note of what is wanted; called by the state view, returns at once.

        What is wanted in other environments is nothing to this one.
        """
        if desired.environment != self._environment:
            return
        self._wishes[desired.pipeline] = desired
        self._changed.put(desired.pipeline)

    def is_settled(self) -> bool:
        """Whether each pipeline that should be served has a champion in memory."""
        return all(
            (served := self._shelf.get(name)) is not None
            and served.champion is not None
            for name, wish in dict(self._wishes).items()
            if wish.champion is not None
        )

    def in_memory(self) -> Iterator[tuple[ServingDesired, list[VersionReport]]]:
        """Yield each wish, and which of its versions are loaded or known to be bad."""
        for name, wish in dict(self._wishes).items():
            served = self._shelf.get(name)
            if served is None or served.generation != wish.generation:
                yield wish, []
                continue
            known = {*served.loaded(), *served.failed}
            states = _states(wish, served)
            yield wish, [said for said in states if said.version in known]

    def run(self, caught_up: threading.Event) -> None:
        """Follow the wishes until the process is to stop.

        Begins once all wishes of old were read, so that only the last one counts.
        """
        while not self._stopping.is_set():
            if not caught_up.wait(POLL_S):
                continue
            for name in self._due():
                wish = self._wishes[name]
                if not _is_done(self._shelf.get(name), wish):
                    self._converge(wish)

    def _due(self) -> list[str]:
        """Return pipelines whose wish changed, or whose turn to retry has come."""
        names = []
        with suppress(queue.Empty):
            names.append(self._changed.get(timeout=POLL_S))
        now = time.monotonic()
        names += [name for name, retry in self._retries.items() if retry.at <= now]
        return names

    def _converge(self, wish: ServingDesired) -> None:
        """Load what is missing; a store that is away holds up this pipeline only."""
        name = wish.pipeline
        before = self._shelf.get(name) or Served(0)
        loaded, failed = before.loaded(), dict[int, str]()
        self._shelf.show(name, self._served(wish, loaded, before))
        for model in (wish.champion, wish.candidate):
            if model is None or _is_loaded(loaded.get(model.version), model):
                continue
            try:
                loaded[model.version] = self._open_model(name, model)
            except Retry as error:
                self._shelf.show(name, self._served(wish, loaded, before))
                self._try_later(name, f"version {model.version}: {error}")
                return
            except Exception as error:  # noqa: BLE001 - a bad package is a verdict
                logger.error("cannot load", version=model.version, error=str(error))
                failed[model.version] = f"{error!s:.500}"
                loaded.pop(model.version, None)
        served = self._served(wish, loaded, before, failed)
        self._shelf.show(name, served)
        if _is_done(served, wish):
            self._retries.pop(name, None)
        else:
            self._try_later(name, "no version can be loaded")
        logger.info(
            "serving",
            pipeline=name,
            generation=wish.generation,
            champion=served.champion.version if served.champion else None,
            candidate=served.candidate.version if served.candidate else None,
            share=served.share,
        )
        self._announce(wish, _states(wish, served))

    def _served(
        self,
        wish: ServingDesired,
        loaded: dict[int, Loaded],
        before: Served,
        failed: dict[int, str] | None = None,
    ) -> Served:
        """Return what may answer now; ``failed`` is given once all was tried."""
        wanted = Plan(
            wish.champion.version if wish.champion else None,
            wish.candidate.version if wish.candidate else None,
            1.0 if self._replica in wish.ahead else wish.candidate_share,
        )
        now = plan(
            wanted,
            frozenset(loaded),
            before.champion.version if before.champion else None,
        )
        return Served(
            wish.generation,
            None if now.champion is None else loaded[now.champion],
            None if now.candidate is None else loaded[now.candidate],
            now.share,
            is_settled=failed is not None,
            failed=failed or {},
        )

    def _try_later(self, name: str, why: str) -> None:
        before = self._retries.get(name)
        wait_s = min(2 * before.wait_s, MAX_WAIT_S) if before else POLL_S
        self._retries[name] = _Retry(time.monotonic() + wait_s, wait_s)
        logger.warning("trying again later", pipeline=name, why=why, wait_s=wait_s)


def _is_done(served: Served | None, wish: ServingDesired) -> bool:
    """Whether there is nothing left to load; without any champion there is."""
    return (
        served is not None
        and served.generation == wish.generation
        and served.is_settled
        and (served.champion is not None or wish.champion is None)
    )


def _is_loaded(loaded: Loaded | None, model: ServedModel) -> bool:
    return loaded is not None and loaded.package.digest == model.package.digest


def _states(wish: ServingDesired, served: Served) -> list[VersionReport]:
    """Return how it stands with each version of a wish; unless failed it is ready."""
    roles: tuple[tuple[Role, ServedModel | None], ...] = (
        ("champion", wish.champion),
        ("candidate", wish.candidate),
    )
    profiles = {version: one.profile for version, one in served.loaded().items()}
    return [
        VersionReport(
            version=model.version,
            role=role,
            state="failed" if model.version in served.failed else "ready",
            detail=served.failed.get(model.version, ""),
            profile=profiles.get(model.version),
        )
        for role, model in roles
        if model is not None
    ]
