"""Verdicts by the registry: read, and say that one is another cause."""

from typing import Any, cast

from driftloop.cli.context import CommandError, Installation


def read_verdicts(
    installation: Installation, pipeline: str, limit: int = 100
) -> dict[str, Any]:
    """Return the report on a pipeline's verdicts."""
    path = f"/pipelines/{pipeline}/verdicts"
    answer = installation.request("GET", path, params={"limit": limit})
    return cast("dict[str, Any]", answer)


def named(report: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the verdict of an id, or of its unmistakable beginning.

    Raises
    ------
    CommandError
        When there is none, or more than one.
    """
    found = [v for v in report["verdicts"] if v["id"].startswith(text)]
    if len(found) == 1:
        return cast("dict[str, Any]", found[0])
    what = f"{len(found)} verdicts begin with" if found else "no verdict"
    raise CommandError(f"{what} {text!r}; see: driftloop verdicts {report['pipeline']}")


def overrule(
    installation: Installation, verdict: str, said: dict[str, Any], by: str | None
) -> dict[str, Any]:
    """Say that a verdict's cause is another one.

    Parameters
    ----------
    verdict : pipeline and id, ``bike-demand/8a4f0f``.
    said : cause and reason, and whether it is mended.

    Raises
    ------
    CommandError
        When the verdict is not named, or the registry refuses.
    """
    pipeline, _, text = verdict.partition("/")
    if not text:
        raise CommandError(
            f"{verdict!r} names no verdict; write PIPELINE/ID, as driftloop verdicts "
            f"{pipeline} shows it"
        )
    found = named(read_verdicts(installation, pipeline), text)
    answer = installation.request(
        "POST",
        f"/pipelines/{pipeline}/verdicts/{found['id']}/overrule",
        json=said | {"overruled_by": installation.speaker(by)},
    )
    return cast("dict[str, Any]", answer)
