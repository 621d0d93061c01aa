"""The validator: rows that keep the contract become dataset versions."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.events import (
    AlertRaised,
    BatchRejected,
    BatchValidated,
    DatasetMaintained,
    DatasetVersioned,
    ErasureTraced,
    ModelTrained,
    SchemaAccepted,
    SchemaProposed,
    TrainingStarted,
)
from driftloop.runtime.backlog import has_handled
from driftloop.runtime.datasets import storage_options, table_uri
from driftloop.runtime.payloads import open_payloads
from driftloop.runtime.service import Parts, Runtime, Service
from driftloop.validator.custom import CustomChecks
from driftloop.validator.datasets import Datasets
from driftloop.validator.erasure import ErasureRow, Tracing
from driftloop.validator.handlers import HANDLERS, ValidatorDeps
from driftloop.validator.settings import ValidatorSettings
from driftloop.validator.tables import TABLES
from sqlmodel import Session

REFERENCES = (TrainingStarted.topic(), ModelTrained.topic())
"""What tells which dataset versions are in use."""


@contextmanager
def build(runtime: Runtime[ValidatorSettings]) -> Iterator[Parts[ValidatorDeps]]:
    """Connect the handler to this process's database and datasets."""
    settings = runtime.settings

    def open_datasets() -> Datasets:
        return Datasets(partial(table_uri, settings), storage_options(settings))

    def are_references_known(session: Session) -> bool:
        return has_handled(
            session.connection(), settings.broker, REFERENCES, settings.kafka_config
        )

    tracing = Tracing(runtime, open_datasets(), are_references_known)
    yield Parts(
        ValidatorDeps(
            session=runtime.session,
            pipelines=runtime.pipelines,
            datasets=open_datasets(),
            custom=CustomChecks(settings.check_modules),
            schemas=runtime.state(SchemaAccepted),
            are_references_known=are_references_known,
            payloads=open_payloads(settings),
            recorded=runtime.recorded,
        ),
        background=[tracing.run],
    )


SERVICE = Service(
    name="validator",
    settings=ValidatorSettings,
    handlers=HANDLERS,
    build=build,
    tables=[*TABLES, ErasureRow],
    states=(SchemaAccepted,),
    recorded=(
        BatchValidated,
        BatchRejected,
        DatasetVersioned,
        DatasetMaintained,
        SchemaProposed,
        SchemaAccepted,
        ErasureTraced,
        AlertRaised,
        AlertResolved,
    ),
    driver="faust",
)
