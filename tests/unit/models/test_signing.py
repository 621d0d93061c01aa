"""Keys are private to their owner, and only trusted ones are believed."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from driftloop.models.signing import (
    KeyFileError,
    SignatureRefused,
    Signer,
    TrustedKeys,
    generate_key,
)


def test_a_generated_key_signs_and_is_verified(tmp_path):
    made = generate_key(tmp_path / "k" / "private.pem", tmp_path / "t" / "a.pem")
    signer = Signer.from_file(tmp_path / "k" / "private.pem")
    trusted = TrustedKeys.from_folder(tmp_path / "t")
    assert signer.key_id == made.key_id
    assert trusted.key_ids == {made.key_id}
    trusted.verify(signer.key_id, b"data", signer.sign(b"data"))


def test_the_private_key_is_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "private.pem"
    generate_key(path, tmp_path / "public.pem")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Signer.from_file(path)


def test_a_private_key_is_never_overwritten(tmp_path):
    generate_key(tmp_path / "private.pem", tmp_path / "public.pem")
    with pytest.raises(FileExistsError):
        generate_key(tmp_path / "private.pem", tmp_path / "public.pem")


def test_a_file_that_is_no_key_is_named(tmp_path):
    path = tmp_path / "private.pem"
    path.touch(mode=0o600)
    with pytest.raises(KeyFileError, match=r"private\.pem"):
        Signer.from_file(path)
    with pytest.raises(KeyFileError, match="cannot read"):
        Signer.from_file(tmp_path / "none.pem")
    with pytest.raises(KeyFileError, match="no public key"):
        TrustedKeys.from_pems([b"text"])


def test_other_data_and_other_keys_are_refused():
    signer, other = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))
    trusted = TrustedKeys.from_pems([signer.public_pem])
    with pytest.raises(SignatureRefused, match="does not fit"):
        trusted.verify(signer.key_id, b"datA", signer.sign(b"data"))
    with pytest.raises(SignatureRefused, match="not trusted"):
        trusted.verify(other.key_id, b"data", other.sign(b"data"))


def test_a_missing_folder_trusts_nobody(tmp_path):
    assert TrustedKeys.from_folder(tmp_path / "none").key_ids == frozenset()
