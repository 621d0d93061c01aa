"""Opens the package of a trained model, and tries the model in a child process."""

import threading
from pathlib import Path

from driftloop.contracts.events import ModelTrained, PackageRef
from driftloop.models.package import (
    Manifest,
    Package,
    PackageRefused,
    read_file,
    read_manifest,
    read_package,
)
from driftloop.models.signing import TrustedKeys
from driftloop.models.trial import Trial, TrialFailed
from driftloop.registry.core import SignedFacts, disagreement
from driftloop.registry.gate import Cost, PackageFinding
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.telemetry import log

TRIAL_TIMEOUT_S = 120
TRIAL_MEMORY_BYTES = 4 * 1024**3
logger = log(__name__)


class Inspection:
    """Verifies packages; keeps one child process ready for the next trial.

    Parameters
    ----------
    trusted_folder : public keys of signers; read at each inspection, so that a key
        that is added or withdrawn counts from then on.
    """

    def __init__(self, store: ArtifactStore, trusted_folder: Path) -> None:
        self._store = store
        self._trusted_folder = trusted_folder
        self._lock = threading.Lock()
        self._trial: Trial | None = None

    def start(self) -> None:
        """Start the child that waits for the next model."""
        if self._trial is None:
            self._trial = Trial(TRIAL_TIMEOUT_S, TRIAL_MEMORY_BYTES)

    def close(self) -> None:
        """End the child that waits."""
        with self._lock:
            if self._trial is not None:
                self._trial.close()
                self._trial = None

    def __call__(self, event: ModelTrained) -> PackageFinding:
        """Return what is wrong with an event's package, or what its model costs.

        Raises
        ------
        Retry
            When the store is away or does not have it (yet).
        """
        try:
            package = read_package(
                event.package,
                self._store,
                TrustedKeys.from_folder(self._trusted_folder),
            )
        except PackageRefused as error:
            return PackageFinding(problem=str(error))
        manifest = package.manifest
        signed = SignedFacts(manifest.pipeline, manifest.job_id, manifest.evaluation)
        problem = disagreement(event, signed)
        return PackageFinding(problem) if problem else self._try(package)

    def file(self, ref: PackageRef, name: str) -> bytes | None:
        """Return a verified file of a package; None when it has none of that name.

        Raises
        ------
        PackageRefused
            When the package is not what it claims to be.
        Retry
            When the store is away or does not have it (yet).
        """
        trusted = TrustedKeys.from_folder(self._trusted_folder)
        return read_file(ref, name, self._store, trusted)

    def manifest(self, ref: PackageRef) -> Manifest:
        """Return what a package says of itself; see :meth:`file`."""
        trusted = TrustedKeys.from_folder(self._trusted_folder)
        return read_manifest(ref, self._store, trusted)

    def _try(self, package: Package) -> PackageFinding:
        with self._lock:
            self.start()
            trial, self._trial = self._trial, None
            assert trial is not None  # noqa: S101 - start() made it
            try:
                said = trial.run(package)
                return PackageFinding(
                    cost=Cost(
                        said.p50_ms, said.p99_ms, said.hundred_rows_ms, said.memory_mib
                    )
                )
            except TrialFailed as error:
                logger.warning("a model failed its trial", why=str(error))
                return PackageFinding(problem=str(error))
            finally:
                trial.close()
                self.start()
