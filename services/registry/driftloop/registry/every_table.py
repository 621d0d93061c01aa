"""Every table of the registry's database."""

from driftloop.registry.alerting.tables import TABLES as ALERT_TABLES
from driftloop.registry.audit import RegistryAudit
from driftloop.registry.comments.tables import TABLES as COMMENT_TABLES
from driftloop.registry.deadlines import RegistryDue
from driftloop.registry.edges.tables import TABLES as EDGE_TABLES
from driftloop.registry.erasures.tables import TABLES as ERASURE_TABLES
from driftloop.registry.lineage.tables import TABLES as LINEAGE_TABLES
from driftloop.registry.mlflow.registered.shown import SHOWN_TABLES
from driftloop.registry.mlflow.tables import TABLES as TRACKING_TABLES
from driftloop.registry.tables import TABLES
from driftloop.registry.verdicts.tables import TABLES as VERDICT_TABLES
from sqlmodel import SQLModel

EVERY_TABLE: list[type[SQLModel]] = [
    *TABLES,
    RegistryDue,
    RegistryAudit,
    *TRACKING_TABLES,
    *SHOWN_TABLES,
    *LINEAGE_TABLES,
    *ERASURE_TABLES,
    *COMMENT_TABLES,
    *EDGE_TABLES,
    *ALERT_TABLES,
    *VERDICT_TABLES,
]
