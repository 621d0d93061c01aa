"""What bytes are is told by the bytes; what a row refers to, by its digest."""

import re

import pytest
from driftloop.contracts.payloads import (
    SUFFIXES,
    Meter,
    measured,
    read_reference,
    to_reference,
)
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline

from tests.unit.payloads import digest, png

KNOWN = {
    "image/png": png(),
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\1" * 20,
    "image/gif": b"GIF89a\1\0\1\0\0\0\0;",
    "image/webp": b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 20,
    "image/bmp": b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0" + b"\0" * 20,
    "image/tiff": b"II*\0\x08\0\0\0" + b"\0" * 20,
    "audio/wav": b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 20,
    "audio/flac": b"fLaC\0\0\0\x22" + b"\0" * 20,
    "audio/ogg": b"OggS\0\2" + b"\0" * 20,
    "audio/mpeg": b"\xff\xfb\x90\x64" + b"\0" * 20,
    "application/pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "text/plain": "Grüße,\n\tAda".encode(),
}
DIGEST = "ab" * 32
FILE = (
    "{name: shop, task: binary, data: {target: y, features: {a: {}}, attachments: %s}}"
)


def test_each_known_type_is_told_and_has_a_suffix() -> None:
    assert {kind: measured(data).media_type for kind, data in KNOWN.items()} == {
        kind: kind for kind in KNOWN
    }
    assert KNOWN.keys() == SUFFIXES.keys()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\1\2\3",
        b"text and \0 a zero",
        b"\xff\xfet\0e\0x\0t\0",  # UTF-16, whose mark is nearly a frame of MP3
        "broken €".encode()[:-1],
        b"RIFF\x24\0\0\0AVI LIST" + b"\xff" * 9,
        b"MZ\x90\0" + b"\0" * 60,
        b"PK\3\4" + b"\xff" * 30,
    ],
)
def test_anything_else_is_nothing(data: bytes) -> None:
    assert measured(data).media_type is None


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_pieces_do_not_matter(size: int) -> None:
    for data in KNOWN.values():
        meter = Meter()
        for start in range(0, len(data), size):
            meter.update(data[start : start + size])
        assert meter.found() == measured(data)


def test_a_row_names_a_digest_in_several_forms() -> None:
    uri = f"payload:shop/sha256/{DIGEST}"
    for value in (
        DIGEST,
        DIGEST.upper(),
        f"sha256:{DIGEST}",
        uri,
        {"sha256": DIGEST, "size_bytes": 3, "uri": "s3://elsewhere/x"},
    ):
        found = to_reference("shop", value)
        assert found is not None
        assert (found.uri, found.media_type) == (uri, None)
    claimed = to_reference("shop", {"sha256": DIGEST, "media_type": "image/JPG; q=1"})
    assert claimed is not None
    assert read_reference(claimed.text()) == claimed
    assert claimed.media_type == "image/jpeg"


@pytest.mark.parametrize(
    "value",
    [
        "ab" * 31,
        f"sha512:{DIGEST}",
        f"payload:other/sha256/{DIGEST}",
        f"artifact:sha256/{DIGEST}",
        f"file:///etc/{DIGEST}",
        f"payload:shop/sha256/../{DIGEST}",
        {"sha256": 5},
        {"sha256": DIGEST, "media_type": "image/png injected words"},
        {"sha256": DIGEST, "media_type": 5},
        {"uri": f"payload:shop/sha256/{DIGEST}"},
        17,
        [DIGEST],
        None,
    ],
)
def test_a_row_cannot_name_a_place(value: object) -> None:
    assert to_reference("shop", value) is None


def test_the_pipeline_file_says_which_attachments_there_are() -> None:
    spec = parse_pipeline(FILE % "{photo: {media_types: [image/png]}}")
    photo = spec.data.attachments["photo"]
    assert (photo.max_bytes, photo.required, photo.severity) == (
        8 * 1024 * 1024,
        False,
        "quarantine",
    )


@pytest.mark.parametrize(
    ("attachments", "problem"),
    [
        ("{a: {media_types: [image/png]}}", "already the name of another column"),
        ("{id: {media_types: [image/png]}}", "already the name of another column"),
        ("{p: {media_types: []}}", "media_types"),
        ("{p: {media_types: [image/svg+xml]}}", "media_types"),
        ("{p: {media_types: [image/png], max_bytes: 100000000}}", "max_bytes"),
        (
            "{p: {media_types: [image/png]}}, privacy: {p: hash}",
            "only drop has an effect",
        ),
        (
            "{p: {media_types: [image/png], subject: q}, "
            "q: {media_types: [image/png]}}",
            "name a column that says whose",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(attachments: str, problem: str) -> None:
    with pytest.raises(PipelineFileError, match=re.escape(problem)):
        parse_pipeline(FILE % attachments)


def test_the_digest_is_that_of_the_bytes() -> None:
    assert measured(png()).sha256 == digest(png())
