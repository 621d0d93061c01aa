"""The validator: rows that keep the contract become dataset versions."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from driftloop.contracts.events import ModelTrained, SchemaAccepted, TrainingStarted
from driftloop.runtime.backlog import has_handled
from driftloop.runtime.datasets import storage_options, table_uri
from driftloop.runtime.payloads import open_payloads
from driftloop.runtime.service import Parts, Runtime, Service
from driftloop.validator.custom import CustomChecks
from driftloop.validator.datasets import Datasets
from driftloop.validator.handlers import HANDLERS, ValidatorDeps
from driftloop.validator.settings import ValidatorSettings
from driftloop.validator.tables import TABLES

REFERENCES = (TrainingStarted.topic(), ModelTrained.topic())
"""What tells which dataset versions are in use."""


@contextmanager
def build(runtime: Runtime[ValidatorSettings]) -> Iterator[Parts[ValidatorDeps]]:
    """Connect the handler to this process's database and datasets."""
    settings = runtime.settings
    datasets = Datasets(partial(table_uri, settings), storage_options(settings))
    yield Parts(
        ValidatorDeps(
            session=runtime.session,
            pipelines=runtime.pipelines,
            datasets=datasets,
            custom=CustomChecks(settings.check_modules),
            schemas=runtime.state(SchemaAccepted),
            are_references_known=lambda session: has_handled(
                session.connection(), settings.broker, REFERENCES, settings.kafka_config
            ),
            payloads=open_payloads(settings),
        )
    )


SERVICE = Service(
    name="validator",
    settings=ValidatorSettings,
    handlers=HANDLERS,
    build=build,
    tables=TABLES,
    states=(SchemaAccepted,),
    driver="faust",
)
