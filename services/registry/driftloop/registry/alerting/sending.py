"""The sender of an installation, from its settings."""

from driftloop.registry.alerting.channels import Mailing, Sender
from driftloop.registry.alerting.secrets import Secrets
from driftloop.registry.alerting.smtp import Server
from driftloop.registry.egress import Egress
from driftloop.registry.settings import RegistrySettings

SETTING = "DRIFTLOOP_REGISTRY_ALERT"


def sender_of(settings: RegistrySettings) -> Sender:
    egress = Egress(
        settings.alert_hosts,
        settings.alert_schemes,
        settings.alert_private_addresses,
        "alerts",
        SETTING,
    )
    return Sender(egress, Secrets(settings.alert_secrets), _mailing(settings))


def _mailing(settings: RegistrySettings) -> Mailing | None:
    if settings.alert_smtp_host is None:
        return None
    password = settings.alert_smtp_password
    server = Server(
        settings.alert_smtp_host,
        settings.alert_smtp_port,
        settings.alert_smtp_security,
        settings.alert_smtp_username,
        password.get_secret_value() if password else "",
        settings.alert_smtp_trust,
    )
    return Mailing(server, settings.alert_email_from, settings.alert_email_domains)
