"""A version registered under a pipeline's name: its files are looked at by content.

Only ONNX is served. Nothing is loaded or run here: a file is parsed with limits, or it
is named in the refusal by its first bytes. A pickle is never opened.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from driftloop.contracts.events import (
    BlobRef,
    ModelTrained,
    PackageRef,
    PipelineApplied,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.formats import MODEL_FILE, FormatRefused, check_onnx, check_size
from driftloop.models.onnx_graph import inputs_of
from driftloop.models.package import PackageRefused
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.registry.mlflow.files import File, files_of
from driftloop.registry.mlflow.registered.shown import PLACE
from driftloop.registry.mlflow.registered.sources import Source, owner_of
from driftloop.registry.tables import RegistryVersion
from driftloop.runtime.artifacts import AbsentError, ArtifactStore, uri_of
from driftloop.runtime.errors import Reject, Retry
from sqlalchemy import Connection
from sqlmodel import Session

CONVERT = (
    "driftloop serves ONNX. Convert the model (scikit-learn, XGBoost, LightGBM: "
    "skl2onnx, onnxmltools; torch: torch.onnx.export; TensorFlow: tf2onnx), log it "
    "with mlflow.onnx.log_model, and register that; docs/mlflow-models.md shows it. As "
    "a record, any model can be registered under a name that is no pipeline's"
)
KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02", "a pickle, which is never opened"),
    (b"\x80\x03", "a pickle, which is never opened"),
    (b"\x80\x04", "a pickle, which is never opened"),
    (b"\x80\x05", "a pickle, which is never opened"),
    (b"PK\x03\x04", "an archive (torch, Keras or skops)"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras)"),
    (b"\x1f\x8b", "gzip"),
)
"""What a model file often is, by its first bytes."""
SMALL = frozenset(
    {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    | {"input_example.json", "serving_input_example.json", "registered_model_meta"}
)
"""What MLflow writes beside a model; not worth a word in a refusal."""


@dataclass(frozen=True)
class Submissions:
    """Reads what is registered under a pipeline's name.

    Attributes
    ----------
    room : of the artifact store, where clients' files lie.
    store : of the artifact store, where services read.
    package_file : reads a verified file of a package.
    """

    pipelines: Mapping[str, PipelineApplied]
    room: ArtifactStore
    store: ArtifactStore
    package_file: Callable[[PackageRef, str], bytes | None]

    def model_of(self, connection: Connection, name: str, source: Source) -> BlobRef:
        """Return the ONNX model of a source, stored where the trainer can read it.

        Raises
        ------
        Refusal
            When there is none that the pipeline can serve; says how to make one.
        """
        applied = self.pipelines.get(name)
        if applied is None:
            raise Refusal(
                "RESOURCE_CONFLICT",
                f"name: the pipeline {name!r} is not applied; run driftloop apply FILE",
            )
        try:
            data = self._bytes_of(connection, source)
            _check_graph(data, applied.spec)
            return self.store.put(data)
        except (Retry, OSError) as error:
            raise Refusal(
                "TEMPORARILY_UNAVAILABLE", f"the artifact store is away: {error}"
            ) from error

    def _bytes_of(self, connection: Connection, source: Source) -> bytes:
        if source.location.startswith(PLACE):
            return self._packaged(_package_at(connection, source.location))
        owner, path = owner_of(source)
        start = f"{path}/" if path else ""
        files = [f for f in files_of(connection, owner) if f.path.startswith(start)]
        if not files:
            raise invalid(
                f"source: {source.source!r} has no files; log the model first"
            )
        return self._only_onnx(source.source, files)

    def _packaged(self, package: PackageRef) -> bytes:
        try:
            data = self.package_file(package, MODEL_FILE)
        except PackageRefused as error:
            raise invalid(f"source: its package may not be read: {error}") from error
        assert data is not None  # noqa: S101 - no package is without it
        return data

    def _only_onnx(self, source: str, files: Iterable[File]) -> bytes:
        found: dict[str, bytes] = {}
        others: list[str] = []
        for file in files:
            if file.path.rpartition("/")[2] in SMALL:
                continue
            data = b""
            try:
                check_size(MODEL_FILE, file.size_bytes)
                data = self._read(file)
                check_onnx(data)
            except FormatRefused as error:
                others.append(_named(file, data, error))
            else:
                found[file.path] = data
        if not found:
            listed = "; ".join(others[:5]) or "no model file"
            raise invalid(
                f"source: {source!r} holds no ONNX model: {listed}. {CONVERT}"
            )
        if len(found) > 1:
            names = ", ".join(sorted(found))
            raise invalid(
                f"source: {source!r} holds {len(found)} ONNX models: {names}; name the "
                "folder of one"
            )
        return next(iter(found.values()))

    def _read(self, file: File) -> bytes:
        try:
            return self.room.get(uri_of(file.sha256), file.sha256)
        except (Reject, AbsentError) as error:
            raise Refusal("DATA_LOSS", f"{file.path}: {error}") from error


def _named(file: File, data: bytes, error: FormatRefused) -> str:
    kind = next((kind for start, kind in KINDS if data.startswith(start)), None)
    if kind is None and not file.path.endswith(".onnx"):
        kind = "of an unknown kind"
    return f"{file.path} is {kind}" if kind else f"{file.path}: {error}"


def _check_graph(data: bytes, spec: PipelineSpec) -> None:
    """Refuse a graph that the pipeline cannot feed, if its file names features."""
    try:
        graph = check_onnx(data)
        if spec.data.features:
            kinds = {name: f.type for name, f in spec.data.features.items()}
            inputs_of(graph, kinds, spec.task)
    except FormatRefused as error:
        raise invalid(
            f"source: the ONNX model does not fit {spec.name}: {error}"
        ) from error


def _package_at(connection: Connection, location: str) -> PackageRef:
    """Return the package of a version of the loop's own."""
    name, _, version = location.removeprefix(PLACE).rpartition("/")
    with Session(connection) as session:
        row = session.get_one(RegistryVersion, (name, int(version)))
        return ModelTrained.model_validate(row.trained).package
