"""The deployer: from an approved version to one in full service, or back."""

from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.events import (
    AlertRaised,
    ModelApproved,
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ServingDesired,
)
from driftloop.deployer.handlers import HANDLERS, DeployerDeps
from driftloop.deployer.tables import DeployerServing
from driftloop.runtime.service import Parts, Runtime, Service
from driftloop.runtime.settings import Settings


@contextmanager
def build(runtime: Runtime[Settings]) -> Iterator[Parts[DeployerDeps]]:
    yield Parts(
        DeployerDeps(
            session=runtime.session,
            pipelines=runtime.pipelines,
            desired=runtime.state(ServingDesired),
            recorded=runtime.recorded,
        )
    )


SERVICE = Service(
    name="deployer",
    settings=Settings,
    handlers=HANDLERS,
    build=build,
    tables=[DeployerServing],
    states=[ServingDesired],
    recorded=(
        ModelApproved,
        ServingDesired,
        RolloutAdvanced,
        ModelDeployed,
        ModelRolledBack,
        AlertRaised,
        AlertResolved,
    ),
)
