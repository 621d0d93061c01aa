"""The runner's Ed25519 says what a library says."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from driftloop.cli.edge.runner.errors import Refused
from driftloop.cli.edge.runner.signature import (
    ORDER,
    is_signed,
    key_id,
    key_in,
    signed_bytes,
)
from driftloop.models import package, signing
from driftloop.models.signing import Signer
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.support import examples

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
KEY = key_in(SIGNER.public_pem)
SEEDS = st.binary(min_size=32, max_size=32)


def library_says(key: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_the_example_of_the_standard() -> None:
    """Source: RFC 8032, 7.1, test 3 (a message of two bytes)."""
    key = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    signature = (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    known = bytes.fromhex(key), b"\xaf\x82", bytes.fromhex(signature)
    assert is_signed(*known)
    assert not is_signed(known[0], b"\xaf\x83", known[2])


@settings(max_examples=examples(30))
@given(SEEDS, st.binary(max_size=300))
def test_what_was_signed_is_signed(seed: bytes, data: bytes) -> None:
    signer = Signer(Ed25519PrivateKey.from_private_bytes(seed))
    key, signature = key_in(signer.public_pem), signer.sign(data)
    assert is_signed(key, data, signature)
    assert key_id(key) == signer.key_id
    assert not is_signed(key, data + b".", signature)


@settings(max_examples=examples(60))
@given(st.integers(0, 64 * 8 - 1), st.integers(0, 32 * 8 - 1))
def test_one_other_bit_is_judged_as_by_the_library(of_it: int, of_key: int) -> None:
    data, signature = b"a manifest", SIGNER.sign(b"a manifest")
    for key, changed in (
        (KEY, flipped(signature, of_it)),
        (flipped(KEY, of_key), signature),
    ):
        assert is_signed(key, data, changed) == library_says(key, data, changed)
        assert not is_signed(key, data, changed)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@settings(max_examples=examples(60))
@given(SEEDS, st.binary(min_size=64, max_size=64))
def test_noise_is_no_signature(key: bytes, signature: bytes) -> None:
    assert is_signed(key, b"x", signature) == library_says(key, b"x", signature)


def test_a_second_form_of_a_signature_is_refused() -> None:
    """The scalar plus the order of the group fits the equation too."""
    signature = SIGNER.sign(b"x")
    again = int.from_bytes(signature[32:], "little") + ORDER
    other = signature[:32] + again.to_bytes(32, "little")
    assert is_signed(KEY, b"x", signature)
    assert not is_signed(KEY, b"x", other)
    assert not library_says(KEY, b"x", other)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_another_length_is_refused(length: int) -> None:
    assert not is_signed(KEY, b"x", bytes(length))


def test_bytes_and_ids_are_those_of_the_packages() -> None:
    kind = package.PAYLOAD_TYPE
    assert signed_bytes(kind, b"{}") == package.signed_bytes(b"{}")
    public = Ed25519PublicKey.from_public_bytes(KEY)
    assert key_id(KEY) == signing.key_id(public)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff",
        SIGNER.public_pem.replace(b"PUBLIC", b"PRIVATE"),
        SIGNER.public_pem[:40],
        SIGNER.public_pem.replace(b"MC", b"MD"),
    ],
)
def test_another_file_is_no_key(pem: bytes) -> None:
    with pytest.raises(Refused, match="the signer's key is no"):
        key_in(pem)
