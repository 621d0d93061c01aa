"""Single checks: severities, what they remember, and what they do not judge."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineSpec, parse_pipeline
from driftloop.validator.core import Checked, check, contract_of
from driftloop.validator.inspection import ShardState, Surroundings, inspect
from driftloop.validator.reference import Reference, reference_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def spec_with(*checks: str, feature: str = "{}") -> PipelineSpec:
    return parse_pipeline(
        f"{{name: a, task: regression, data: {{target: y, features: {{x: {feature}, "
        f"k: {{type: category, nullable: true}}}}}}, checks: [{', '.join(checks)}]}}"
    )


def rows(x: Any, k: Any = None, start: int = 0) -> pa.RecordBatch:
    count = len(x)
    times = [START + timedelta(hours=start + n) for n in range(count)]
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"r{start + n}" for n in range(count)],
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "source": ["s"] * count,
            "x": pa.array(x),
            "k": pa.array(["a"] * count if k is None else k, pa.string()),
            "y": [1.0] * count,
        }
    )


def noise(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(10, 1, count)


REFERENCE = reference_of(rows(noise(1000), ["a", "b"] * 500))


class Stream:
    """Batches of one shard, one after another."""

    def __init__(self, spec: PipelineSpec, reference: Reference | None = REFERENCE):
        self.spec, self.reference, self.state = spec, reference, ShardState()
        self.contract = contract_of(spec, "observations", spec.data.features, None)

    def send(self, batch: pa.RecordBatch, age_hours: float = 0) -> Checked:
        newest = max(batch.column("event_time").to_pylist())
        around = Surroundings(
            features=self.spec.data.features,
            came=batch.num_rows,
            arrived_at=newest + timedelta(hours=age_hours),
            reference=self.reference,
            known=lambda rule, texts: set(),
            imported=lambda rule, frame: (),
        )

        def further(good: pa.RecordBatch) -> Any:
            checks = self.spec.checks
            found, self.state = inspect(good, checks, self.state, around)
            return found

        return check(batch, self.contract, None, further)


def told(checked: Checked) -> list[tuple[str, str, int]]:
    found = [*checked.reasons, *checked.warnings]
    return [(f.check, f.field, f.row_count) for f in found]


@pytest.mark.parametrize(
    ("severity", "good", "bad"),
    [("warn", 3, 0), ("quarantine", 2, 1), ("reject", 0, 3)],
)
@pytest.mark.parametrize(
    "how",
    ["{{check: expression, sql: x < 20, severity: {}}}", "{{max: 20, severity: {}}}"],
)
def test_a_severity_decides_what_happens_to_rows(
    how: str, severity: str, good: int, bad: int
) -> None:
    """The same three for a check and for a column's own rules."""
    text = how.format(severity)
    spec = spec_with(text) if "check" in how else spec_with(feature=text)
    checked = Stream(spec).send(rows([10.0, 99.0, 11.0]))
    assert (checked.good.num_rows if checked.good else 0) == good
    assert (checked.bad.num_rows if checked.bad else 0) == bad
    assert len(checked.warnings) == (severity == "warn")
    if severity == "reject":
        assert checked.reasons[0].severity == "reject"
        reasons = checked.bad.column("reason").to_pylist()
        assert ["whole batch was rejected" in reason for reason in reasons] == [
            True,
            False,
            True,
        ]


def test_an_ignored_rule_says_nothing() -> None:
    spec = spec_with(feature="{max: 20, severity: ignore}")
    assert told(Stream(spec).send(rows([99.0]))) == []


def test_a_wrong_type_is_quarantined_though_the_column_only_warns() -> None:
    """A row without a value of its type cannot go on."""
    spec = spec_with(feature="{max: 20, severity: warn}")
    checked = Stream(spec).send(rows(["10", "99", "much"]))
    assert checked.good.column("id").to_pylist() == ["r0", "r1"]
    assert [(r.check, r.row_count) for r in checked.reasons] == [("type", 1)]
    assert [(w.check, w.example) for w in checked.warnings] == [("range", "99")]


def test_findings_point_at_rows_of_the_whole_batch() -> None:
    """Checks see the rows that keep the contract; reasons are about all."""
    spec = spec_with("{check: expression, sql: x < 20}")
    checked = Stream(spec).send(rows(["oops", "10", "99", "11"]))
    assert checked.bad.column("id").to_pylist() == ["r0", "r2"]
    assert checked.bad.column("reason").to_pylist() == [
        "x: type (oops)",
        "x < 20: expression",
    ]


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("x >= 0 AND k <> 'b'", 1),
        ("x < avg(x) * 3", 1),
        ("k IN ('a', 'b')", 0),  # unknown passes
        ("nope > 1", 4),
        ("x + 1", 4),
        ("x >", 4),
    ],
)
def test_expressions_are_false_for_wrong_rows(sql: str, count: int) -> None:
    """One that cannot be computed fails everywhere: nothing passes unchecked."""
    spec = spec_with(f'{{check: expression, sql: "{sql}", name: rule}}')
    checked = Stream(spec).send(rows([1.0, 2.0, 0.5, 99.0], ["a", "b", None, "a"]))
    found = told(checked)
    assert found == ([("expression", "rule", count)] if count else [])
    if count == 4:
        assert "correct" in checked.reasons[0].detail or "compare" in (
            checked.reasons[0].detail
        )


def test_a_stuck_sensor_is_found_over_batches() -> None:
    stream = Stream(spec_with("{check: stuck, rows: 24}"))
    assert told(stream.send(rows([*noise(10), *[10.5] * 10]))) == []
    assert told(stream.send(rows([10.5] * 13, start=20))) == []
    assert told(stream.send(rows([10.5, *noise(5)], start=33))) == [("stuck", "x", 1)]
    assert told(stream.send(rows([10.5] * 5, start=40))) == []


def test_codes_and_constants_are_not_judged_as_sensors() -> None:
    """A holiday is 0 for months, and then 1."""
    reference = reference_of(rows([0.0, 0.0, 0.0, 1.0] * 250))
    stream = Stream(
        spec_with("{check: stuck}", "{check: unit_slip}", "{check: spikes}"), reference
    )
    assert told(stream.send(rows([0.0] * 500))) == []
    assert told(stream.send(rows([1000.0] * 50, start=500))) == []


def test_a_slip_is_told_while_it_lasts() -> None:
    stream = Stream(spec_with("{check: unit_slip}"))
    assert told(stream.send(rows(noise(24)))) == []
    for start in (24, 48, 72):
        found = stream.send(rows(noise(24) * 10, start=start))
        assert told(found) == [("unit_slip", "x", 24)]
        assert "10" in found.warnings[0].detail
    assert told(stream.send(rows(noise(24), start=96))) == []


def test_growth_is_no_slip() -> None:
    """A hundredfold, but never by a jump."""
    stream = Stream(spec_with("{check: unit_slip}"))
    for n in range(40):
        assert told(stream.send(rows(noise(24) * 1.13**n, start=24 * n))) == []


@pytest.mark.parametrize(("unit", "count"), [("°C", 24), ("m", 0)])
def test_degrees_slip_only_where_they_are_degrees(unit: str, count: int) -> None:
    spec = spec_with(
        "{check: unit_slip, min_factor: 30}", feature=f"{{unit: '{unit}'}}"
    )
    stream = Stream(spec)
    assert told(stream.send(rows(noise(24)))) == []
    found = told(stream.send(rows(noise(24) * 1.8 + 32, start=24)))
    assert found == ([("unit_slip", "x", count)] if count else [])


def test_a_level_that_moves_is_no_spike() -> None:
    stream = Stream(spec_with("{check: spikes}"))
    values = noise(24)
    values[12:] += 50
    assert told(stream.send(rows(values))) == []
    values = noise(24)
    values[[0, 12]] = 60
    assert told(stream.send(rows(values, start=24))) == [("spikes", "x", 2)]


def test_not_enough_data_is_a_verdict() -> None:
    """Rows are gathered over batches until the effect could be found."""
    stream = Stream(spec_with("{check: distribution, columns: [x], severity: reject}"))
    verdicts = []
    for n in range(4):
        checked = stream.send(rows(noise(24, n) + 2, start=24 * n))
        verdicts.append(
            [w.verdict for w in checked.warnings] or checked.reasons[0].check
        )
    assert verdicts == [["not_enough_data"]] * 2 + ["distribution", ["not_enough_data"]]


def test_without_a_reference_there_is_no_verdict() -> None:
    stream = Stream(spec_with("{check: distribution}", "{check: stuck}"), None)
    checked = stream.send(rows([1.0] * 50))
    assert [(w.check, w.verdict) for w in checked.warnings] == [
        ("distribution", "not_enough_data")
    ]


def test_a_reference_that_is_too_small_says_so() -> None:
    reference = reference_of(rows(noise(30), ["a", "b"] * 15))
    stream = Stream(spec_with("{check: distribution, min_effect: 0.1}"), reference)
    (warning,) = stream.send(rows(noise(500))).warnings
    assert "raise data.reference_rows" in warning.detail


@pytest.mark.parametrize(("shift", "alarms"), [(0.0, 0), (2.0, 10)])
def test_distributions_alarm_by_effect_not_by_size(shift: float, alarms: int) -> None:
    """Ten times five thousand rows, which make any difference significant."""
    spec = spec_with("{check: distribution, columns: [x]}")
    counts = 0
    for seed in range(10):
        values = noise(5000, seed) * 1.02 + shift
        counts += len(told(Stream(spec).send(rows(values))))
    assert counts == alarms


def test_a_profile_survives_being_written() -> None:
    text = REFERENCE.model_dump_json()
    assert Reference.model_validate_json(text) == REFERENCE
    assert Reference.model_validate_json(text).model_dump_json() == text
    wild = reference_of(rows([1e308, -1e308] * 500))
    assert Reference.model_validate_json(wild.model_dump_json()) is not None


def test_batches_of_few_or_missing_values_are_survived() -> None:
    """Verdicts, not crashes: one row, all null, all equal, infinite."""
    kinds = ["unit_slip", "stuck", "spikes", "distribution", "monotonic"]
    spec = spec_with(*(f"{{check: {k}}}" for k in kinds), feature="{nullable: true}")
    stream = Stream(spec)
    for start, values in enumerate(
        [[1e308], [None] * 30, [float("nan")] * 3, [5.0] * 2, [0.0], [-1e308, 1e308]]
    ):
        batch = rows(pa.array(values, pa.float64()), start=start * 100)
        assert stream.send(batch) is not None
