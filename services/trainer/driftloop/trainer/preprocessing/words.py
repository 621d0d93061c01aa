"""Text: the words in it, weighed by how rare they are, or hashed to columns.

A word is a run of letters, digits and underscores; A to Z count as a to z. Arrow and
ONNX Runtime find words by the same engine, RE2.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.formats import RUNTIME_DOMAIN
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.hashing import SEED, buckets
from driftloop.trainer.preprocessing.wiring import (
    NOTHING,
    Drawing,
    Matrix,
    Texts,
    readable,
)
from onnx import TensorProto

LETTERS = r"\p{L}\p{N}_"
INT64 = int(TensorProto.INT64)


def words_of(texts: Texts) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return all words in order, and for each the number of its row."""
    lower = pc.ascii_lower(pa.array(texts, pa.string()))
    spaced = pc.replace_substring_regex(lower, f"[^{LETTERS}]+", " ")
    rows = pc.split_pattern(pc.utf8_trim(spaced, " "), " ")
    words = pc.list_flatten(rows)
    owners = pc.list_parent_indices(rows).to_numpy().astype(np.int64)
    is_word = pc.not_equal(words, "")
    return words.filter(is_word), owners[is_word.to_numpy(zero_copy_only=False)]


def wire_words(drawing: Drawing, source: str) -> str:
    """Draw :func:`words_of`: (n_rows, most words of a row), the rest is empty."""
    flat = drawing.node("Squeeze", source, drawing.constant([1], np.int64))
    # The locale "C" is on every machine; it knows A to Z.
    lower = drawing.node(
        "StringNormalizer", flat, case_change_action="LOWER", locale="C"
    )
    return drawing.node(
        "Tokenizer", lower, domain=RUNTIME_DOMAIN, mark=0, mincharnum=1, pad_value="",
        tokenexp=f"[{LETTERS}]+",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TfIdf:
    """How often each known word comes, times its rarity; a row has length 1 or 0.

    Attributes
    ----------
    words : sorted.
    rarity : (n_words,) float32: 1 + ln((1 + n_rows) / (1 + rows with the word)).

    Source: Spärck Jones (1972), doi 10.1108/eb026526; smoothed as scikit-learn does.
    """

    words: tuple[str, ...]
    rarity: Matrix

    def apply(self, texts: Texts) -> Matrix:
        words, owners = words_of(texts)
        columns = pc.index_in(words, value_set=pa.array(self.words, pa.string()))
        is_known = pc.is_valid(columns).to_numpy(zero_copy_only=False)
        counts = np.zeros((len(texts), len(self.words)), dtype=np.float32)
        np.add.at(counts, (owners[is_known], columns.drop_null().to_numpy()), 1)
        return _of_length_one(counts * self.rarity)

    def wire(self, drawing: Drawing, source: str) -> str:
        if not self.words:
            return NOTHING
        weighed = drawing.node(
            "TfIdfVectorizer", wire_words(drawing, source), mode="TFIDF",
            min_gram_length=1, max_gram_length=1, max_skip_count=0, ngram_counts=[0],
            ngram_indexes=list(range(len(self.words))),
            pool_strings=list(self.words), weights=self.rarity.tolist(),
        )  # fmt: skip
        return _wire_length_one(drawing, weighed)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        pairs = zip(self.words, self.rarity, strict=True)
        rarity = {word: readable(value) for word, value in pairs}
        fitted = {name: {"rarity": rarity} for name in columns}
        return PreprocessingStep(step="tfidf", columns=list(columns), fitted=fitted)


@dataclass(frozen=True)
class WordHashing:
    """How often a word of each of ``width`` hashes comes; a row has length 1 or 0.

    Source: as :class:`hashing.Hashing`.
    """

    width: int

    def apply(self, texts: Texts) -> Matrix:
        words, owners = words_of(texts)
        coded = words.dictionary_encode()
        known = buckets(coded.dictionary.to_pylist(), self.width)
        columns = np.array(known, dtype=np.int64)[coded.indices.to_numpy()]
        counts = np.zeros((len(texts), self.width), dtype=np.float32)
        np.add.at(counts, (owners, columns), 1)
        return _of_length_one(counts)

    def wire(self, drawing: Drawing, source: str) -> str:
        words = wire_words(drawing, source)
        hashed = drawing.node(
            "MurmurHash3", words, domain=RUNTIME_DOMAIN, positive=1, seed=SEED
        )
        wide = drawing.node("Cast", hashed, to=INT64)
        width = drawing.constant(self.width, np.int64)
        is_empty = drawing.node("Equal", words, drawing.constant([""], object))
        # What fills a short row up goes into a column of its own, which is cut off.
        column = drawing.node(
            "Where", is_empty, width, drawing.node("Mod", wide, width)
        )
        rows = drawing.node("Shape", source, start=0, end=1)
        shape = drawing.node(
            "Concat", rows, drawing.constant([self.width + 1], np.int64), axis=0
        )
        zeros = drawing.node("Expand", drawing.constant(0.0), shape)
        ones = drawing.node(
            "Expand", drawing.constant(1.0), drawing.node("Shape", words)
        )
        counts = drawing.node(
            "ScatterElements", zeros, column, ones, axis=1, reduction="add"
        )
        first, one = drawing.constant([0], np.int64), drawing.constant([1], np.int64)
        end = drawing.constant([self.width], np.int64)
        kept = drawing.node("Slice", counts, first, end, one)
        return _wire_length_one(drawing, kept)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = {name: {"columns": self.width, "seed": SEED} for name in columns}
        return PreprocessingStep(
            step="word_hashing", columns=list(columns), fitted=fitted
        )


def _of_length_one(matrix: Matrix) -> Matrix:
    length: Matrix = np.sqrt(np.sum(np.square(matrix), axis=1, keepdims=True))
    by = np.where(length > 0, length, 1)
    return (matrix / by).astype(np.float32)


def _wire_length_one(drawing: Drawing, source: str) -> str:
    squares = drawing.node("Mul", source, source)
    axis = drawing.constant([1], np.int64)
    length = drawing.node("Sqrt", drawing.node("ReduceSum", squares, axis, keepdims=1))
    is_some = drawing.node("Greater", length, drawing.constant(0.0))
    by = drawing.node("Where", is_some, length, drawing.constant(1.0))
    return drawing.node("Div", source, by)


def fit_words(
    texts: Texts, how: str, most: int, min_rows: int, width: int
) -> TfIdf | WordHashing:
    """Learn the words that most rows have, and how rare each is.

    Parameters
    ----------
    most, min_rows : words that are told apart, and rows that a word must be in.
    width : columns of ``hashing``, which learns nothing.
    """
    if how == "hashing":
        return WordHashing(width)
    words, owners = words_of(texts)
    once = set(zip(owners.tolist(), words.to_pylist(), strict=True))
    counts = Counter(word for _, word in once)
    frequent = sorted(
        (word for word, count in counts.items() if count >= min_rows),
        key=lambda word: (-counts[word], word),
    )
    known = sorted(frequent[:most])
    in_rows = np.array([counts[word] for word in known], dtype=np.float64)
    rarity = 1 + np.log((1 + len(texts)) / (1 + in_rows))
    return TfIdf(tuple(known), rarity.astype(np.float32))
