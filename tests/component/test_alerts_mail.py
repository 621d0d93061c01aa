"""Mail to a real server: encrypted or not at all, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.local.processes import free_port
from driftloop.registry.alerting.forms import mail
from driftloop.registry.alerting.smtp import MailError, Server

from tests.component.browser import CHROMIUM, Browser
from tests.component.smtp_receiver import LOGIN, MailReceiver
from tests.unit.registry.test_alerts_forms import content

pytestmark = [pytest.mark.slow]
SENDER, ADA = "loop@example.org", "ada@example.org"


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[MailReceiver]:
    with MailReceiver(tmp_path) as found:
        yield found


def server(receiver: MailReceiver, **more: Any) -> Server:
    fields: dict[str, Any] = {
        "host": "127.0.0.1", "port": receiver.port, "security": "starttls",
        "username": LOGIN[0], "password": LOGIN[1],
        "trust": str(receiver.certificate),
    }  # fmt: skip
    return Server(**{**fields, **more})


def send(to: Server, *receivers: str) -> None:
    names = list(receivers or (ADA,))
    to.send(mail(content(), SENDER, names), SENDER, names)


def refused(to: Server, *receivers: str) -> MailError:
    with pytest.raises(MailError) as caught:
        send(to, *receivers)
    return caught.value


def test_encrypted_and_logged_in(receiver: MailReceiver) -> None:
    send(server(receiver))
    (taken,) = receiver.taken
    assert (taken.is_encrypted, taken.is_logged_in, taken.to) == (True, True, [ADA])
    assert taken.message["Message-ID"] == f"<{content().notice_id}@example.org>"


def test_encrypted_from_the_first_byte(tmp_path: Path) -> None:
    with MailReceiver(tmp_path, "first") as receiver:
        send(server(receiver, security="tls"))
        assert receiver.taken[0].is_encrypted


def test_nothing_goes_in_the_open(tmp_path: Path) -> None:
    """A server, or who stands before it, that offers no TLS gets no password."""
    with MailReceiver(tmp_path, "none") as receiver:
        problem = refused(server(receiver))
        assert "STARTTLS" in str(problem)
        assert (problem.is_final, receiver.taken) == (False, [])
        send(server(receiver, security="none", username=""))  # as asked for
        assert not receiver.taken[0].is_encrypted


def test_a_server_that_proves_nothing_gets_nothing(receiver: MailReceiver) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused(server(receiver, trust=None)))
    problem = refused(server(receiver, host="localhost"))  # it is another name's
    assert "CERTIFICATE_VERIFY_FAILED" in str(problem)
    assert receiver.taken == []


def test_what_passes_and_what_does_not(receiver: MailReceiver) -> None:
    """A wrong password and a busy server may be mended, a refused mail not."""
    wrong = refused(server(receiver, password="another"))
    assert (wrong.is_final, str(wrong)[:3]) == (False, "535")
    assert "another" not in str(wrong)
    receiver.reply = "451 later"
    assert not refused(server(receiver)).is_final
    receiver.reply = "554 never"
    assert refused(server(receiver)).is_final
    assert receiver.taken == []


def test_receivers_that_are_not_known(receiver: MailReceiver) -> None:
    """Whoever is known has it, so it is not sent again; it is said who has not."""
    problem = refused(server(receiver), ADA, "gone@example.org")
    assert problem.is_final
    assert "gone@example.org: 550" in str(problem)
    assert [taken.to for taken in receiver.taken] == [[ADA]]
    assert refused(server(receiver), "gone@example.org").is_final


def test_nobody_is_there(receiver: MailReceiver) -> None:
    port = free_port()
    problem = refused(server(receiver, port=port))
    assert (problem.is_final, f":{port}" in str(problem)) == (False, True)


@pytest.mark.browser
@pytest.mark.skipif(
    CHROMIUM is None, reason="needs the chromium browser: apt-get install chromium"
)
def test_a_phone_shows_it_whole_and_dark_where_asked(
    receiver: MailReceiver, tmp_path: Path
) -> None:
    send(server(receiver))
    body = receiver.taken[0].message.get_body(("html",))
    assert body is not None
    page = body.get_content()
    backs = {}
    with Browser(tmp_path / "profile") as browser:
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.call("Emulation.setEmulatedMedia", features=[feature])
            assert width_of(browser, tmp_path / f"{scheme}.html", page) <= 390
            back = "getComputedStyle(document.body).backgroundColor"
            backs[scheme] = browser.evaluate(back)
        assert backs == {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}
        assert browser.complaints == []
        without = page.replace('name="viewport"', 'name="none"')  # negative control
        assert width_of(browser, tmp_path / "without.html", without) > 390


def width_of(browser: Browser, file: Path, page: str) -> int:
    """Return how wide a page is on a phone."""
    file.write_text(page, encoding="utf-8")
    browser.open(file.as_uri(), width=390, height=844)
    name = f"location.href.endsWith({file.name!r})"
    browser.wait_for(f"{name} && document.readyState == 'complete'")
    found: int = browser.evaluate("document.documentElement.scrollWidth")
    return found
