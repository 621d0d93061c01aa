"""What names and values may look like.

Source: ``mlflow/utils/validation.py`` of mlflow 3.17; a request that its server takes
is taken here, and one that it refuses is refused.
"""

import functools
import posixpath
import re
from collections.abc import Mapping, Sequence

from driftloop.contracts.tracking import MetricPoint
from driftloop.registry.mlflow.errors import invalid

MAX_BATCH_BYTES = 1_000_000
MAX_METRICS = 1000
MAX_PARAMS_OR_TAGS = 100
MAX_ENTITIES = 1000
MAX_EXPERIMENT_NAME = 500
MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_RUN_TAG_VALUE = 8000
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_DATASET = {
    "name": 500,
    "digest": 36,
    "source": 65_535,
    "schema": 1_048_575,
    "profile": 16_777_215,
}
MAX_MODEL_NAME = 256
MAX_MODEL_TAG_VALUE = 100_000
MAX_ALIAS = 255
MAX_INPUT_TAG_KEY = 255
MAX_INPUT_TAG_VALUE = 500
NAME = re.compile(r"[/\w.\- :]*")
ALIAS = re.compile(r"[\w\-]+")
VERSION_ALIAS = re.compile(r"[vV]\d+")
RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
LONGEST = 2**63 - 1
"""Of whole numbers: the columns hold 64 bits."""


def check_name(name: str, field: str) -> None:
    """Refuse a name of a metric, parameter or tag that could be another one's path.

    >>> check_name("loss/train", "key")
    >>> check_name("../loss", "key")
    Traceback (most recent call last):
    driftloop.registry.mlflow.errors.Refusal: key: '../loss' would be the path '../loss'
    """
    problem = _problem_of(name)
    if problem is not None:
        raise invalid(f"{field}: {name!r} {problem}")


@functools.lru_cache(10_000)
def _problem_of(name: str) -> str | None:
    """Return what is wrong with a name; names of metrics come again and again."""
    if not NAME.fullmatch(name):
        return (
            "may hold letters, digits, and of other signs only "
            "'_', '-', '.', ' ', ':' and '/'"
        )
    path = posixpath.normpath(name)
    if path != name or path == "." or path.startswith(("..", "/")):
        return f"would be the path {path!r}"
    return None


def check_length(text: str, limit: int, field: str) -> None:
    if len(text) > limit:
        raise invalid(f"{field}: {len(text)} characters, at most {limit}")


def check_model_name(name: str, field: str = "name") -> None:
    """Refuse a name of a registered model that a ``models:/`` URI could not hold.

    >>> check_model_name("a/b")
    Traceback (most recent call last):
    driftloop.registry.mlflow.errors.Refusal: name: 'a/b' may not hold '/' or ':'
    """
    if not name.strip():
        raise invalid(f"{field}: a registered model needs one")
    if "/" in name or ":" in name:
        raise invalid(f"{field}: {name!r} may not hold '/' or ':'")
    if name in {".", ".."}:
        raise invalid(f"{field}: {name!r} would be a path")
    check_length(name, MAX_MODEL_NAME, field)


def check_model_tags(tags: Mapping[str, str], field: str = "tags") -> None:
    for key, value in tags.items():
        check_key(key, field)
        check_length(value, MAX_MODEL_TAG_VALUE, f"{field}.value")


def check_alias(alias: str) -> None:
    """Refuse what is no name of an alias, or means something already."""
    if not ALIAS.fullmatch(alias):
        raise invalid(
            f"alias: {alias!r} may hold letters, digits, and of other signs only '_' "
            "and '-'"
        )
    check_length(alias, MAX_ALIAS, "alias")
    if alias.lower() == "latest" or VERSION_ALIAS.fullmatch(alias):
        raise invalid(f"alias: {alias!r} means a version already; choose another")


def check_number(value: int, field: str, least: int = -LONGEST) -> None:
    if not least <= value <= LONGEST:
        raise invalid(f"{field}: {value} is not between {least} and {LONGEST}")


def check_experiment_name(name: str) -> None:
    if not name:
        raise invalid("name: an experiment needs one")
    check_length(name, MAX_EXPERIMENT_NAME, "name")


def check_experiment_tag(key: str, value: str) -> None:
    check_name(key, "key")
    check_length(key, MAX_KEY, "key")
    check_length(value, MAX_EXPERIMENT_TAG_VALUE, "value")


def check_key(key: str, field: str) -> None:
    check_name(key, f"{field}.key")
    check_length(key, MAX_KEY, f"{field}.key")


def shortened(pairs: Sequence[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
    """Return parameters or tags of a run, values cut to what is kept.

    So MLflow's server does by default, and a training does not fail at its log.
    """
    return [(key, value[:limit]) for key, value in pairs]


def check_metric(point: MetricPoint, field: str = "metric") -> None:
    key, _, timestamp, step = point
    is_in_range = 0 <= timestamp <= LONGEST and -LONGEST <= step <= LONGEST
    if is_in_range and len(key) <= MAX_KEY and _problem_of(key) is None:
        return  # of a thousand in a batch, most; no texts are made for them
    check_name(key, f"{field}.key")
    check_length(key, MAX_KEY, f"{field}.key")
    check_number(timestamp, f"{field}.timestamp", least=0)
    check_number(step, f"{field}.step")


def check_run_id(run_id: str) -> None:
    if not RUN_ID.fullmatch(run_id):
        raise invalid(f"run_id: {run_id!r} is no id of a run")


def check_batch(
    metrics: Sequence[MetricPoint],
    params: Sequence[tuple[str, str]],
    tags: Sequence[tuple[str, str]],
) -> None:
    """Refuse a batch that is too large, or that holds anything wrong."""
    for name, items, limit in (
        ("metrics", metrics, MAX_METRICS),
        ("params", params, MAX_PARAMS_OR_TAGS),
        ("tags", tags, MAX_PARAMS_OR_TAGS),
        ("metrics, params and tags", [*metrics, *params, *tags], MAX_ENTITIES),
    ):
        if len(items) > limit:
            raise invalid(f"{name}: {len(items)} in one request, at most {limit}")
    for number, point in enumerate(metrics):
        check_metric(point, f"metrics[{number}]")
    for number, param in enumerate(params):
        check_key(param[0], f"params[{number}]")
    for number, tag in enumerate(tags):
        check_key(tag[0], f"tags[{number}]")
    keys = [key for key, _ in params]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise invalid(f"params: {', '.join(twice)} twice in one request")


def check_param_changes(
    run_id: str, before: Mapping[str, str], params: Mapping[str, str]
) -> None:
    """Refuse another value for a parameter that a run has already."""
    for key, value in params.items():
        if before.get(key, value) != value:
            raise invalid(
                f"params: {key!r} of run {run_id} is {before[key]!r} and cannot become "
                f"{value!r}; a parameter is logged once, use a nested run for each"
            )


def check_dataset(fields: Mapping[str, str], tags: Mapping[str, str]) -> None:
    for name, limit in MAX_DATASET.items():
        if name in fields:
            check_length(fields[name], limit, f"dataset.{name}")
    for key, value in tags.items():
        check_length(key, MAX_INPUT_TAG_KEY, "dataset.tags.key")
        check_length(value, MAX_INPUT_TAG_VALUE, "dataset.tags.value")
