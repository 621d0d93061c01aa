"""Settings of every service that opens model packages."""

from pathlib import Path

from driftloop.runtime.settings import Settings
from pydantic import Field


class PackageSettings(Settings):
    """The common settings, and whose packages are trusted."""

    trusted_keys: Path | None = Field(
        default=None,
        description="folder of the signers' public keys, *.pem; "
        "default: keys/trusted under home",
    )

    @property
    def trusted_keys_folder(self) -> Path:
        return self.trusted_keys or self.home / "keys" / "trusted"
