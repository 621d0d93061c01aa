"""What is compared: the pipeline file with other settings, and the bounds.

A policy file has any of the sections below, laid over the pipeline file: a mapping is
merged key by key, anything else takes the place of what was there, null goes back to
the default.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from driftloop.backtest.errors import BacktestError
from driftloop.contracts.pipeline import (
    PipelineFileError,
    PipelineSpec,
    parse_pipeline,
)

SECTIONS = ("retrain", "monitor", "train", "gate", "rollout", "automation")
"""What a policy may change: when to train, on what, and what may go into service."""
ABOUT = ("name", "description")
OWN, NEVER, ALWAYS, EVERY, ORACLE = "pipeline", "never", "always", "every-", "oracle"
WINDOWS_BETWEEN = 4
"""Windows of the monitor between two trainings of the usual ``every-N``."""

Kind = Literal["pipeline", "file", "bound", "oracle"]
Settings = dict[str, Any]
NO_TRIGGER: Settings = {
    "on_drift": False,
    "every_rows": None,
    "schedule": {"every_days": None, "cron": None},
    "accuracy_floor": {"max_loss": None},
    "cost": {"loss_unit_value": None},
}
AT_ONCE: Settings = {
    "automation": "full",
    "gate": {
        "confidence": 0.5, "min_improvement_ratio": 0.0, "non_inferiority_margin": 1.0,
        "slices": None, "fairness": {"columns": []}, "max_calibration_error": None,
        "robustness": {
            "max_noise_loss": None, "max_missing_loss": None,
            "max_outlier_loss": None, "max_flip_ratio": None,
        },
        "fit": "warn", "reproducible": False,
    },
    "rollout": {
        "strategy": "immediate", "shadow_from": "live", "watch_rows": 0,
        "environments": [], "freeze": [], "max_prediction_shift": None,
    },
}  # fmt: skip
"""A new version answers from its training on, unless it has no skill or is more than
twice as bad as the one in service."""


@dataclass(frozen=True)
class Policy:
    """A pipeline as it would have been run.

    Attributes
    ----------
    changes : of the pipeline file's settings.
    """

    name: str
    kind: Kind
    spec: PipelineSpec
    changes: Settings = field(default_factory=dict)
    description: str = ""


def policies_of(
    spec: PipelineSpec,
    asked: list[str],
    *,
    bounds: bool = True,
    candidates: list[str] | None = None,
) -> list[Policy]:
    """Return the pipeline's own policy, those asked for, and the bounds.

    Parameters
    ----------
    asked : paths of policy files, or ``never``, ``always``, ``every-N``, ``oracle``.
    candidates : trained instead of the pipeline's, in all policies.

    Raises
    ------
    BacktestError
        When a file or name is wrong; says what to do.
    """
    if candidates:
        spec = overlaid(spec, {"train": {"candidates": candidates}}, "--candidates")
    names = [*asked]
    if bounds:
        every = f"{EVERY}{WINDOWS_BETWEEN * spec.monitor.window_rows}"
        has_every = any(name.startswith(EVERY) for name in asked)
        usual = [NEVER, *([] if has_every else [every]), ALWAYS, ORACLE]
        names += [name for name in usual if name not in names]
    found = [Policy(OWN, "pipeline", spec, {}, "as the pipeline file says")]
    for name in names:
        policy = _named(spec, name)
        if any(policy.name == other.name for other in found):
            raise BacktestError(
                f"two policies are called {policy.name!r}; give one of the files "
                "another name: (name: ...)"
            )
        found.append(policy)
    return found


def _named(spec: PipelineSpec, name: str) -> Policy:
    if name == ORACLE:
        return Policy(ORACLE, "oracle", spec, {}, "knows the whole stream")
    if name == NEVER:
        changes: Settings = {"retrain": NO_TRIGGER}
        return _bound(spec, name, changes, "the first model for ever")
    window = spec.monitor.window_rows
    if name == ALWAYS:
        text = f"anew after each window of {window} rows, in service at once"
        return _bound(spec, name, _by_rows(window), text)
    if match := re.fullmatch(rf"{EVERY}([1-9]\d*)", name):
        text = f"anew after each {match[1]} labelled rows, in service at once"
        return _bound(spec, name, _by_rows(int(match[1])), text)
    return read_policy(spec, Path(name))


def _by_rows(count: int) -> Settings:
    budget = {"trainings": None, "cpu_minutes": None}
    often = {"every_rows": count, "cooldown_days": 0, "budget": budget}
    return {"retrain": {**NO_TRIGGER, **often}, **AT_ONCE}


def _bound(spec: PipelineSpec, name: str, changes: Settings, text: str) -> Policy:
    return Policy(name, "bound", overlaid(spec, changes, name), changes, text)


def read_policy(spec: PipelineSpec, path: Path) -> Policy:
    """Read a policy file and lay it over the pipeline file.

    Raises
    ------
    BacktestError
        Names each wrong key and what to do.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        known = f"{NEVER}, {ALWAYS}, {EVERY}N (every-5000) and {ORACLE}"
        raise BacktestError(
            f"policy {str(path)!r}: {why}; name a YAML file, or one of {known}"
        ) from error
    except yaml.YAMLError as error:
        raise BacktestError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise BacktestError(
            f"{path}: a policy is a mapping with any of {', '.join(SECTIONS)}"
        )
    for key in content:
        if key not in (*SECTIONS, *ABOUT):
            near = difflib.get_close_matches(str(key), SECTIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise BacktestError(
                f"{path}: a policy cannot change {key!r}; {hint or 'it may have'} "
                f"{'' if hint else ', '.join(SECTIONS)}".rstrip()
            )
    changes = {key: value for key, value in content.items() if key in SECTIONS}
    name = str(content.get("name") or path.stem)
    text = str(content.get("description") or "")
    return Policy(name, "file", overlaid(spec, changes, str(path)), changes, text)


def overlaid(spec: PipelineSpec, changes: Settings, where: str) -> PipelineSpec:
    """Return the pipeline with some settings changed, validated as a whole.

    Raises
    ------
    BacktestError
        Names each wrong field, what is wrong and what to do.
    """
    said = spec.model_dump(mode="json", exclude_unset=True)
    try:
        return parse_pipeline(
            yaml.safe_dump(merged(said, changes), allow_unicode=True, sort_keys=False)
        )
    except PipelineFileError as error:
        raise BacktestError(f"{where}, laid over the pipeline file: {error}") from error


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Settings:
    """Return one mapping over another; null takes a key back to its default.

    >>> merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}, "d": None})
    {'a': {'b': 5, 'c': 2}}
    """
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[key] = value
    return result
