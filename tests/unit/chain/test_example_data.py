"""Each example's file and pipeline fit together, but for the faults its page names."""

from pathlib import Path

import pytest
from driftloop.contracts.pipeline import load_pipeline
from driftloop.ingest.core import typed_rows
from driftloop.ingest.formats import parse
from driftloop.validator.core import check, contract_of

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(
    ("name", "file", "wrong"),
    [
        ("bike-demand", "rentals.csv", []),
        ("rain", "days.csv", ["day-3596", "day-3597"]),  # pressure above 5,500 hPa
    ],
)
def test_rows_keep_the_pipelines_contract(
    name: str, file: str, wrong: list[str]
) -> None:
    spec = load_pipeline(EXAMPLES / name / "pipeline.yaml")
    assert spec.name == name
    parsed = parse((EXAMPLES / name / file).read_bytes(), "text/csv")
    typed = typed_rows(parsed, spec, "observations", "example")
    assert typed.bad == []
    contract = contract_of(spec, "observations", spec.data.features, spec.data.classes)
    (batch,) = typed.table.combine_chunks().to_batches()
    checked = check(batch, contract)
    found = checked.bad.column("id").to_pylist() if checked.bad else []
    assert found == wrong
