"""What the monitor reads of a model package: its evaluation and two samples."""

from collections.abc import Callable

from driftloop.contracts.events import PackageRef
from driftloop.models.package import read_package
from driftloop.models.signing import TrustedKeys
from driftloop.monitor.columns import as_table
from driftloop.monitor.settings import MonitorSettings
from driftloop.monitor.turn import Packaged
from driftloop.runtime.artifacts import ArtifactStore

SAMPLE_FILE = "reference.arrow"
HOLDOUT_FILE = "holdout.arrow"


def package_opener(
    store: ArtifactStore, settings: MonitorSettings
) -> Callable[[PackageRef], Packaged]:
    """Return the function that verifies a package and takes out these."""

    def open_package(ref: PackageRef) -> Packaged:
        trusted = TrustedKeys.from_folder(settings.trusted_keys_folder)
        package = read_package(ref, store, trusted, is_served=True)
        sample, holdout = (
            None if data is None else as_table(data)
            for data in map(package.files.get, (SAMPLE_FILE, HOLDOUT_FILE))
        )
        manifest = package.manifest
        return Packaged(manifest.evaluation, sample, holdout, tuple(manifest.classes))

    return open_package
