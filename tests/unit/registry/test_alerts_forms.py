"""What each channel sends: its form, its signature, and what cannot be smuggled in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from driftloop.contracts.alerting import (
    EmailChannel,
    SlackChannel,
    TemplateChannel,
    WebhookChannel,
)
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import derived_id
from driftloop.registry.alerting import channels as sending
from driftloop.registry.alerting.advice import ADVICE, advice_for
from driftloop.registry.alerting.channels import NotSentError, Sender
from driftloop.registry.alerting.content import Content, content_of
from driftloop.registry.alerting.due import Notice
from driftloop.registry.alerting.forms import (
    as_html,
    mail,
    plain,
    slack,
    teams,
    webhook,
)
from driftloop.registry.alerting.life import Alert, Fact, alerts_of
from driftloop.registry.alerting.secrets import AlertSecret, Secrets
from driftloop.registry.alerting.templates import request_of
from driftloop.registry.egress import Egress
from driftloop.registry.settings import RegistrySettings
from driftloop.registry.signing import key_of, signature

from tests.unit.registry.alerts import raised
from tests.unit.registry.story import NAME

AT = datetime(2026, 11, 27, 12, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
ORIGIN = {"chain_id": "c", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
HOOK = "https://hooks.example.org/x"


def content(*, is_over: bool = False, **more: Any) -> Content:
    event = raised(**more)
    facts = [Fact("a1", AT, event, ORIGIN)]
    if is_over:
        over = AlertResolved(
            pipeline=NAME, condition=event.condition, at=AT, why="It is right again."
        )
        facts.append(Fact("a2", AT, over, ORIGIN))
    (alert,) = alerts_of(facts, AT - AT)
    reason = "resolved" if is_over else "raised"
    return content_of(Notice(alert, "c", reason, 0, AT), "https://loop.example.org")


NASTY = content(
    title='<b>a</b>\r\nBcc: x@y.z "}, {{secret.k}} <!channel>',
    detail='*x* <https://evil.example|click>\n[a](https://evil.example) "quoted" \\',
    owner="a@b.org\r\nX-Evil: 1",
)


def test_all_of_it_is_said() -> None:
    """What, since when, whose, why, what to do, where to look, and the trace."""
    text = plain(content())
    for part in (
        "Wrong values of temp", "168 of 168 rows", "What to do: Mend the source",
        NAME, "critical", "2026-11-27 12:00 UTC", "ada@example.org", TRACE,
        f"https://loop.example.org/#{NAME}",
    ):  # fmt: skip
        assert part in text
    over = plain(content(is_over=True))
    assert over.startswith("Over: Wrong values of temp")
    assert "It is right again." in over
    assert "What to do" not in over


def test_a_mail_is_the_same_each_time() -> None:
    """Equal Message-IDs, by which a mailbox knows a repeat; one thread an alert."""
    first = mail(content(), "loop@example.org", ["a@b.org"])
    second = mail(content(), "loop@example.org", ["a@b.org"])
    over = mail(content(is_over=True), "loop@example.org", ["a@b.org"])
    assert first["Message-ID"] == second["Message-ID"] != over["Message-ID"]
    assert first["References"] == over["References"]
    assert first["Subject"] == f"[critical] {NAME}: Wrong values of temp (range)"
    assert over["Subject"].startswith("[resolved]")
    types = [part.get_content_type() for part in first.walk()]
    assert types == ["multipart/alternative", "text/plain", "text/html"]


class Page(HTMLParser):
    """Which elements a page has, and what they link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]


def test_nothing_can_be_smuggled_into_a_mail() -> None:
    message = mail(NASTY, "loop@example.org", ["a@b.org"])
    assert message["Bcc"] is None
    assert message["X-Evil"] is None
    assert b"\nBcc:" not in message.as_bytes()
    page = Page(as_html(NASTY))
    assert "b" not in page.tags
    assert page.links == [f"https://loop.example.org/#{NAME}"]
    assert Page(as_html(NASTY).replace("&lt;b&gt;", "<b>")).tags.count("b") > 0


def test_slack_neither_mentions_nor_links() -> None:
    """Only plain text holds what an alert says; elsewhere it is escaped."""
    told = slack(NASTY)
    assert "<" not in told["text"]
    for block in told["blocks"]:
        texts = [block["text"]] if "text" in block else block["elements"]
        for text in texts:
            assert text["type"] != "mrkdwn" or "<" not in text["text"]
    kinds = [block["type"] for block in told["blocks"]]
    assert kinds == ["header", "section", "section", "context", "actions"]
    assert len(told["blocks"][0]["text"]["text"]) <= 150
    assert "header" in json.dumps(slack(content(title="x" * 999)))


def test_teams_shows_text_without_markup() -> None:
    told = teams(NASTY)
    card = told["attachments"][0]["content"]
    texts = json.dumps(card["body"])
    assert '"TextBlock"' not in texts  # it would render what alerts say as Markdown
    assert card["version"] == "1.4"
    assert card["body"][0]["style"] == "attention"
    style = teams(content(is_over=True))["attachments"][0]["content"]["body"][0][
        "style"
    ]
    assert style == "good"


def filled(body: str = "", url: str = HOOK, **more: Any) -> Any:
    channel = TemplateChannel(kind="template", url=url, body=body, **more)
    return request_of(channel, NASTY, {"k": "s3cret"})


def test_templates_write_each_value_as_its_place_needs() -> None:
    body = '{"t": "{{title}}", "d": "{{detail}}", "k": "{{secret.k}}"}'
    made = filled(body, f"{HOOK}?a={{{{title}}}}&b=1", headers={"X-T": "{{title}}"})
    found = json.loads(made.body)
    assert set(found) == {"t", "d", "k"}
    assert found["t"] == NASTY.title
    assert found["k"] == "s3cret"
    assert "{{secret.k}}" in found["t"]  # what an alert says is not looked at again
    assert parse_qs(urlsplit(made.url).query) == {"a": [NASTY.title], "b": ["1"]}
    assert "\n" not in made.headers["X-T"]
    assert made.headers["X-T"].isascii()
    form = filled("a={{title}}&b=1", content="form")
    assert parse_qs(form.body.decode()) == {"a": [NASTY.title], "b": ["1"]}


def test_what_an_alert_says_chooses_no_receiver() -> None:
    """Not even in the first piece of the path."""
    nasty = content(title="/../..//@evil.example:80/?x#")
    channel = TemplateChannel(kind="template", url="https://h.example.org/{{title}}")
    parts = urlsplit(request_of(channel, nasty, {}).url)
    assert (parts.hostname, parts.port, parts.fragment) == ("h.example.org", None, "")
    assert parts.path.count("/") == 1


# ── sending ─────────────────────────────────────────────────────────────────


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes, Any]]:
    """What leaves; names have the address that they say."""
    found: list[tuple[str, bytes, Any]] = []
    known = {"hooks.example.org": "93.184.215.14", "inside.example.org": "192.0.2.7"}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **kind: Any) -> list[Any]:
        flags = socket.AI_NUMERICHOST
        return [*real(known.get(host, host), port, flags=flags, **kind)]

    def send(self: Any, request: httpx.Request, **_: Any) -> httpx.Response:
        found.append((str(request.url), request.read(), request.headers))
        return httpx.Response(200, request=request, stream=httpx.ByteStream(b"ok"))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(httpx.Client, "send", send)
    return found


def sender(**secrets: Any) -> Sender:
    egress = Egress(
        ["hooks.example.org", "inside.example.org"], ["https"], False, "alerts",
        "DRIFTLOOP_REGISTRY_ALERT",
    )  # fmt: skip
    given = {name: AlertSecret.model_validate(each) for name, each in secrets.items()}
    return Sender(egress, Secrets(given), None, lambda: 1_700_000_000.5)


def test_a_webhook_is_signed_as_the_standard_says(calls: Any) -> None:
    """Checked as a receiver would, without our own code."""
    channel = WebhookChannel(kind="webhook", url=HOOK, secret="p")
    sender(p={"value": "whsec_" + base64.b64encode(b"k" * 32).decode()}).send(
        channel, content(), "default"
    )
    ((_, body, headers),) = calls
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"k" * 32, signed, hashlib.sha256).digest()
    wanted = f"v1,{base64.b64encode(digest).decode()}"
    assert headers["webhook-signature"] == wanted
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["webhook-id"] == content().notice_id
    told = json.loads(body)
    assert (told["type"], told["data"]["condition"]) == (
        "alert.raised",
        content().condition,
    )
    assert webhook(content()) == body
    other = hmac.new(b"x" * 32, signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] != f"v1,{base64.b64encode(other).decode()}"


def test_the_page_tells_how_to_check_it(
    calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function of docs/alerts.md takes ours, and no other body, secret or time."""
    page = (Path(__file__).parents[3] / "docs/alerts.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)  # noqa: S102 - our page
    monkeypatch.setattr("time.time", lambda: 1_700_000_010.0)
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    channel = WebhookChannel(kind="webhook", url=HOOK, secret="p")
    sender(p={"value": secret}).send(channel, content(), "default")
    ((_, body, headers),) = calls
    genuine = names["is_genuine"]
    assert genuine(secret, headers, body)
    assert not genuine(secret, headers, body + b" ")
    assert not genuine("whsec_eA==", headers, body)
    monkeypatch.setattr("time.time", lambda: 1_700_001_000.0)
    assert not genuine(secret, headers, body)


def test_the_standards_own_example() -> None:
    """Source: the reference libraries' test vector of Standard Webhooks."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://inside.example.org/x", "is at 192.0.2.7, which is not public"),
        ("https://127.0.0.1/x", "'127.0.0.1' is no host that alerts may call"),
        ("https://169.254.169.254/latest/meta-data", "is no host that alerts"),
        ("http://hooks.example.org/x", "DRIFTLOOP_REGISTRY_ALERT_SCHEMES"),
        ("https://hooks.example.org.evil.example/x", "is no host that alerts"),
    ],
)
def test_addresses_that_nothing_is_sent_to(calls: Any, url: str, problem: str) -> None:
    """Of a chat (an address the operator gave), a webhook and a template alike."""
    key = {"value": "k", "hosts": ["hooks.example.org"]}
    mine = sender(u={"value": url}, k=key)
    for channel in (
        SlackChannel(kind="slack", url_secret="u"),
        WebhookChannel(kind="webhook", url=url, secret="k"),
        TemplateChannel(kind="template", url=url),
    ):
        with pytest.raises(NotSentError, match=problem):
            mine.send(channel, content(), "default")
    assert calls == []


def test_an_allowed_address_is_called(calls: Any) -> None:
    """The negative control: the connection goes to the address that was checked."""
    sender(u={"value": HOOK}).send(
        SlackChannel(kind="slack", url_secret="u"), content(), "default"
    )
    ((url, _, headers),) = calls
    assert url == "https://93.184.215.14/x"
    assert headers["host"] == "hooks.example.org"


def test_a_secret_goes_where_it_was_given_for(calls: Any) -> None:
    """A pipeline file can neither send it elsewhere nor take another project's."""

    def sms(url: str = HOOK, name: str = "k") -> TemplateChannel:
        headers = {"Authorization": f"Bearer {{{{secret.{name}}}}}"}
        return TemplateChannel(kind="template", url=url, headers=headers)

    mine = sender(
        k={"value": "v", "hosts": ["hooks.example.org"], "projects": ["credit"]},
        elsewhere={"value": "v", "hosts": ["pager.example.org"]},
        nowhere={"value": "v"},
    )
    mine.send(sms(), content(), "credit")
    assert calls[0][2]["authorization"] == "Bearer v"
    for project, channel, problem in (
        ("rides", sms(), "not for project 'rides'"),
        ("credit", sms(name="elsewhere"), "is not for 'hooks.example.org'"),
        ("credit", sms(name="nowhere"), "is not for 'hooks.example.org'"),
        ("credit", sms(name="missing"), "there is no secret 'missing'"),
    ):
        with pytest.raises(NotSentError, match=problem):
            mine.send(channel, content(), project)
    assert len(calls) == 1


def test_answers_that_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = sender(u={"value": HOOK})
    channel = SlackChannel(kind="slack", url_secret="u")
    for status, is_final in ((500, False), (302, False), (410, True)):
        answer = sending.Answer(status, "")
        monkeypatch.setattr(Egress, "post", lambda *_, said=answer: said)
        with pytest.raises(NotSentError, match=f"HTTP {status}") as caught:
            mine.send(channel, content(), "default")
        assert caught.value.is_final is is_final


def test_mail_without_a_server_says_which_setting() -> None:
    channel = EmailChannel(kind="email", to=["a@b.org"])
    with pytest.raises(NotSentError, match="DRIFTLOOP_REGISTRY_ALERT_SMTP_HOST"):
        sender().send(channel, content(), "default")


def test_advice_names_what_it_is_about() -> None:
    for kind in ADVICE:
        found = advice_for("a1", "churn", f"{kind}/7/x")
        assert "{" not in found
    staged = advice_for("a1", "churn", "staging/rolled-back/x")
    assert staged == advice_for("a1", "churn", "rolled-back/x")
    assert advice_for("a1", "churn", "never/heard") == (
        "See what led to it: driftloop alerts show a1"
    )


def test_settings_refuse_a_password_in_the_open() -> None:
    fields: dict[str, Any] = {
        "alert_smtp_host": "mail.example.org", "alert_smtp_username": "loop",
        "alert_smtp_password": "p",
    }  # fmt: skip
    RegistrySettings(**fields)
    with pytest.raises(ValueError, match="use starttls or tls"):
        RegistrySettings(**fields, alert_smtp_security="none")
    with pytest.raises(ValueError, match="ALERT_EMAIL_FROM"):
        RegistrySettings(alert_email_from="nobody")
    shown = repr(
        RegistrySettings(alert_secrets={"k": AlertSecret(value="s3cret")})  # type: ignore[arg-type]  # pydantic reads it
    )
    assert "s3cret" not in shown


def test_ids_follow_from_what_a_notice_is_about() -> None:
    alert = Alert("a1", raised(), AT, AT, ORIGIN)
    found = Notice(alert, "c", "raised", 0, AT)
    assert found.id == derived_id("a1/c/raised/0", "alert-notice", 0)
    others = [("d", "raised", 0), ("c", "repeated", 1), ("c", "repeated", 2)]
    ids = {Notice(alert, c, r, n, AT).id for c, r, n in others}  # type: ignore[arg-type]  # reasons
    assert len(ids | {found.id}) == 4
