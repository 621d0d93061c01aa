"""Hashing: a fixed number of columns for any number of categories, known or not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.models.formats import RUNTIME_DOMAIN
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.missing import as_float
from driftloop.trainer.preprocessing.wiring import Drawing, Matrix, Texts
from onnx import TensorProto

SEED = 0


def buckets(texts: Iterable[str], width: int) -> list[int]:
    """Return each text's hash, below ``width``."""
    # Here, not above: half of the service's start, of which it needs nothing else.
    from sklearn.utils import murmurhash3_32

    hashes = (murmurhash3_32(text.encode(), SEED, positive=True) for text in texts)
    return [int(number) % width for number in hashes]


@dataclass(frozen=True)
class Hashing:
    """One of ``width`` columns is 1, by the text's hash; an empty text has one too.

    Source: Weinberger et al. (2009), arXiv:0902.2206; MurmurHash3 x86 32 bits of the
    text in UTF-8.
    """

    width: int

    def apply(self, texts: Texts) -> Matrix:
        found, which = np.unique(texts.astype(object), return_inverse=True)
        numbers = np.array(buckets(found, self.width), dtype=np.int64)
        return np.eye(self.width, dtype=np.float32)[numbers[which.reshape(-1)]]

    def wire(self, drawing: Drawing, source: str) -> str:
        hashed = drawing.node(
            "MurmurHash3", source, domain=RUNTIME_DOMAIN, positive=1, seed=SEED
        )
        wide = drawing.node("Cast", hashed, to=int(TensorProto.INT64))
        number = drawing.node("Mod", wide, drawing.constant(self.width, np.int64))
        columns: npt.NDArray[np.int64] = np.arange(self.width)
        hot = drawing.node("Equal", number, drawing.constant([columns], np.int64))
        return as_float(drawing, hot)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = {name: {"columns": self.width, "seed": SEED} for name in columns}
        return PreprocessingStep(step="hashing", columns=list(columns), fitted=fitted)
