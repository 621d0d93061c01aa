"""Where lineage may go is checked before anything goes there."""

from __future__ import annotations

import pytest
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.settings import load_settings

FAR = "https://marquez.example.org/api/v1/lineage"


def settings(**values: object) -> RegistrySettings:
    return load_settings(RegistrySettings, "registry", **values)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"openlineage_url": FAR}, "OPENLINEAGE_HOSTS"),
        ({"openlineage_url": "ftp://127.0.0.1/"}, "not an http or https URL"),
        ({"openlineage_url": "http://ann:secret@127.0.0.1/"}, "no user or password"),
        (
            {
                "openlineage_url": FAR.replace("https", "http"),
                "openlineage_hosts": ["marquez.example.org"],
                "openlineage_token": "secret",
            },
            "by https only",
        ),
    ],
)
def test_a_collector_that_is_not_allowed(values: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        settings(**values)
    assert why in str(refused.value)


def test_a_collector_that_is_allowed() -> None:
    """Nothing is sent by default; loopback needs no list; a list opens one host."""
    assert settings().openlineage_url is None
    near = settings(
        openlineage_url="http://127.0.0.1:5000/", openlineage_token="hidden-word"
    )
    assert "hidden-word" not in repr(near)
    settings(openlineage_url=FAR, openlineage_hosts=["marquez.example.org"])
