"""What can change in the webhooks that MLflow's clients keep, and what was delivered.

Part of :data:`driftloop.contracts.tracking.Change`. What is to be delivered follows
from the other changes; what was is said here, so that a rebuild repeats nothing.
"""

from typing import Literal

from driftloop.contracts.base import Value
from pydantic import Field


class WebhookSaved(Value):
    """A webhook is there, or is like this from now on."""

    kind: Literal["webhook-saved"] = "webhook-saved"
    webhook_id: str
    name: str
    url: str
    events: list[str] = Field(
        description="entity.action", examples=[["model_version.created"]]
    )
    description: str = ""
    is_active: bool = True
    secret: str = Field(default="", description="encrypted; empty: there is none")


class WebhookDeleted(Value):
    """A webhook is gone, with what it had still to deliver."""

    kind: Literal["webhook-deleted"] = "webhook-deleted"
    webhook_id: str


class WebhookDelivered(Value):
    """A delivery is over: its receiver has it, or it was given up."""

    kind: Literal["webhook-delivered"] = "webhook-delivered"
    webhook_id: str
    delivery_id: str
    outcome: Literal["delivered", "given-up"]
    detail: str = Field(default="", description="the receiver's last answer")


class WebhookRetried(Value):
    """What a webhook's deliverer gave up is to be delivered after all."""

    kind: Literal["webhook-retried"] = "webhook-retried"
    webhook_id: str


WebhookChange = WebhookSaved | WebhookDeleted | WebhookDelivered | WebhookRetried
