"""Rows with payloads through ingest and validator, killed anywhere."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from driftloop.contracts.events import BatchRejected, BatchValidated
from driftloop.contracts.payloads import read_reference
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.contracts.topics import TOPICS, dead_letter_topic
from driftloop.monitor.turn import kinds_of
from driftloop.trainer.dataset import read_rows
from driftloop.trainer.encoding import features_of

from tests.support.kills import Killed
from tests.unit.chain.data import PARTITIONS, DataChain
from tests.unit.payloads import SEEN_AS, SPEC, data_uri, digest, png, row

PICTURES = [png(bytes([65 + number])) for number in range(3)]
STEPS = 40
DAY = datetime(2024, 5, 1, tzinfo=UTC)


def rows() -> list[dict[str, Any]]:
    return [row(n, photo=data_uri(data)) for n, data in enumerate(PICTURES)]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[DataChain]:
    return DataChain(tmp_path, SPEC)


def work(chain: DataChain) -> None:
    chain.work("ingest")
    chain.work("validator")


def table(chain: DataChain) -> list[dict[str, Any]]:
    uri = chain.uri("shop", "observations")
    found: list[dict[str, Any]] = DeltaTable(uri).to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda one: one["id"])


def topics_with(chain: DataChain, *texts: str) -> set[str]:
    """Return the topics on which one of these can be read."""
    names = [*(topic.name for topic in TOPICS), dead_letter_topic("ingest")]
    return {
        name
        for name in names
        for partition in range(PARTITIONS)
        for message in chain.broker.log(name, partition)
        if any(text.encode() in repr(message).encode() for text in texts)
    }


def files_with(folder: Path, *texts: str) -> list[Path]:
    """Return the files below a folder, payloads left out, that hold one of these."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and (folder.name == "payloads" or "payloads" not in path.parts)
        and any(text.encode() in path.read_bytes() for text in texts)
    ]


def rejected(chain: DataChain) -> dict[str, str]:
    return {
        one["id"]: one["reason"]
        for entry in chain.log("batch-rejected")
        if isinstance(entry.event, BatchRejected)
        for one in entry.event.rows.to_pylist()
    }


def test_the_dataset_pins_the_very_bytes(chain: DataChain) -> None:
    chain.send("shop", rows())
    work(chain)
    assert [one["photo"] for one in table(chain)] == [
        {
            "sha256": digest(data),
            "size_bytes": len(data),
            "media_type": "image/png",
            "uri": f"payload:shop/sha256/{digest(data)}",
        }
        for data in PICTURES
    ]
    assert [one["note"] for one in table(chain)] == [None] * 3
    for one, data in zip(table(chain), PICTURES, strict=True):
        reference = read_reference(one["photo"]["uri"])
        assert reference is not None
        assert b"".join(chain.payloads.parts(reference)) == data


def test_a_row_is_one_row_however_it_refers(chain: DataChain) -> None:
    """Inline, by digest, and with its media type: sent thrice, taken once."""
    chain.send("shop", rows()[:1])
    name = digest(PICTURES[0])
    chain.send("shop", [row(0, photo=f"sha256:{name}")])
    chain.send("shop", [row(0, photo={"sha256": name, "media_type": "image/png"})])
    work(chain)
    assert [one["id"] for one in table(chain)] == ["r0"]
    assert not rejected(chain)
    chain.send("shop", [row(0, photo=data_uri(PICTURES[1]))])  # negative control
    work(chain)
    assert "duplicate" in rejected(chain)["r0"]


def test_what_is_wrong_is_quarantined_with_its_kind(chain: DataChain) -> None:
    lost = "ab" * 32
    jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\1" * 20
    known = chain.payloads.put("shop", png()).sha256
    chain.payloads.put("shop", big := b"x" * 3000)
    chain.payloads.put("shop", b"no picture")
    chain.payloads.put("other", other := png(b"other"))
    tampered = chain.payloads.put("shop", png(b"tampered")).sha256
    (file,) = chain.path.glob(f"artifacts/payloads/shop/sha256/*/{tampered}")
    file.write_bytes(png(b"something else"))
    wrong = {
        1: ({"photo": lost}, f"photo: payload (missing: {lost})"),
        2: ({"photo": digest(b"no picture")}, "photo: payload (wrong type: "),
        3: ({"photo": {"sha256": known, "media_type": "image/jpeg"}}, "wrong type: "),
        4: ({"note": digest(big)}, "note: payload (too large: "),
        5: ({"photo": tampered}, "photo: payload (digest mismatch: "),
        6: ({"photo": "img/1.png"}, "photo: payload (no reference: img/1.png)"),
        7: ({"photo": digest(other)}, "photo: payload (missing: "),
        8: ({"photo": data_uri(jpeg)}, "wrong type: sent within the row"),
        9: ({"photo": "data:image/png;base64,*"}, "no reference: sent within"),
        10: ({"note": data_uri(big, "text/plain")}, "too large: sent within the row"),
        11: ({"photo": 5}, "no reference: 5"),
        12: ({"photo": lost * 9}, "no reference: sent within the row"),
    }
    chain.send("shop", [row(0, photo=known)])
    chain.send("shop", [row(n, **values) for n, (values, _) in wrong.items()])
    work(chain)
    found = rejected(chain)
    assert [one["id"] for one in table(chain)] == ["r0"]
    assert {n for n, (_, text) in wrong.items() if text not in found[f"r{n}"]} == set()
    events = [entry.event for entry in chain.log("batch-rejected")]
    reasons = [r for e in events if isinstance(e, BatchRejected) for r in e.reasons]
    assert {reason.check for reason in reasons} == {"payload"}
    assert not chain.log("ingest-dead-letter")


def test_killed_at_each_step_leaves_no_reference_without_its_payload(
    tmp_path: Path,
) -> None:
    """At most a payload that nobody refers to; and in the end the same dataset."""
    whole = DataChain(tmp_path / "whole", SPEC)
    whole.send("shop", rows()[:1])
    work(whole)
    burnt: set[str] = set()
    for steps in range(STEPS):
        chain = DataChain(tmp_path / str(steps), SPEC)
        chain.send("shop", rows()[:1])
        chain.fuse.steps_left = steps
        try:
            chain.work("ingest")
        except Killed as end:
            burnt.add(str(end))
        for entry in chain.log("batch-ingested"):
            for text in entry.event.rows["photo"].to_pylist():  # type: ignore[attr-defined]  # rows
                reference = read_reference(text)
                assert reference is not None
                assert chain.payloads.look(reference, 10**6) is not None
        work(chain)
        assert table(chain) == table(whole)
        if not chain.fuse.burnt_at:
            break
    assert {"after storing a payload", "before publishing"} <= burnt


def test_payloads_are_in_the_store_and_nowhere_else(chain: DataChain) -> None:
    """Broken messages too: their dead letters hold no value."""
    cut_off = b'[{"id": "x", "photo": "%s"' % data_uri(png()).encode()
    chain.send("shop", [row(1, photo=data_uri(png())), {"photo": data_uri(png())}])
    chain.send("shop", [row(2, note=data_uri(png(), "text/plain"))])
    chain.send("shop", [row(3, price=4.5, photo=data_uri(png()))], "labels")
    chain.send_bytes("shop", cut_off)
    work(chain)
    raw = {"observation-arrived", "label-arrived"}
    assert topics_with(chain, *SEEN_AS) == raw  # as upstream wrote it
    assert not files_with(chain.path, *SEEN_AS)
    assert files_with(chain.path / "artifacts/payloads", SEEN_AS[0])
    letters = [
        message
        for partition in range(PARTITIONS)
        for message in chain.broker.log("ingest-dead-letter", partition)
    ]
    broken, timeless = sorted(letters, key=lambda m: m.value or b"")
    assert broken.value is None
    assert digest(png()).encode() in (timeless.value or b"")  # to be sent again


def test_warn_lets_rows_go_on_without_what_is_lost(tmp_path: Path) -> None:
    spec = SPEC.model_copy(deep=True)
    photo = spec.data.attachments["photo"].model_copy(update={"severity": "warn"})
    spec.data.attachments["photo"] = photo
    chain = DataChain(tmp_path, spec)
    chain.send("shop", [row(1, photo="ab" * 32)])
    work(chain)
    assert [one["photo"] for one in table(chain)] == [None]
    (entry,) = chain.log("batch-validated")
    assert isinstance(entry.event, BatchValidated)
    (warning,) = entry.event.warnings
    assert (warning.check, warning.field) == ("payload", "photo")


def test_payloads_are_no_features(tmp_path: Path) -> None:
    """Also where features are inferred: not learned, not proposed, not trained on."""
    spec = parse_pipeline(
        "{name: shop, task: regression, data: {target: price, attachments: "
        "{photo: {media_types: [image/png]}}}}"
    )
    chain = DataChain(tmp_path, spec)
    chain.send("shop", [row(n, photo=data_uri(png()), price=n) for n in range(30)])
    work(chain)
    chain.send("shop", [{**row(1), "price": 7.0}], "labels")
    work(chain)
    event = chain.latest("shop")
    span = event.span.model_copy(update={"start": DAY, "end": DAY + timedelta(days=1)})
    rows, _ = read_rows(event.dataset, span, spec.data, None)
    assert rows.num_rows == 30
    assert set(features_of(rows, spec)) == {"weight", "customer_id"}
    proposed = [e.event for e in chain.log("schema-proposed")]
    assert not [e for e in proposed if "photo" in e.columns]  # type: ignore[attr-defined]  # proposals
    (entry, *_) = chain.log("batch-validated")
    assert isinstance(entry.event, BatchValidated)
    assert set(kinds_of(spec, entry.event.rows)) == {"weight", "customer_id", "extra"}
