"""A package is loaded only if every byte of it is what its signer signed."""

import base64
import hashlib
import json
import pickle
from datetime import UTC, datetime

import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from driftloop.contracts.events import (
    DatasetRef,
    Evaluation,
    PackageRef,
    PairedComparison,
    Span,
    TableRef,
)
from driftloop.models.formats import FormatRefused
from driftloop.models.package import (
    InputColumn,
    Manifest,
    OutputColumn,
    PackageRefused,
    canonical_json,
    read_file,
    read_package,
    signed_bytes,
    write_package,
)
from driftloop.models.signing import Signer, TrustedKeys
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.errors import Retry
from onnx import TensorProto, helper

SPAN = Span(
    start=datetime(2011, 1, 1, tzinfo=UTC), end=datetime(2011, 2, 1, tzinfo=UTC)
)


def tiny_model(domain: str = "", ir_version: int = 10) -> bytes:
    node = helper.make_node("Identity", ["x"], ["prediction"], domain=domain)
    graph = helper.make_graph(
        [node],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
    )
    opset = helper.make_opsetid(domain, 1 if domain else 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=ir_version)
    return model.SerializeToString()


def manifest() -> Manifest:
    return Manifest(
        pipeline="bikes",
        task="regression",
        target="cnt",
        inputs=[InputColumn(name="x", type="number")],
        outputs=[OutputColumn(name="prediction", type="number", description="cnt")],
        algorithm="linear",
        evaluation=Evaluation(
            metric="mae",
            holdout_span=SPAN,
            holdout_row_count=10,
            candidate=1.0,
            baseline=2.0,
            comparison=PairedComparison(
                mean_difference=-1.0, standard_error=0.1, row_count=10
            ),
        ),
        dataset=DatasetRef(observations=TableRef(uri="bikes", version=3)),
        train_span=SPAN,
        holdout_span=SPAN,
        train_row_count=40,
        seed=0,
        code_version="0.1.0",
        environment=["numpy==2"],
        job_id="job",
        cause_event_id="cause",
        cause_reason="first_model",
    )


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path)


@pytest.fixture
def signer():
    return Signer(Ed25519PrivateKey.from_private_bytes(b"s" * 32))


@pytest.fixture
def trusted(signer):
    return TrustedKeys.from_pems([signer.public_pem])


@pytest.fixture
def ref(store, signer):
    files = {"model.onnx": tiny_model(), "card.md": b"# A card"}
    return write_package(manifest(), files, signer, store)


def sign(content: dict, signer: Signer, store: FolderStore) -> PackageRef:
    """A correctly signed envelope over any content."""
    payload = canonical_json(content)
    signature = base64.b64encode(signer.sign(signed_bytes(payload))).decode()
    envelope = {
        "payloadType": "application/vnd.driftloop.model-manifest.v1+json",
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": signer.key_id, "sig": signature}],
    }
    blob = store.put(canonical_json(envelope))
    digest = hashlib.sha256(payload).hexdigest()
    return PackageRef(uri=blob.uri, digest=digest, signer=signer.key_id)


def content_of(ref, store) -> dict:
    data = store.get(ref.uri, ref.uri.rpartition("/")[2])
    return json.loads(base64.b64decode(json.loads(data)["payload"]))


def blob_path(tmp_path, sha256: str):
    return tmp_path / "sha256" / sha256[:2] / sha256


def test_what_was_written_is_read(ref, store, trusted):
    package = read_package(ref, store, trusted)
    assert package.files["card.md"] == b"# A card"
    assert package.manifest.files["card.md"].size_bytes == 8
    assert package.manifest.model_copy(update={"files": {}}) == manifest()


def test_the_same_inputs_give_the_same_reference(ref, store, signer):
    files = {"card.md": b"# A card", "model.onnx": tiny_model()}
    assert write_package(manifest(), files, signer, store) == ref


def test_other_inputs_give_another_digest(ref, store, signer):
    files = {"card.md": b"# Another card", "model.onnx": tiny_model()}
    assert write_package(manifest(), files, signer, store).digest != ref.digest


def test_a_flipped_byte_in_a_file_is_refused(ref, store, trusted, tmp_path):
    path = blob_path(tmp_path, content_of(ref, store)["files"]["model.onnx"]["sha256"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackageRefused, match=r"model\.onnx.*tampered"):
        read_package(ref, store, trusted)


def test_a_truncated_file_is_refused(ref, store, trusted, tmp_path):
    path = blob_path(tmp_path, content_of(ref, store)["files"]["card.md"]["sha256"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageRefused, match=r"card\.md"):
        read_package(ref, store, trusted)


def test_a_flipped_byte_in_the_envelope_is_refused(ref, store, trusted, tmp_path):
    path = blob_path(tmp_path, ref.uri.rpartition("/")[2])
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackageRefused, match="tampered"):
        read_package(ref, store, trusted)


def test_changed_content_under_the_old_signature_is_refused(ref, store, trusted):
    data = store.get(ref.uri, ref.uri.rpartition("/")[2])
    envelope = json.loads(data)
    content = content_of(ref, store) | {"algorithm": "other"}
    envelope["payload"] = base64.b64encode(canonical_json(content)).decode()
    forged = store.put(canonical_json(envelope))
    with pytest.raises(PackageRefused, match="signature"):
        read_package(ref.model_copy(update={"uri": forged.uri}), store, trusted)


def test_a_foreign_signer_is_refused(store, trusted):
    foreign = Signer(Ed25519PrivateKey.generate())
    ref = write_package(manifest(), {"model.onnx": tiny_model()}, foreign, store)
    with pytest.raises(PackageRefused, match="not trusted"):
        read_package(ref, store, trusted)


def test_a_foreign_signature_under_a_trusted_name_is_refused(store, signer, trusted):
    foreign = Signer(Ed25519PrivateKey.generate())
    foreign.key_id = signer.key_id
    ref = write_package(manifest(), {"model.onnx": tiny_model()}, foreign, store)
    with pytest.raises(PackageRefused, match="does not fit"):
        read_package(ref, store, trusted)


def test_one_file_is_read_as_it_was_signed(ref, store, trusted, tmp_path):
    assert read_file(ref, "card.md", store, trusted) == b"# A card"
    assert read_file(ref, "card.html", store, trusted) is None
    path = blob_path(tmp_path, content_of(ref, store)["files"]["card.md"]["sha256"])
    path.write_bytes(b"# A cord")
    with pytest.raises(PackageRefused, match=r"card\.md"):
        read_file(ref, "card.md", store, trusted)
    with pytest.raises(PackageRefused, match="digest"):
        read_file(
            ref.model_copy(update={"digest": "0" * 64}), "card.md", store, trusted
        )


def test_another_packages_digest_is_refused(ref, store, trusted):
    with pytest.raises(PackageRefused, match="digest"):
        read_package(ref.model_copy(update={"digest": "0" * 64}), store, trusted)


def test_a_missing_file_waits_for_the_store(ref, store, trusted, tmp_path):
    blob_path(tmp_path, content_of(ref, store)["files"]["card.md"]["sha256"]).unlink()
    with pytest.raises(Retry):
        read_package(ref, store, trusted)


def test_a_package_without_a_model_is_refused(ref, store, signer, trusted):
    content = content_of(ref, store)
    del content["files"]["model.onnx"]
    with pytest.raises(PackageRefused, match=r"no model\.onnx"):
        read_package(sign(content, signer, store), store, trusted)


def test_an_extra_file_is_refused_even_when_signed(ref, store, signer, trusted):
    content = content_of(ref, store)
    content["files"]["run.py"] = content["files"]["card.md"]
    with pytest.raises(PackageRefused, match=r"run\.py"):
        read_package(sign(content, signer, store), store, trusted)


def test_an_unknown_schema_version_is_refused(ref, store, signer, trusted):
    content = content_of(ref, store) | {"schema_version": 2}
    with pytest.raises(PackageRefused, match="schema_version"):
        read_package(sign(content, signer, store), store, trusted)


def test_a_pickle_called_model_is_refused_though_signed(ref, store, signer, trusted):
    blob = store.put(pickle.dumps({"a": 1}))
    content = content_of(ref, store)
    content["files"]["model.onnx"] = {
        "sha256": blob.sha256,
        "size_bytes": blob.size_bytes,
        "uri": blob.uri,
    }
    with pytest.raises(PackageRefused, match="no ONNX model"):
        read_package(sign(content, signer, store), store, trusted)


def _with_external_data() -> bytes:
    model = onnx.load_model_from_string(tiny_model())
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT)
    tensor.dims.append(1)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"card.md": b"a"}, r"model\.onnx is missing"),
        ({"model.onnx": b""}, "no ONNX model"),
        ({"model.onnx": pickle.dumps([1])}, "no ONNX model"),
        ({"model.onnx": tiny_model()[:-20]}, "no ONNX model"),
        ({"model.onnx": tiny_model("evil.ops")}, "operator set 'evil.ops'"),
        ({"model.onnx": tiny_model(ir_version=14)}, "IR version 14"),
        ({"model.onnx": _with_external_data()}, "outside of the file"),
        ({"model.onnx": tiny_model(), "run.py": b""}, "may hold only"),
        ({"model.onnx": tiny_model(), "model.pkl": b""}, "may hold only"),
        ({"model.onnx": tiny_model(), "card.md": b"a" * 1048577}, "at most"),
        ({"model.onnx": tiny_model(), "samples.json": b"{"}, "not JSON"),
        ({"model.onnx": tiny_model(), "reference.arrow": b"x"}, "not an Arrow"),
        ({"model.onnx": tiny_model(), "continue.skops": b"x"}, "not a skops"),
        ({"model.onnx": tiny_model(), "continue.river.json": b"[1]"}, "not a state"),
        ({"model.onnx": tiny_model(), "continue.json": b"[" * 9999}, "not JSON"),
        ({"model.onnx": tiny_model(), "continue.safetensors": b"x"}, "safetensors"),
    ],
)
def test_what_may_not_be_in_a_package_is_not_written(files, reason, store, signer):
    with pytest.raises(FormatRefused, match=reason):
        write_package(manifest(), files, signer, store)
