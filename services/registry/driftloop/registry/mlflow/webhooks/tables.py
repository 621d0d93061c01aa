"""The read model of webhooks, and of what they have to deliver."""

from driftloop.registry.mlflow.columns import LONG
from sqlalchemy import Index
from sqlmodel import Field, SQLModel


class Webhook(SQLModel, table=True):
    """A webhook; ``events`` are separated by spaces."""

    __tablename__ = "mlflow_webhook"
    webhook_id: str = Field(primary_key=True)
    name: str
    url: str
    events: str
    description: str = ""
    is_active: bool = True
    secret: str = ""
    created_ms: int = Field(sa_type=LONG)
    updated_ms: int = Field(sa_type=LONG)


class Notice(SQLModel, table=True):
    """What a webhook has to deliver, and since when; ``problem``: it was given up."""

    __tablename__ = "mlflow_webhook_notice"
    __table_args__ = (Index("mlflow_webhook_notice_of", "webhook_id"),)
    delivery_id: str = Field(primary_key=True)
    webhook_id: str
    event: str
    at_ms: int = Field(sa_type=LONG)
    since_ms: int = Field(sa_type=LONG)
    data: str
    problem: str | None = None


class Told(SQLModel, table=True):
    """A version of a pipeline that a webhook was told of.

    The versions come from another topic, so their notices are made from both tables
    when they are due, and what is left of a delivery is this row.
    """

    __tablename__ = "mlflow_webhook_told"
    __table_args__ = (Index("mlflow_webhook_told_of", "webhook_id"),)
    delivery_id: str = Field(primary_key=True)
    webhook_id: str
    problem: str | None = None


WEBHOOK_TABLES: list[type[SQLModel]] = [Webhook, Notice, Told]
