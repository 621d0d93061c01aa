"""Each cleaning step: what it learns, and that graph and numpy do the same with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.onnx_model import category_array, number_array
from driftloop.models.package import STRINGS
from driftloop.trainer import fitting, training
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.encoding import MATRIX, Encoding, learn_encoding
from driftloop.trainer.graph import IR_VERSION, OPSETS
from driftloop.trainer.preprocessing.categories import fit_target_mean
from driftloop.trainer.preprocessing.duplicates import without_duplicates
from driftloop.trainer.preprocessing.transforms import fit_transform
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.unit.support import examples
from tests.unit.trainer.cases import job, rows, spec

FEATURES = {
    "a": {"type": "number", "nullable": True},
    "b": {"type": "number", "nullable": True},
    "whole": {"type": "integer", "nullable": True},
    "kind": {"type": "category", "nullable": True},
    "shop": {"type": "category", "nullable": True},
    "note": {"type": "text", "nullable": True},
}


def piped(**preprocessing: Any) -> PipelineSpec:
    return spec(
        data={"features": FEATURES, "target": "y"},
        train={"preprocessing": preprocessing},
    )


def table(**columns: list[Any]) -> pa.Table:
    columns.setdefault("note", [None] * len(columns["a"]))
    types = {
        "whole": pa.int64(),
        **dict.fromkeys(("kind", "shop", "note"), pa.string()),
    }
    return pa.table(
        {n: pa.array(v, types.get(n, pa.float64())) for n, v in columns.items()}
    )


def served(encoding: Encoding, given: pa.Table) -> np.ndarray:
    """The matrix that the graph makes of rows."""
    nodes, constants = encoding.nodes()
    output = helper.make_tensor_value_info(MATRIX, TensorProto.FLOAT, [None, None])
    graph = helper.make_graph(
        nodes, "prepare", encoding.graph_inputs(), [output], constants
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {}
    for column in encoding.inputs:
        values = given.column(column.name).combine_chunks()
        as_array = category_array if column.type in STRINGS else number_array
        feeds[column.name] = as_array(values).reshape(-1, 1)
    return session.run(None, feeds)[0]


def learned(given: pa.Table, how: PipelineSpec, outcomes: Any = None) -> Encoding:
    if outcomes is None:
        outcomes = np.arange(given.num_rows, dtype=np.float64)
    return learn_encoding(given, how, np.asarray(outcomes, float).reshape(-1, 1))[0]


def fitted_of(encoding: Encoding, step: str) -> dict[str, dict[str, Any]]:
    return next(r.fitted for r in encoding.records() if r.step == step)


# ── graph and numpy are one ─────────────────────────────────────────────────

hostile_numbers = st.one_of(
    st.none(),
    st.sampled_from(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-40, 1e300]
    ),
    st.floats(-1e6, 1e6, width=32),
)
hostile_texts = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "a", "b", "a\x00", "a\x1fb", "Žluť", "0", "x" * 300]),
    st.text(max_size=4),
)

hostile_words = st.one_of(
    hostile_texts,
    st.lists(
        st.sampled_from(
            ["a", "A", "b", "B-2", "Ž", "\n", "", ",", "\x00", "a\x00b", "naïve",
             "世界", "³", "x_1", "e\u0301", "\u2028", "🚲"]
        ),
        max_size=8,
    ).map(" ".join),
)  # fmt: skip


@st.composite
def hostile_tables(draw: st.DrawFn, least: int) -> pa.Table:
    count = draw(st.integers(least, 6))

    def many(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return table(
        a=many(hostile_numbers),
        b=draw(st.sampled_from([[1.5] * count, [None] * count])),  # never changes
        whole=many(st.one_of(st.none(), st.integers(-(2**62), 2**62))),
        kind=many(hostile_texts),
        shop=many(hostile_texts),
        note=many(hostile_words),
    )


number_steps = st.fixed_dictionaries(
    {
        "outliers": st.sampled_from(["keep", "clip"]),
        "missing": st.sampled_from(["leave", "median", "mean", "most_frequent"]),
        "indicator": st.booleans(),
        "transform": st.sampled_from(["none", "log1p", "yeo_johnson", "quantile"]),
        "scaling": st.sampled_from(["none", "standard", "robust", "min_max"]),
    }
)
category_steps = st.fixed_dictionaries(
    {
        "missing": st.sampled_from(["leave", "most_frequent"]),
        "indicator": st.booleans(),
        "encoding": st.sampled_from(["one_hot", "ordinal", "target", "hashing"]),
        "min_frequency": st.integers(1, 2),
        "hash_columns": st.integers(2, 5),
    }
)


word_steps = st.fixed_dictionaries(
    {
        "words": st.sampled_from(["tfidf", "hashing"]),
        "indicator": st.booleans(),
        "min_frequency": st.integers(1, 2),
        "max_words": st.integers(1, 5),
        "hash_columns": st.integers(2, 5),
    }
)


@given(
    training=hostile_tables(1),
    asked=hostile_tables(1),
    numbers=number_steps,
    others=number_steps,
    texts=category_steps,
    notes=word_steps,
    crossed=st.booleans(),
)
@settings(max_examples=examples(15), phases=set(Phase) - {Phase.explain})
def test_graph_and_numpy_agree_on_anything(
    training: pa.Table, asked: pa.Table, numbers: Any, others: Any, texts: Any,
    notes: Any, crossed: bool,
) -> None:  # fmt: skip
    crosses = [{"columns": ["a", "whole"]}, {"columns": ["kind", "shop"], **texts}]
    how = piped(
        columns={
            "a": numbers,
            "b": others,
            "whole": numbers,
            "kind": texts,
            "note": notes,
        },
        crosses=crosses if crossed else [],
    )
    encoding = learned(training, how)
    for given_rows in (training, asked):
        found, wanted = served(encoding, given_rows), encoding.matrix(given_rows)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaling", ["standard", "robust", "min_max"])
@pytest.mark.parametrize("numbers", [[-3.4e38, 3.4e38], [0.0, 1e-40], [-1e-38, 3.4e38]])
def test_scaling_at_the_ends_of_single_precision(
    scaling: str, numbers: list[float]
) -> None:
    """A range beyond single precision, a width below its digits."""
    given_rows = table(a=numbers, b=[1.0, 2.0], whole=[1, 2],
                       kind=["x", "y"], shop=["x", "y"])  # fmt: skip
    encoding = learned(given_rows, piped(columns={"a": {"scaling": scaling}}))
    made = encoding.matrix(given_rows)
    np.testing.assert_allclose(served(encoding, given_rows), made, rtol=1e-5, atol=1e-6)
    assert not np.isnan(made).any()


def test_a_graph_of_other_constants_is_noticed() -> None:
    """The comparison above does see a difference."""
    given_rows = table(a=[1.0, 2.0], b=[1.0, 2.0], whole=[1, 2],
                       kind=["x", "y"], shop=["x", "y"])  # fmt: skip
    how = piped(defaults={"scaling": "standard"})
    other = given_rows.set_column(0, "a", pa.array([1.0, 3.0]))
    found = served(learned(given_rows, how), given_rows)
    assert not np.allclose(found, learned(other, how).matrix(given_rows))


@pytest.mark.parametrize("encoding", ["one_hot", "ordinal", "target", "hashing"])
def test_a_thousand_categories(encoding: str) -> None:
    shops = [f"shop {i % 1000}" for i in range(3000)]
    given_rows = table(a=[0.5] * 3000, b=[1.0] * 3000, whole=[1] * 3000,
                       kind=["k"] * 3000, shop=shops)  # fmt: skip
    how = piped(columns={"shop": {"encoding": encoding, "max_categories": 1000}})
    found = learned(given_rows, how)
    asked = given_rows.slice(0, 1200).set_column(
        4, "shop", pa.array([*shops[:1199], "never seen"])
    )
    assert np.array_equal(served(found, asked), found.matrix(asked), equal_nan=True)


# ── only training rows are learned from ─────────────────────────────────────

EVERYTHING = {
    "duplicates": "drop",
    "defaults": {"missing": "median", "indicator": True, "outliers": "clip"},
    "columns": {
        "a": {"transform": "yeo_johnson", "scaling": "robust"},
        "kind": {"encoding": "target"},
    },
    "crosses": [{"columns": ["a", "a"], "scaling": "standard"}],
}


def test_rows_outside_of_training_change_nothing_that_was_learned(
    tmp_path: Any,
) -> None:
    """Validation and hold-out rows of wild values: same bytes, same constants."""
    how = spec(train={"preprocessing": EVERYTHING, "candidates": ["linear"]})
    honest = rows(400)
    request = job(tmp_path / "unused", honest, how)
    split = training.split_rows(honest, request)
    wild = rows(400, seed=7)
    wild = wild.set_column(
        wild.schema.get_field_index("a"), "a", pa.array([1e6] * 400, pa.float64())
    ).set_column(wild.schema.get_field_index("kind"), "kind", pa.array(["wild"] * 400))
    kept = split.training.num_rows
    mixed = pa.concat_tables([honest.slice(0, kept), wild.slice(kept)])
    other = training.split_rows(mixed, request)
    assert not other.holdout.equals(split.holdout)
    first, second = (fitting.fit("linear", s.training, how, 1) for s in (split, other))
    assert first.model == second.model
    assert first.preprocessing == second.preprocessing
    seen = fitting.fit("linear", mixed, how, 1)  # the control: a leak would show
    assert seen.preprocessing != first.preprocessing


def test_a_training_row_is_not_encoded_by_its_own_target_or_a_later_one() -> None:
    texts = np.array(["x", "y", "x", "x", "y", "z"], dtype=object)
    outcomes = np.array([[1.0], [5.0], [3.0], [8.0], [7.0], [2.0]])
    _, before = fit_target_mean(texts, outcomes, 0.0, 100, 1)
    # x: nothing before, then 1, then the mean of 1 and 3; z: the mean of all before
    assert before[[2, 3, 4], 0].tolist() == [1.0, 2.0, 5.0]
    assert before[5, 0] == pytest.approx(outcomes[:5].mean())
    for at in range(1, 6):
        changed = outcomes.copy()
        changed[at:] += 100.0
        _, after = fit_target_mean(texts, changed, 0.0, 100, 1)
        assert after[1 : at + 1] == pytest.approx(before[1 : at + 1]), at


def test_target_encoding_of_noise_teaches_a_tree_nothing() -> None:
    """A category of its own for every second row: its own target would be learned."""
    count = 1200
    draw = np.random.default_rng(3)
    noise = rows(count).set_column(5, "y", pa.array(draw.normal(size=count)))
    kinds = pa.array([f"k{i // 2}" for i in draw.permutation(count)])
    noise = noise.set_column(4, "kind", kinds)
    how = spec(
        train={"preprocessing": {"columns": {"kind": {
            "encoding": "target", "smoothing": 0.0}}}}
    )  # fmt: skip
    fitted = fitting.fit("gradient_boosting", noise.slice(0, 900), how, 1)
    rest = noise.slice(900)
    error = np.abs(fitted.loaded().predict(rest).prediction - rest["y"].to_numpy())
    assert np.mean(error) < 1.5 * np.mean(np.abs(rest["y"].to_numpy()))


# ── what is learned and recorded ────────────────────────────────────────────


def test_the_manifest_says_each_step_with_its_constants() -> None:
    given_rows = table(
        a=[1.0, 2.0, 3.0, None], b=[0.0, 0.0, 4.0, 4.0], whole=[1, 2, 2, None],
        kind=["x", "x", "y", None], shop=["p", "q", "q", "q"],
    )  # fmt: skip
    how = piped(
        defaults={"missing": "median"},
        columns={
            "b": {"scaling": "min_max"},
            "whole": {"missing": "constant", "fill": -1},
            "shop": {"encoding": "target", "smoothing": 0},
        },
        crosses=[{"columns": ["kind", "shop"]}],
    )
    found = learned(given_rows, how, [1.0, 2.0, 3.0, 4.0])
    assert [(r.step, r.columns) for r in found.records()] == [
        ("fill_median", ["a"]),
        ("fill_median", ["b"]),
        ("scale_min_max", ["b"]),
        ("fill_constant", ["whole"]),
        ("one_hot", ["kind"]),
        ("target_mean", ["shop"]),
        ("joined", ["kind", "shop"]),
        ("one_hot", ["kind*shop"]),
    ]
    assert fitted_of(found, "scale_min_max") == {"b": {"centre": 0.0, "width": 4.0}}
    assert fitted_of(found, "target_mean") == {
        "shop": {"means": {"": [2.5], "p": [1.0], "q": [3.0]}, "unknown": [2.5]}
    }
    assert [c.categories for c in found.inputs[3:]] == [["x", "y"], None, None]


def test_what_a_model_never_saw_has_an_answer() -> None:
    given_rows = table(a=[1.0, 3.0], b=[1.0, 1.0], whole=[5, 5], kind=["x", "y"],
                       shop=["p", "q"])  # fmt: skip
    how = piped(
        columns={
            "a": {"missing": "mean", "outliers": "clip", "clip_quantiles": [0, 1]},
            "kind": {"encoding": "ordinal"},
            "shop": {"encoding": "target"},
        }
    )
    found = learned(given_rows, how, [1.0, 2.0])
    asked = table(a=[None, 1e30, np.inf], b=[None, 2.0, 2.0], whole=[None, 6, 6],
                  kind=["new", None, "x"], shop=["new", None, "p"])  # fmt: skip
    assert found.matrix(asked)[:, [0, 3]].tolist() == [
        [2.0, -1.0],
        [3.0, pytest.approx(np.nan, nan_ok=True)],
        [2.0, 0.0],  # an infinite number is as missing
    ]
    assert found.matrix(asked)[:2, 4].tolist() == [1.5, 1.5]


def test_a_column_that_never_changes_is_scaled_to_zero() -> None:
    given_rows = table(a=[7.0] * 3, b=[None] * 3, whole=[1] * 3, kind=["k"] * 3,
                       shop=[None] * 3)  # fmt: skip
    for scaling in ("standard", "robust", "min_max"):
        found = learned(given_rows, piped(defaults={"scaling": scaling}))
        assert found.matrix(given_rows)[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_transforms_bring_a_skewed_column_into_shape() -> None:
    skewed = np.random.default_rng(0).lognormal(0, 1, (5000, 1)).astype(np.float32)

    def skew(values: np.ndarray) -> float:
        centred = values - values.mean()
        return float(np.mean(centred**3) / np.mean(centred**2) ** 1.5)

    normal = fit_transform(skewed, "yeo_johnson").apply(skewed)
    even = fit_transform(skewed, "quantile").apply(skewed)
    assert skew(skewed) > 3
    assert abs(skew(normal)) < 0.2
    assert np.quantile(even, [0.1, 0.5, 0.9]) == pytest.approx(
        [0.1, 0.5, 0.9], abs=0.02
    )
    assert (even.min(), even.max()) == (0.0, 1.0)


def test_the_first_of_equal_rows_stays() -> None:
    given_rows = pa.table(
        {"id": ["1", "2", "3", "4"], "a": [1.0, None, None, 1.0], "k": ["x"] * 4}
    )
    kept = without_duplicates(given_rows, ["a", "k"])
    assert kept["id"].to_pylist() == ["1", "2"]
    assert without_duplicates(given_rows, ["id"]).equals(given_rows)


def test_dropped_duplicates_are_counted_in_the_manifest() -> None:
    twice = pa.concat_tables([rows(200), rows(200)]).sort_by("event_time")
    how = spec(train={"preprocessing": {"duplicates": "drop"}})
    fitted = fitting.fit("linear", twice, how, 1)
    assert fitted.row_count == 200
    assert fitted.preprocessing[0].fitted == {"rows": {"dropped": 200}}
    assert fitting.fit("linear", twice, spec(), 1).row_count == 400


def test_words_are_weighed_by_their_rarity_as_scikit_learn_does() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    notes = ["The bike is broken, the chain too", "the BIKE works", "", "chain_2 naïve"]
    count = len(notes)
    given_rows = table(a=[1.0] * count, b=[1.0] * count, whole=[1] * count,
                       kind=["k"] * count, shop=["s"] * count, note=notes)  # fmt: skip
    found = learned(given_rows, piped())
    theirs = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit(notes)
    assert list(fitted_of(found, "tfidf")["note"]["rarity"]) == sorted(
        theirs.vocabulary_
    )
    ours = found.matrix(given_rows)[:, 5:]
    np.testing.assert_allclose(ours, theirs.transform(notes).toarray(), atol=1e-6)


@pytest.mark.parametrize("words", ["tfidf", "hashing"])
def test_a_model_learns_from_words(words: str) -> None:
    count = 400
    draw = np.random.default_rng(5)
    is_bad = draw.random(count) < 0.5
    fill = draw.choice(["road", "city", "park", "hill"], (count, 3)).tolist()
    notes = [
        " ".join([*some, "Broken!" if bad else "fine."])
        for some, bad in zip(fill, is_bad, strict=True)
    ]
    given_rows = rows(count).set_column(4, "note", pa.array(notes))
    given_rows = given_rows.set_column(5, "y", pa.array(np.where(is_bad, 5.0, 0.0)))
    how = spec(
        data={"features": {"note": {"type": "text"}}},
        train={"preprocessing": {"columns": {"note": {"words": words}}}},
    )
    fitted = fitting.fit("linear", given_rows.slice(0, 300), how, 1)
    asked = pa.RecordBatch.from_pydict(
        {"note": ["a BROKEN road", "all fine", "", None, "unseen words only"]}
    )
    said = fitted.loaded().predict(asked).prediction
    assert (said[0] > 3.5, said[1] < 1.5) == (True, True)
    assert np.isfinite(said).all()


# ── whole candidates ────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
@pytest.mark.parametrize("name", ["gradient_boosting", "linear"])
def test_a_candidate_behind_every_step_is_exact(name: str, task: str) -> None:
    """``fit`` refuses a graph that differs; the same job gives the same bytes."""
    how = spec(task=task, train={"preprocessing": EVERYTHING})
    given_rows = rows(300, task=task)
    first, second = (fitting.fit(name, given_rows, how, 1) for _ in range(2))
    assert first.model == second.model
    strange = pa.RecordBatch.from_pydict({"a": [None, 1e30], "kind": ["new", None]})
    assert first.loaded().predict(strange).non_finite_count() == 0


def test_steps_of_a_column_that_data_do_not_have_are_refused() -> None:
    how = spec(
        data={"features": {}}, train={"preprocessing": {"columns": {"nope": {}}}}
    )
    with pytest.raises(CandidateRefused, match="'nope', which is no feature"):
        fitting.fit("linear", rows(100), how, 1)


def test_a_checkpoint_keeps_what_was_learned(tmp_path: Any) -> None:
    how = spec(train={"preprocessing": EVERYTHING})
    fitted = fitting.fit("linear", rows(100), how, 1)
    fitting.save(fitted, tmp_path, "try")
    assert fitting.saved(tmp_path, "try", "linear") == fitted
