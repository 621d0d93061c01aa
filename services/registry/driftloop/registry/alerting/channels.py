"""Sends a notice by a channel; the only place from which alerts leave."""

import json
import time
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from driftloop.contracts.alerting import (
    ADDRESS,
    OWNER,
    Channel,
    EmailChannel,
    SlackChannel,
    TeamsChannel,
    WebhookChannel,
)
from driftloop.registry.alerting.content import Content
from driftloop.registry.alerting.forms import mail, slack, teams, webhook
from driftloop.registry.alerting.secrets import SecretRefusedError, Secrets
from driftloop.registry.alerting.smtp import MailError, Server
from driftloop.registry.alerting.templates import request_of
from driftloop.registry.egress import Answer, Egress, RefusedError, UnreachableError
from driftloop.registry.signing import key_of, signature

GONE = 410
JSON = {"Content-Type": "application/json"}


class NotSentError(Exception):
    """A receiver does not have a notice; ``is_final``: trying again has no point."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


@dataclass(frozen=True)
class Mailing:
    """Mail of an installation.

    Attributes
    ----------
    domains : that mail may go to; ``*``: every one.
    """

    server: Server
    sender: str
    domains: Sequence[str]


@dataclass(frozen=True)
class Sender:
    """Sends; thread-safe, and keeps nothing.

    Attributes
    ----------
    mailing : None: no mail server is set.
    now_s : the clock that signatures name.
    """

    egress: Egress
    secrets: Secrets
    mailing: Mailing | None
    now_s: Callable[[], float] = time.time

    def send(self, channel: Channel, content: Content, project: str) -> None:
        """Return once the receiver has it.

        Raises
        ------
        NotSentError
            When it does not.
        """
        try:
            if isinstance(channel, EmailChannel):
                self._mail(channel, content)
                return
            answer = self._call(channel, content, project)
        except MailError as error:
            raise NotSentError(str(error), is_final=error.is_final) from error
        except (RefusedError, UnreachableError, SecretRefusedError) as error:
            raise NotSentError(str(error)) from error
        if not answer.is_success:
            is_final = answer.status == GONE
            raise NotSentError(f"HTTP {answer.status}", is_final=is_final)

    def _call(self, channel: Channel, content: Content, project: str) -> Answer:
        if isinstance(channel, SlackChannel | TeamsChannel):
            url = self.secrets.url(channel.url_secret, project)
            card = slack if isinstance(channel, SlackChannel) else teams
            return self.egress.post(url, json.dumps(card(content)).encode(), JSON)
        if isinstance(channel, WebhookChannel):
            return self._signed(channel, content, project)
        assert not isinstance(channel, EmailChannel)  # noqa: S101 - see the caller
        secrets = {
            name: self.secrets.sent_to(name, project, channel.url)
            for name in channel.secrets
        }
        made = request_of(channel, content, secrets)
        return self.egress.request(made.method, made.url, made.body, made.headers)

    def _signed(
        self, channel: WebhookChannel, content: Content, project: str
    ) -> Answer:
        secret = self.secrets.key(channel.secret, project)
        try:
            key = key_of(secret)
        except Base64Error as error:
            raise SecretRefusedError(
                f"secret {channel.secret!r} begins with whsec_ and is no base64"
            ) from error
        body, now_s = webhook(content), int(self.now_s())
        headers = {
            **JSON,
            "webhook-id": content.notice_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": signature(key, content.notice_id, now_s, body),
        }
        return self.egress.post(channel.url, body, headers)

    def _mail(self, channel: EmailChannel, content: Content) -> None:
        if self.mailing is None:
            raise NotSentError(
                "there is no mail server; the operator names it in "
                "DRIFTLOOP_REGISTRY_ALERT_SMTP_HOST"
            )
        to = receivers(channel, content.owner)
        if not to:
            raise NotSentError(
                f"the pipeline's owner ({content.owner or 'none'}) is no address; "
                "write one in the file's `owner`, or in the channel's `to`",
                is_final=True,
            )
        allowed = [each.lower() for each in self.mailing.domains]
        for address in to:
            if "*" not in allowed and address.rpartition("@")[2].lower() not in allowed:
                raise NotSentError(
                    f"mail may not go to {address}; the operator lists domains in "
                    "DRIFTLOOP_REGISTRY_ALERT_EMAIL_DOMAINS"
                )
        sender = self.mailing.sender
        self.mailing.server.send(mail(content, sender, to), sender, to)


def receivers(channel: EmailChannel, owner: str) -> list[str]:
    """Return the addresses that a mail goes to, each once.

    >>> receivers(EmailChannel(kind="email", to=["owner", "a@b.org"]), "a@b.org")
    ['a@b.org']
    """
    to = [owner if each == OWNER else each for each in channel.to]
    return [each for each in dict.fromkeys(to) if ADDRESS.fullmatch(each)]
