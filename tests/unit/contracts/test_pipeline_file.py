"""The pipeline file: defaults that work, errors that name field and remedy."""

from datetime import timedelta

import pytest
from driftloop.contracts.checks import Expression, active_checks
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import (
    KEPT_HOURS,
    PipelineFileError,
    PipelineSpec,
    parse_pipeline,
)
from driftloop.contracts.topics import ROWS_RETENTION

LEAST = "{name: churn, task: binary, data: {target: left}}"
CHECK = "{{name: a, task: binary, data: {{target: b}}, checks: [{}]}}"
FEATURE = "{{name: a, task: binary, data: {{target: b, features: {{x: {}}}}}}}"
STEPS = (
    "{{name: a, task: binary, data: {{target: b, features: "
    "{{x: {{}}, at: {{type: datetime}}}}}}, train: {{preprocessing: {}}}}}"
)


def test_name_task_and_target_are_enough() -> None:
    spec = parse_pipeline(LEAST)
    assert spec.metric == "log_loss"
    assert spec.data.features == {}


@pytest.mark.parametrize(
    ("approval", "hours"),
    [
        ("{}", [24, 48]),
        ("{expires_after: 2d}", [24]),
        ("{expires_after: never}", [24, 48]),
        ("{remind_after: []}", []),
        ("{remind_after: [30m]}", [0.5]),
    ],
)
def test_people_are_reminded_while_a_request_is_open(
    approval: str, hours: list[float]
) -> None:
    text = LEAST[:-1] + f", rollout: {{approval: {approval}}}}}"
    spec = parse_pipeline(text)
    found = PipelineSpec.model_validate_json(spec.model_dump_json()).rollout.approval
    assert [each / timedelta(hours=1) for each in found.reminders] == hours


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{name: churn, task: binary}", "data: missing; add it"),
        ("{name: Churn!, task: binary, data: {target: left}}", "name: .*pattern"),
        ("{name: a, task: binary, data: {target: b, tim: t}}", "did you mean 'time'"),
        ("{name: a, task: guess, data: {target: b}}", "task: .*'regression'"),
        (
            "{name: a, task: binary, data: {target: b}, "
            "gate: {robustness: {max_flips: 1}}}",
            "did you mean 'max_flip_ratio'",
        ),
        (
            "{name: a, task: binary, data: {target: b, features: {sex: {}}}, "
            "gate: {slices: [sx]}}",
            "gate.slices names column 'sx'.*did you mean 'sex'",
        ),
        (
            "{name: a, task: binary, data: {target: b, features: {sex: {}}}, "
            "gate: {fairness: {columns: [age]}}}",
            "gate.fairness.columns names column 'age'.*add it there",
        ),
        (
            "{name: a, task: binary, data: {target: b}, train: {metric: mae}}",
            "does not fit task",
        ),
        (
            "{name: a, task: binary, data: {target: b, features: {b: {}}}}",
            "leak the answer",
        ),
        (
            "{name: a, task: binary, "
            "data: {target: b, features: {x: {min: 2, max: 1}}}}",
            "data.features.x: min 2.0 is above max 1.0",
        ),
        (
            "{name: a, task: binary, data: {target: b}, rollout: {steps: [0.5, 0.1]}}",
            "steps must grow",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {strategy: canary, shadow_from: replay}}",
            "strategy canary has not; use shadow_then_canary or shadow_from: live",
        ),
        (
            "{name: a, task: binary, data: {target: b}, rollout: {replay_hours: 200}}",
            "rollout.replay_hours: .*less than or equal to 168",
        ),
        (
            "{name: a, task: binary, data: {target: b}, serving: {log: some}}",
            "serving.log: .*'all', 'sample' or 'none'",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {expires_after: 72}}}",
            "rollout.approval.expires_after: .*string",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {expires_after: 3 days}}}",
            "rollout.approval.expires_after: .*such as 30m, 72h or 3d; or never",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {expires_after: 400d}}}",
            "at most 366d",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {remind_after: [2h, 1h]}}}",
            "rollout.approval.remind_after: durations must grow",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {expires_after: 1h, remind_after: [1h]}}}",
            "remind_after 1h is not before expires_after 1h",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {role: risk, also: {risk: 2}}}}",
            "also names 'risk', which is role already",
        ),
        (
            "{name: a, task: binary, data: {target: b}, "
            "rollout: {approval: {also: {risk: 0}}}}",
            "rollout.approval.also.risk: .*greater than or equal to 1",
        ),
        (
            "{name: a, task: binary, data: {target: b, features: {x: {}}}, "
            "checks: [{check: stuck, columns: [xx]}]}",
            "names column 'xx'.*did you mean 'x'",
        ),
        (CHECK.format("{check: stuck, row: 3}"), "checks.0.stuck.row.*'rows'"),
        (CHECK.format("{rows: 3}"), "say which check it is, as check: unit_slip"),
        (CHECK.format("{check: stuk}"), "checks.0: .*'stuk'"),
        (CHECK.format("{function: os.system}"), "checks.0.function.function: "),
        (CHECK.format("{check: null_ratio}"), "max_ratio: missing; add it"),
        (
            CHECK.format("{check: expression, sql: 'x > (SELECT 1)'}"),
            "SELECT is not allowed in an expression",
        ),
        (
            CHECK.format("{check: expression, sql: read_csv('/etc/passwd')}"),
            r"read_csv\(\) is not allowed",
        ),
        (FEATURE.format("{type: category, pattern: '('}"), "no regular expression"),
        (FEATURE.format("{type: category, pattern: '(?=a)b'}"), "no look-around"),
        (FEATURE.format("{pattern: a}"), "pattern is for a category, not number"),
        (FEATURE.format("{min: soon}"), "x.min: is no number, and is no moment"),
        (FEATURE.format("{type: datetime, min: 5}"), "min of a datetime is a moment"),
        (FEATURE.format("{type: datetime, max: 2011-01-01}"), "moment with an offset"),
        (
            FEATURE.format("{min: '2011-01-01T00:00:00Z'}"),
            "min of a number is a number",
        ),
        (
            FEATURE.format(
                "{type: datetime, min: '2012-01-01T00:00:00Z', "
                "max: '2011-01-01T00:00:00Z'}"
            ),
            "min 2012-01-01T00:00:00Z is above max 2011-01-01T00:00:00Z",
        ),
        (
            FEATURE.format("{type: datetime, values: [a]}"),
            "values is not for a datetime",
        ),
        (FEATURE.format("{type: datetime, unit: s}"), "unit is not for a datetime"),
        (FEATURE.format("{type: datetime, pattern: a}"), "is for a category"),
        (STEPS.format("{columns: {at: {scaling: robust}}}"), "not for a datetime"),
        (STEPS.format("{columns: {x: {parts: [days]}}}"), "not for a number"),
        (STEPS.format("{columns: {at: {parts: [days, days]}}}"), "name each once"),
        (
            STEPS.format("{columns: {at: {missing: constant, fill: soon}}}"),
            "fill: soon is no moment with an offset",
        ),
        (STEPS.format("{crosses: [{columns: [at, at]}]}"), "days between two moments"),
        (
            STEPS.format("{crosses: [{columns: [at, x]}]}"),
            "crosses numbers with moments",
        ),
        ("- a\n- b", "a mapping"),
        ("{", "not valid YAML"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(text: str, says: str) -> None:
    with pytest.raises(PipelineFileError, match=says):
        parse_pipeline(text)


def test_checks_that_run_are_the_listed_and_the_defaults() -> None:
    def running(*checks: str) -> list[tuple[str, str]]:
        spec = parse_pipeline(CHECK.format(", ".join(checks)))
        return [(c.check, c.severity) for c in active_checks(spec.checks)]

    slip = ("unit_slip", "warn")
    assert running() == [slip, ("stuck", "warn")]
    assert running("{check: stuck, severity: ignore}") == [slip]
    assert running("{check: stuck, severity: reject}") == [("stuck", "reject"), slip]
    assert running("{function: a.b:c}")[0] == ("function", "quarantine")


@pytest.mark.parametrize(
    "sql",
    [
        "casual + registered = total",
        "sky IN ('clear', 'select') AND NOT (temp > 30 AND sky = 'snow')",
        "abs(temp - avg(temp)) < 5 * stddev(temp)",
        "CASE WHEN k = 'a;b' THEN x > 0 ELSE x BETWEEN (1) AND (2) END",
    ],
)
def test_plain_expressions_are_allowed(sql: str) -> None:
    assert Expression(check="expression", sql=sql).sql == sql


def test_a_range_of_moments_travels_as_it_was_written() -> None:
    limits = "{type: datetime, min: 2011-01-01T00:00:00+02:00, nullable: true}"
    spec = parse_pipeline(FEATURE.format(limits))
    again = PipelineSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    low, high = again.data.features["x"].moment_limits
    assert (str(low), high) == ("2010-12-31 22:00:00+00:00", None)
    assert again.data.features["x"].number_limits == (None, None)


def test_steps_mean_the_same_after_their_way_over_kafka() -> None:
    """A key that the file did not say would count as said, and not fit the column."""
    said = "{defaults: {indicator: true}, columns: {x: {scaling: robust}}}"
    spec = parse_pipeline(STEPS.format(said))
    event = PipelineApplied(pipeline="a", spec=spec, applied_by="ada")
    again = PipelineApplied.model_validate_json(event.model_dump_json()).spec
    assert again == spec
    steps = again.train.preprocessing.steps_of("x", "number")
    assert (steps.indicator, steps.scaling) == (True, "robust")


def test_a_replay_asks_for_no_more_than_the_log_keeps() -> None:
    assert timedelta(hours=KEPT_HOURS) == ROWS_RETENTION
