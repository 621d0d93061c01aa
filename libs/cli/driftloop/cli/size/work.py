"""What scorers have told of a version, and of themselves; else what the registry knows.

Scorers tell the profile of each version that they have in memory, with every sign of
life; a version that none has loaded yet has the figures of its trial at registration.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.log import read_log
from driftloop.cli.size.sizing import Known, call_seconds, spent_on
from driftloop.contracts.base import Event
from driftloop.contracts.events import ScorerReported
from driftloop.contracts.profile import BatchCost, DoorCost, VersionProfile

LEAST_REQUESTS = 100
"""Fewer say little of what an answer takes: the first ones are slow."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Told:
    """What scorers said in the log.

    Attributes
    ----------
    profiles : by kind of machine, the newest, and the replica that told it.
    door, own_door : of requests to any version of the pipeline, and to this one.
    """

    profiles: dict[str, tuple[str, VersionProfile]]
    door: DoorCost | None
    own_door: DoorCost | None
    scorer_bytes: int | None


def told(events: Iterable[Event], pipeline: str, version: int) -> Told:
    """Return what reports say of a version, and of the scorers of its pipeline.

    Parameters
    ----------
    events : oldest first.
    """
    profiles: dict[str, tuple[str, VersionProfile]] = {}
    doors: list[tuple[int, DoorCost]] = []
    memory: dict[str, int] = {}
    for event in events:
        if not isinstance(event, ScorerReported) or event.pipeline != pipeline:
            continue
        if event.memory_bytes is not None:
            memory[event.replica] = event.memory_bytes
        for one in event.versions:
            if one.door is not None:
                doors.append((one.version, one.door))
            if one.version == version and one.profile is not None:
                profiles[one.profile.machine] = (event.replica, one.profile)
    return Told(
        profiles,
        _mean([door for _, door in doors]),
        _mean([door for number, door in doors if number == version]),
        max(memory.values(), default=None),
    )


def _mean(doors: list[DoorCost]) -> DoorCost | None:
    """Return the mean over all requests; None: too few."""
    requests = sum(door.requests for door in doors)
    if requests < LEAST_REQUESTS:
        return None
    return DoorCost(
        requests=requests,
        rows=sum(door.requests * door.rows for door in doors) / requests,
        seconds=sum(door.requests * door.seconds for door in doors) / requests,
        model_seconds=sum(d.requests * d.model_seconds for d in doors) / requests,
    )


def known(said: Told, rows: int, trial: VersionProfile | None) -> Known:
    """Return what sizes are reckoned with: of several machines, the slowest.

    Parameters
    ----------
    trial : what the registry measured, for a version that no scorer has told of.

    Raises
    ------
    CommandError
        When nobody has measured the version.
    """
    found = [
        Known(
            profile,
            f"replica {replica}",
            said.door,
            said.scorer_bytes,
            _colder(said.own_door, profile),
        )
        for replica, profile in said.profiles.values()
    ]
    if found:
        return max(found, key=lambda one: spent_on(one, rows).mean)
    if trial is None:
        raise CommandError(
            "neither a scorer nor the registry has measured this version; it is "
            "measured when a scorer loads it"
        )
    by = "the registry, at registration"
    return Known(trial, by, said.door, said.scorer_bytes)


def _colder(door: DoorCost | None, profile: VersionProfile) -> float:
    """Return how much longer a call takes in service than in its trial, if it does."""
    if door is None:
        return 0.0
    return max(0.0, door.model_seconds - call_seconds(profile, round(door.rows)))


def trial_profile(trial: dict[str, Any]) -> VersionProfile:
    """Return the figures of a registry's trial as a profile of two sizes."""
    memory = int(trial["memory_mib"] * MIB)
    hundred = trial["hundred_rows_ms"] / 1000
    return VersionProfile(
        machine="the registry's",
        onnx_runtime="",
        batches=[
            BatchCost(
                rows=1, p50_seconds=trial["p50_ms"] / 1000,
                p99_seconds=trial["p99_ms"] / 1000, memory_bytes=memory,
            ),
            BatchCost(
                rows=100, p50_seconds=hundred, p99_seconds=hundred,
                memory_bytes=memory,
            ),
        ],
    )  # fmt: skip


def version_of(
    installation: Installation, pipeline: str, version: int | None
) -> dict[str, Any]:
    """Return a version from the registry; by default the champion.

    Raises
    ------
    CommandError
        When there is none.
    """
    which = "aliases/champion" if version is None else f"versions/{version}"
    found: dict[str, Any] = installation.request("GET", f"/models/{pipeline}/{which}")
    return found


def measured(
    installation: Installation, pipeline: str, version: int | None, rows: int
) -> tuple[int, Known]:
    """Return the version that is meant, and what is known of it.

    Raises
    ------
    CommandError
        When there is no such version, or nobody has measured it.
    """
    found = version_of(installation, pipeline, version)
    number = int(found["version"])
    entries = read_log(
        installation.bootstrap, (ScorerReported.topic(),), installation.store
    )
    said = told((entry.event for entry in entries), pipeline, number)
    trial = trial_profile(found["trial"]) if found.get("trial") else None
    return number, known(said, rows, trial)
