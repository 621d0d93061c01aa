"""Uploads in parts, side by side: what the server remembers of them is nothing.

An upload's id, each part's grant and each part's tag are signed, and say all there is
to know. So any replica takes any part, and a restart forgets no upload. A part lies in
the store under its digest until the upload is complete; the sweep takes it away later.
A tag holds for its part of its upload only: digests that a client knows open nothing.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from driftloop.registry.mlflow.call import Json, number_of, text_of
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.runtime.drawn import drawn_secret
from driftloop.runtime.settings import Settings

VALID_S = 24 * 3600
MAX_PARTS = 10_000
PURPOSE = b"driftloop/registry/mlflow/parts/1"


class Upload(NamedTuple):
    """What an upload's id says.

    Attributes
    ----------
    place : of the file to be; see ``places.py``.
    until_s : seconds since 1970 at which it ends.
    """

    place: str
    part_count: int
    until_s: int


class Part(NamedTuple):
    """An uploaded part's bytes."""

    sha256: str
    size_bytes: int


def signing_secret(settings: Settings) -> bytes:
    """Return what grants are signed with: the installation's token, or a file.

    Where people and programs have tokens of their own there may be no token of the
    installation. Replicas need one secret, so they need that token, or one home.
    """
    if settings.api_token is not None:
        return settings.api_token.get_secret_value().encode()
    return drawn_secret(settings.home / "secrets" / "registry-parts-key")


class Signer:
    """Makes and reads ids, grants and tags.

    Parameters
    ----------
    secret : of the installation; the key is derived from it.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, PURPOSE, "sha256")

    def _signature(self, *texts: str) -> str:
        message = json.dumps(texts).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def id_of(self, upload: Upload) -> str:
        content = json.dumps([*upload, secrets.token_hex(8)]).encode()
        text = base64.urlsafe_b64encode(content).decode().rstrip("=")
        return f"{text}.{self._signature('upload', text)}"

    def upload_of(self, upload_id: str, now_s: float) -> Upload:
        """Return what an id says.

        Raises
        ------
        Refusal
            When it was not made here, or is over.
        """
        text, _, signature = upload_id.partition(".")
        if not _same(signature, self._signature("upload", text)):
            raise invalid("upload_id: not one that was given here")
        padded = text + "=" * (-len(text) % 4)
        upload = Upload(*json.loads(base64.urlsafe_b64decode(padded))[:3])
        if upload.until_s < now_s:
            raise invalid("upload_id: this upload is over; begin it anew")
        return upload

    def grant_of(self, upload_id: str, number: int) -> str:
        return self._signature("grant", upload_id, str(number))

    def allows(self, grant: str, upload_id: str, number: int) -> bool:
        return _same(grant, self.grant_of(upload_id, number))

    def tag_of(self, upload_id: str, number: int, part: Part) -> str:
        text = f"{part.sha256}-{part.size_bytes}"
        return f"{text}-{self._signature('part', upload_id, str(number), text)}"

    def parts_of(
        self, upload_id: str, upload: Upload, items: Sequence[Json]
    ) -> list[Part]:
        """Return the parts that a client says it has sent, in order.

        Raises
        ------
        Refusal
            When one is missing, is there twice, or was not sent for this upload.
        """
        found: dict[int, Part] = {}
        for place, item in enumerate(items):
            number = number_of(item.get("part_number"), f"parts[{place}].part_number")
            tag = text_of(item.get("etag") or "", f"parts[{place}].etag")
            found[number] = self._part(upload_id, number, tag.strip('"'), place)
        wanted = list(range(1, upload.part_count + 1))
        if sorted(found) != wanted or len(items) != len(wanted):
            raise invalid(f"parts: not each of 1 to {upload.part_count} once")
        return [found[number] for number in wanted]

    def _part(self, upload_id: str, number: int, tag: str, place: int) -> Part:
        sha256, _, rest = tag.partition("-")
        size, _, _ = rest.partition("-")
        if size.isascii() and size.isdigit():
            part = Part(sha256, int(size))
            if _same(tag, self.tag_of(upload_id, number, part)):
                return part
        raise _foreign(place)


def _foreign(place: int) -> Refusal:
    return invalid(f"parts[{place}].etag: not what this server answered to that part")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
