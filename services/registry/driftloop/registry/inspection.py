"""Opens the package of a trained model, and tries the model in a child process."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from driftloop.contracts.events import ModelTrained
from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import Package, PackageRefused, read_package
from driftloop.models.samples import SAMPLES_FILE
from driftloop.models.signing import TrustedKeys
from driftloop.registry.core import PackageFinding, SignedFacts, disagreement
from driftloop.registry.trial import write_frame
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.telemetry import log

TRIAL_TIMEOUT_S = 120
KEPT_ENVIRONMENT = ("PATH", "LANG", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
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
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child that waits for the next model."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-m", "driftloop.registry.trial"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={k: os.environ[k] for k in KEPT_ENVIRONMENT if k in os.environ},
            )

    def close(self) -> None:
        """End the child that waits."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child.communicate()
                self._child = None

    def __call__(self, event: ModelTrained) -> PackageFinding:
        """Return what is wrong with an event's package, or how fast its model is.

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
        if problem is None and SAMPLES_FILE not in package.files:
            problem = f"the package has no {SAMPLES_FILE} to try the model with"
        return PackageFinding(problem) if problem else self._try(package)

    def _try(self, package: Package) -> PackageFinding:
        inputs = [column.model_dump() for column in package.manifest.inputs]
        frames = io.BytesIO()
        write_frame(frames, json.dumps(inputs).encode())
        write_frame(frames, package.files[MODEL_FILE])
        write_frame(frames, package.files[SAMPLES_FILE])
        with self._lock:
            self.start()
            child, self._child = self._child, None
            assert child is not None  # noqa: S101 - start() made it
            try:
                output, _ = child.communicate(frames.getvalue(), TRIAL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                problem = f"its trial did not end within {TRIAL_TIMEOUT_S} s"
                return PackageFinding(problem)
            finally:
                self.start()
        return _finding(output, child.returncode)


def _finding(output: bytes, code: int) -> PackageFinding:
    try:
        answer = json.loads(output)
    except ValueError:
        logger.warning("a model ended its trial", code=code)
        return PackageFinding(problem=f"its trial ended with exit code {code}")
    if "problem" in answer:
        return PackageFinding(problem=str(answer["problem"]))
    return PackageFinding(latency_p99_ms=float(answer["latency_p99_ms"]))
