"""The pipeline file: defaults that work, errors that name field and remedy."""

import pytest
from driftloop.contracts.checks import Expression, active_checks
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline

LEAST = "{name: churn, task: binary, data: {target: left}}"
CHECK = "{{name: a, task: binary, data: {{target: b}}, checks: [{}]}}"
FEATURE = "{{name: a, task: binary, data: {{target: b, features: {{x: {}}}}}}}"


def test_name_task_and_target_are_enough() -> None:
    spec = parse_pipeline(LEAST)
    assert spec.metric == "log_loss"
    assert spec.data.features == {}


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
