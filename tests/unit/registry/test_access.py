"""The first admin's token, and a pipeline file that lets go of people."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.identity import TokenChanged
from driftloop.registry.access import first_admin
from driftloop.registry.core import loosens
from driftloop.runtime.identity import tokens
from driftloop.runtime.settings import Settings
from driftloop.runtime.state import StateView

from tests.unit.registry import story

OIDC = {"issuer": "i", "audience": "a", "jwks": "https://i/keys"}


class Requests:
    """Keeps what would be published."""

    def __init__(self) -> None:
        self.published: list[Event] = []

    def publish(self, event: Event, event_id: str) -> None:
        self.published.append(event)


def begin(*known: TokenChanged, **settings: Any) -> list[Event]:
    """Start where these tokens are known; return what was published."""
    view = StateView(TokenChanged, {event.key: event for event in known})
    view.caught_up.set()
    requests = Requests()
    first_admin(
        Settings.model_validate(settings),
        view,
        requests,  # type: ignore[arg-type]  # a fake
        threading.Event(),
    )
    return requests.published


def admin(**more: Any) -> TokenChanged:
    new = tokens.mint()
    return TokenChanged.model_validate(
        {
            "token_id": new.token_id,
            "name": "ada",
            "subject": "ada",
            "sha256": new.sha256,
            "roles": ["admin@*"],
            "issued_by": "registry",
            "issued_at": datetime.now(UTC),
            **more,
        }
    )


def test_first_admin_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Shown in clear, kept as a hash; where an admin is, no other is made."""
    (event,) = begin()
    assert isinstance(event, TokenChanged)
    (token,) = re.findall(r"dlt_\S+", capsys.readouterr().err)
    assert event.sha256 == tokens.digest(token)
    assert token not in event.model_dump_json()
    assert event.roles == ["admin@*"]
    assert begin(event) == []


@pytest.mark.parametrize(
    "more",
    [
        {"revoked_at": datetime.now(UTC)},
        {"expires_at": datetime.now(UTC) - timedelta(days=1)},
        {"roles": ["admin@credit"]},
        {"roles": ["auditor@*"]},
    ],
)
def test_who_is_no_admin(more: dict[str, Any]) -> None:
    """A revoked, expired or lesser one does not keep the way in open."""
    assert len(begin(admin(**more))) == 1
    assert begin(admin(**more), admin()) == []


def test_no_first_admin_where_there_is_another_way_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert begin(api_token="a long random text") == []
    assert begin(oidc=OIDC) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("before", "after", "is_so"),
    [
        ({}, {"description": "for people"}, False),
        ({}, {"train": {"metric": "rmse"}}, False),
        ({}, {"automation": "full"}, True),
        ({}, {"gate": {"confidence": 0.5}}, True),
        ({}, {"rollout": {"approval": {"people": 2}}}, True),
        ({}, {"project": "rides"}, True),
        ({}, {"shared_with": ["rides"]}, True),
        (None, {"automation": "full"}, True),
        (None, {}, False),
    ],
)
def test_loosens(
    before: dict[str, Any] | None, after: dict[str, Any], is_so: bool
) -> None:
    """What changes who decides, or what a model must be like, is not for who trains."""
    common = {"automation": "approve"}
    old = None if before is None else story.spec(**common, **before)
    assert loosens(old, story.spec(**{**common, **after})) == is_so
