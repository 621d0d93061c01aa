"""The page ``docs/pipeline.md``: every key of the pipeline file, from the model."""

from collections.abc import Iterator
from typing import Any

import yaml
from driftloop.contracts.alerting import CHANNELS, Escalation, QuietHours, Route
from driftloop.contracts.attachments import Attachment
from driftloop.contracts.base import Section
from driftloop.contracts.checks import CHECKS, Check, kind_of
from driftloop.contracts.freeze import FreezeWindow
from driftloop.contracts.pipeline import (
    Environment,
    Feature,
    PipelineSpec,
    RolloutRules,
)
from driftloop.contracts.preprocessing import Cross, Steps
from driftloop.contracts.privacy import PrivacyRule
from driftloop.contracts.sources import PullSource, SqlTable
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

OPENING = """\
# The pipeline file

Written by `python -m driftloop.contracts.generate` from the
[model](../libs/contracts/driftloop/contracts/pipeline.py); do not edit.

A pipeline is one YAML file that says what to predict, what right data looks like, when
to train, when a model is good enough, and how it goes into service.

```sh
driftloop apply pipeline.yaml
```

checks the file and publishes it as `pipeline-applied`; every service follows that
topic, so the newest file of a name holds everywhere within a moment, and also for a
service that starts later. Apply a changed file again to change a pipeline. An unknown
key is an error that names the key that was probably meant.

Three keys are enough; the rest has defaults. Features and their ranges are then
inferred from the first data, and shown:

```yaml
name: churn
task: binary
data:
  target: has_left
```

All durations and windows but those of approvals and freezes are in **event time**, the
time in the data, so a recording that is played a thousand times faster is decided on
just as it was live. Counts of rows are counts of *labelled* rows where the table says
so.

A fuller one is that of the [bike rentals](../examples/bike-demand/pipeline.yaml).
"""

FEATURE_EXAMPLE = """\
`data.features` maps each input column to what is right for it:

```yaml
features:
  temp: {type: number, min: -30, max: 50, unit: "°C", nullable: true}
  season: {type: category, values: [spring, summer, autumn, winter]}
  opened_at: {type: datetime, min: "2001-01-01T00:00:00Z", nullable: true}
```

Rows that break this go to quarantine with the check, the field and an offending value;
the good rows of the batch go on. A fault in many rows of a window is reported as such,
and no model is trained because of it.
"""

ATTACHMENTS_EXAMPLE = """\
`data.attachments` maps each column that refers to a payload to what is right for it
([events.md](events.md#images-texts-and-sounds)):

```yaml
attachments:
  photo: {media_types: [image/png, image/jpeg], max_bytes: 2000000, required: true}
  complaint: {media_types: [text/plain, application/pdf], subject: customer_id}
```

It travels with the row into the dataset and is no input of a model. `subject` needs
no rule under `privacy`.
"""

PRIVACY_EXAMPLE = """\
`data.privacy` says what becomes of columns with personal data, before anything is
stored or published onward ([privacy.md](privacy.md)):

```yaml
privacy:
  email: drop
  name: {action: mask, keep_last: 2}
  customer_id: hash
  phone: tokenise
  notes: {action: encrypt, subject: customer_id}
```

An action without options can stand alone. A pipeline with such rules has to name its
features: columns that are named in neither place are left out.
"""

SOURCES_EXAMPLE = """\
`data.sources` names places that ingest looks at by itself, again and again
([events.md](events.md#by-pull)):

```yaml
sources:
  - {name: exports, folder: /srv/exports, pattern: "*.parquet"}
  - {name: lake, folder: "s3://lake/bikes", rows: labels}
  - name: rentals
    sql: {url_secret: warehouse, table: rentals, cursor: changed_at}
    every_seconds: 60
```
"""

PREPROCESSING_EXAMPLE = """\
`train.preprocessing` is what happens to columns between the row and the model. It is
fitted on training rows, recorded in the model's manifest and part of the served graph
([preprocessing.md](preprocessing.md)):

```yaml
preprocessing:
  duplicates: drop
  defaults: {missing: median, indicator: true}
  columns:
    income: {outliers: clip, transform: log1p}
    shop: {encoding: target, min_frequency: 20}
  crosses:
    - {columns: [weekday, shop], encoding: hashing, hash_columns: 256}
```

Each column, and each cross, takes:
"""

FREEZE_EXAMPLE = """\
`rollout.freeze` lists windows in which no rollout takes a step forward
([serving.md](serving.md#freeze-windows)):

```yaml
freeze:
  - {begins: "fri 18:00", ends: "mon 08:00", timezone: Europe/Berlin}
  - {begins: "2026-12-20 18:00", ends: "2027-01-04 08:00", reason: year's end}
```
"""

ENVIRONMENTS_EXAMPLE = """\
`rollout.environments` lists those that a version has to pass before production, in
their order ([serving.md](serving.md#environments)):

```yaml
environments:
  - {name: staging, promote: approval, strategy: immediate, watch_rows: 50}
```

Beside its own keys, each may have those of `rollout` from `strategy` to `watch_rows`;
what it does not say is as `rollout` says it.
"""

CHECKS_EXAMPLE = """\
What is right beyond each column's own rules. [Checks](checks.md) says what each
catches, by which rule, and what it costs.

```yaml
checks:
  - {check: expression, sql: "casual + registered = cnt", severity: quarantine}
  - {check: spikes, columns: [windspeed]}
  - {check: row_count, min: 24, severity: reject}
  - {check: stuck, severity: ignore}
  - {function: "bikes.checks:daily_total", severity: warn}
```

`unit_slip` and `stuck` run with severity `warn` where the file lists no check of that
kind; the others run where they are listed. All look at observations.
"""


ALERTS_EXAMPLE = """\
`alerts` says who is told of what ([alerts.md](alerts.md)):

```yaml
alerts:
  channels:
    team: {kind: slack, url_secret: slack-bikes}
    mail: {kind: email, to: [owner, bikes@example.org]}
    phone: {kind: webhook, url: "https://pager.example.org/in", secret: pager}
  routes:
    - {channels: [team]}
    - {channels: [mail], severities: [critical], condition: "sensor_fault:*"}
  escalation:
    - {after_minutes: 30, channels: [phone]}
  quiet_hours: {start: "22:00", end: "07:00", timezone: Europe/Berlin}
```

What a channel takes depends on its `kind`:
"""


def pipeline_page() -> str:
    """Return the whole page as Markdown."""
    lines = [OPENING, "## Top level", "", *_table(PipelineSpec)]
    for name, field in PipelineSpec.model_fields.items():
        section = _section(field)
        if name == "checks":
            lines += ["", "## checks", "", CHECKS_EXAMPLE, *_checks()]
        if section is None:
            continue
        lines += ["", f"## {name}", "", _promise(section), "", *_table(section, name)]
        if name == "data":
            lines += ["", "### data.features", "", FEATURE_EXAMPLE, *_table(Feature)]
            lines += ["", "### data.attachments", "", ATTACHMENTS_EXAMPLE]
            lines += _table(Attachment)
            lines += ["", "### data.privacy", "", PRIVACY_EXAMPLE]
            lines += _table(PrivacyRule)
            lines += ["", "### data.sources", "", SOURCES_EXAMPLE]
            lines += [*_table(PullSource), *_lines(SqlTable, "sources", "sql.")]
        if name == "alerts":
            lines += ["", "### Channels, routes, escalation", "", ALERTS_EXAMPLE]
            lines += _alerts()
        if name == "rollout":
            lines += ["", "### rollout.freeze", "", FREEZE_EXAMPLE]
            lines += _table(FreezeWindow)
            lines += ["", "### rollout.environments", "", ENVIRONMENTS_EXAMPLE]
            lines += [*_table(Environment)][:2]
            lines += _new_lines(Environment, RolloutRules)
        if name == "train":
            lines += ["", "### train.preprocessing", "", PREPROCESSING_EXAMPLE]
            lines += [*_table(Steps), *_own_lines(Cross, Steps)]
    return "\n".join([*lines, ""])


def _alerts() -> Iterator[str]:
    """One table over all kinds of channels, and what else a list or mapping holds."""
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    for kind, channel in CHANNELS.items():
        promise = (channel.__doc__ or "").strip().splitlines()[0]
        yield f"| `{kind}` | channel | | {promise} |"
        for line in _lines(channel, "alerts", f"{kind}."):
            if not line.startswith(f"| `{kind}.kind`"):
                yield line
    for inner, section in (
        ("routes.", Route),
        ("escalation.", Escalation),
        ("quiet_hours.", QuietHours),
    ):
        yield from _lines(section, "alerts", inner)


def _new_lines(section: type[Section], parent: type[Section]) -> Iterator[str]:
    """Lines of the keys that a section adds to those it has from its parent."""
    known = tuple(f"| `{key}`" for key in parent.model_fields)
    return (line for line in _lines(section, "") if not line.startswith(known))


def _own_lines(section: type[Section], parent: type[Section]) -> Iterator[str]:
    """Lines of the keys that the parent does not have."""
    inherited = tuple(f"| `crosses.{key}`" for key in parent.model_fields)
    for line in _lines(section, "crosses", "crosses."):
        if not line.startswith(inherited):
            yield line


def _checks() -> Iterator[str]:
    """One table over all kinds: what is common stands at the kind itself."""
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    words = _takes(Check.model_json_schema()["properties"]["severity"], {})
    meaning = Check.model_fields["severity"].description
    yield f"| `severity` | {words} | by check | {meaning} |"
    for check in CHECKS:
        severity = check.model_fields["severity"].default
        promise = (check.__doc__ or "").strip()
        yield f"| `{kind_of(check)}` | check | severity `{severity}` | {promise} |"
        common = tuple(f"| `{kind_of(check)}.{key}`" for key in ("check", "severity"))
        for line in _lines(check, "checks", f"{kind_of(check)}."):
            if not line.startswith(common):
                yield line


def _section(field: FieldInfo) -> type[Section] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _promise(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _table(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    yield from _lines(section, prefix)


def _lines(section: type[BaseModel], prefix: str, inner: str = "") -> Iterator[str]:
    schema = section.model_json_schema()
    for name, field in section.model_fields.items():
        part = _section(field)
        if part is not None and not prefix:
            yield f"| `{name}` | section | | [below](#{name}) |"
        elif part is not None:
            yield from _lines(part, prefix, f"{inner}{name}.")
        else:
            takes = _takes(schema["properties"][name], schema)
            meaning = field.description or ""
            yield f"| `{inner}{name}` | {takes} | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None or value in ("", {}):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    return f"`{text}`"


BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}
WORDS = {"string": "text", "object": "mapping", "array": "list", "integer": "integer"}


def _takes(schema: dict[str, Any], root: dict[str, Any]) -> str:
    """Say in words what a JSON Schema lets through."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return _takes(root["$defs"][name], root)
    if "anyOf" in schema or "oneOf" in schema:
        parts = schema.get("anyOf") or schema["oneOf"]
        kinds = [_takes(part, root) for part in parts]
        return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "anything"))
    if schema.get("format") == "date-time":
        return "moment"
    if kind == "array":
        return f"list of {_takes(schema.get('items', {}), root)}"
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    return " ".join([WORDS.get(kind, kind), ", ".join(bounds)]).strip()
