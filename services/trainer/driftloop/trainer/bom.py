"""The package's bill of materials: CycloneDX 1.6 with the model's card (an ML-BOM).

What the model is, which rows, libraries and earlier model it comes from, and the
digests of the package's other files. No clock and no dice: the same job gives the same
bytes; the serial number is derived from the content.

Source: CycloneDX v1.6, https://cyclonedx.org/docs/1.6/json/ (ECMA-424). Written as
plain values, as the CycloneDX library for Python (11.12) has no model card; the tests
validate against the schema that it ships.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from driftloop.contracts.base import derived_id
from driftloop.contracts.describe import ROW_LOSS, left_out_in_words
from driftloop.contracts.events import Evaluation, Span, TableRef
from driftloop.models.package import Manifest, canonical_json

BOM_FILE = "bom.json"
OURS = "driftloop-"
"""Distributions of this project; no public index has them."""
TASKS = {
    "regression": "regression",
    "binary": "binary classification",
    "multiclass": "multiclass classification",
}
CONFIDENCE = 0.95
"""Of the interval of the difference; those of losses come with theirs."""
Json = dict[str, Any]


def bom_of(
    manifest: Manifest, card: Json, owner: str | None, files: Mapping[str, bytes]
) -> Json:
    """Return the bill of materials.

    Parameters
    ----------
    card : content of ``card.json``, whose figures and words are repeated here.
    owner : of the pipeline, and so of its data; None: nobody was named.
    files : of the package, without this one.
    """
    datasets = list(_datasets(manifest, owner))
    found = {one["purl"]: one for one in map(_library, manifest.environment)}
    libraries = list(found.values())
    model = _model(manifest, card, files, [part["bom-ref"] for part in datasets])
    used = sorted({part["bom-ref"] for part in [*datasets, *libraries]})
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {
                        "type": "application",
                        "name": "driftloop-trainer",
                        "version": manifest.code_version,
                    }
                ]
            },
            "component": model,
        },
        "components": [*datasets, *libraries],
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": used}],
    }
    digest = hashlib.sha256(canonical_json(content)).hexdigest()
    return {**content, "serialNumber": f"urn:uuid:{derived_id(digest, 'bom', 0)}"}


def _model(
    manifest: Manifest, card: Json, files: Mapping[str, bytes], datasets: list[str]
) -> Json:
    model: Json = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.job_id}",
        "name": manifest.pipeline,
        "version": manifest.job_id,
        "description": card["intended_use"]["primary"],
        "components": [_file(name, data) for name, data in sorted(files.items())],
        "modelCard": {
            "modelParameters": _parameters(manifest, datasets),
            "quantitativeAnalysis": {
                "performanceMetrics": list(_metrics(manifest.evaluation, card))
            },
            "considerations": _considerations(manifest, card),
            "properties": _facts(manifest),
        },
    }
    if manifest.parent_digest is not None:
        model["pedigree"] = {"ancestors": [_ancestor(manifest)]}
    return model


def _file(name: str, data: bytes) -> Json:
    content = hashlib.sha256(data).hexdigest()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": content}],
    }


def _ancestor(manifest: Manifest) -> Json:
    """Return the champion that the candidate was compared with."""
    version = manifest.evaluation.champion_version
    return {
        "type": "machine-learning-model",
        "name": manifest.pipeline,
        "version": "unknown" if version is None else str(version),
        "description": "champion when this one was trained; the digest is that of its "
        "package's manifest",
        "hashes": [{"alg": "SHA-256", "content": manifest.parent_digest}],
    }


def _parameters(manifest: Manifest, datasets: list[str]) -> Json:
    return {
        "approach": {"type": "supervised"},
        "task": TASKS[manifest.task],
        "modelArchitecture": manifest.algorithm,
        "datasets": [{"ref": name} for name in datasets],
        "inputs": [
            {
                "format": f"{column.name}: {column.type}"
                + (", may be missing" if column.nullable else "")
            }
            for column in manifest.inputs
        ],
        "outputs": [
            {"format": f"{column.name}: {column.type}, {column.description}"}
            for column in manifest.outputs
        ],
    }


def _metrics(evaluation: Evaluation, card: Json) -> Iterator[Json]:
    """Return the figures of the hold-out: losses, the difference, and what else."""
    metric, analyses = evaluation.metric, card["quantitative_analyses"]
    for one in analyses["intervals"]:
        found = _metric(metric, one["loss"], (one["low"], one["high"]))
        if one["column"] is not None:
            found["slice"] = f"{one['column']} = {one['value']}"
        yield found
    number = evaluation.champion_version
    if evaluation.champion is not None:
        other = f"champion v{number}"
        yield _metric(f"{metric} of {other}", evaluation.champion)
    else:
        other = "no skill"
    yield _metric(f"{metric} of no skill", evaluation.baseline)
    difference = evaluation.comparison
    yield _metric(
        f"mean {ROW_LOSS.get(metric, 'loss')} a row less that of {other}",
        difference.mean_difference,
        difference.interval(CONFIDENCE),
    )
    measures = evaluation.measures
    if measures and measures.calibration:
        yield _metric("calibration error", measures.calibration.error)
    if measures and measures.parity:
        yield _metric(
            "greatest difference of the graph from the library",
            measures.parity.difference,
        )


def _metric(
    kind: str, value: float, interval: tuple[float, float] | None = None
) -> Json:
    found: Json = {"type": kind, "value": f"{value:.6g}"}
    if interval is not None:
        low, high = interval
        found["confidenceInterval"] = {
            "lowerBound": f"{low:.6g}",
            "upperBound": f"{high:.6g}",
        }
    return found


def _considerations(manifest: Manifest, card: Json) -> Json:
    measures = manifest.evaluation.measures
    gaps = measures.fairness if measures else []
    words = card["ethical_considerations"]
    found: Json = {
        "useCases": [card["intended_use"]["primary"]],
        "technicalLimitations": [
            card["intended_use"]["out_of_scope"],
            *card["caveats_and_recommendations"],
        ],
        "performanceTradeoffs": [card["quantitative_analyses"]["comparison"]],
    }
    if gaps:
        found["fairnessAssessments"] = [
            {"groupAtRisk": gap.column, "harms": text}
            for gap, text in zip(gaps, words, strict=True)
        ]
    else:
        found["ethicalConsiderations"] = [{"name": text} for text in words]
    return found


def _facts(manifest: Manifest) -> list[Json]:
    facts = {
        "training:rows": manifest.train_row_count,
        "training:span": _span(manifest.learned_span or manifest.train_span),
        "holdout:rows": manifest.evaluation.holdout_row_count,
        "holdout:span": _span(manifest.holdout_span),
        "rows:left_out": "; ".join(map(left_out_in_words, manifest.left_out)) or None,
        "rows:sha256": manifest.rows_sha256,
        "seed": manifest.seed,
        "job": manifest.job_id,
        "cause": manifest.cause_reason,
        "cause:event": manifest.cause_event_id,
    }
    found = [_property(k, str(v)) for k, v in facts.items() if v is not None]
    return found + [
        _property(f"parameter:{name}", canonical_json(value).decode())
        for name, value in sorted(manifest.parameters.items())
    ]


def _property(name: str, value: str) -> Json:
    return {"name": f"driftloop:{name}", "value": value}


def _span(span: Span) -> str:
    """Return a span as ISO 8601 writes an interval."""
    return f"{span.start.isoformat()}/{span.end.isoformat()}"


def _datasets(manifest: Manifest, owner: str | None) -> Iterator[Json]:
    dataset = manifest.dataset
    yield _dataset(manifest.pipeline, "observations", dataset.observations, owner)
    if dataset.labels is not None:
        yield _dataset(manifest.pipeline, "labels", dataset.labels, owner)


def _dataset(pipeline: str, kind: str, table: TableRef, owner: str | None) -> Json:
    data: Json = {
        "type": "dataset",
        "name": f"{pipeline} {kind}",
        "contents": {
            "url": _url(table.uri),
            "properties": [
                _property("table:uri", table.uri),
                _property("table:version", str(table.version)),
                _property("table:format", "Delta Lake"),
            ],
        },
    }
    if owner is not None:
        data["governance"] = {"owners": [{"organization": {"name": owner}}]}
    return {
        "type": "data",
        "bom-ref": f"dataset:{kind}",
        "name": f"{pipeline} {kind}",
        "version": str(table.version),
        "data": [data],
    }


def _url(uri: str) -> str:
    """Return a table's place as an address.

    >>> _url("/data/bike rentals/observations"), _url("s3://datasets/bikes/labels")
    ('file:///data/bike%20rentals/observations', 's3://datasets/bikes/labels')
    >>> _url("file:///data/bike%20rentals/labels")
    'file:///data/bike%20rentals/labels'
    """
    path = PurePosixPath(uri)
    return path.as_uri() if path.is_absolute() else quote(uri, safe="/:%")


def _library(line: str) -> Json:
    """Return a line of the environment as a component.

    >>> _library("ruamel.yaml==0.18")["purl"], _library("torch==2.15+cpu")["purl"]
    ('pkg:pypi/ruamel.yaml@0.18', 'pkg:pypi/torch@2.15%2Bcpu')
    >>> _library("driftloop-models==0.1.0")["purl"]
    'pkg:generic/driftloop-models@0.1.0'
    """
    name, _, version = line.partition("==")
    index = "generic" if name.startswith(OURS) else "pypi"
    purl_name = quote(name.lower().replace("_", "-"), safe="")
    purl = f"pkg:{index}/{purl_name}@{quote(version, safe='')}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
