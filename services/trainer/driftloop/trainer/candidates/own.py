"""A model of the pipeline's own package, imported by the path that the file gives.

Code is imported only from modules that the installation allows by the setting
``DRIFTLOOP_TRAINER_ALLOWED_IMPORTS``: whoever may apply a pipeline file may otherwise
run any function that is installed. What it raises is a refusal in words, so that the
training goes on with the other candidates.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from driftloop.contracts.own_candidates import OwnCandidate
from driftloop.trainer.candidates.own_graph import core_nodes
from driftloop.trainer.candidates.sample import CandidateRefused, Sample
from driftloop.trainer.graph import Core, Floats, Link, Matrix

SETTING = "DRIFTLOOP_TRAINER_ALLOWED_IMPORTS"


def own_candidate(
    name: str, entries: Iterable[str | OwnCandidate], allowed: Sequence[str]
) -> Callable[[Sample], Core] | None:
    """Return the function that fits an own candidate; None if it is none of those.

    Parameters
    ----------
    allowed : modules, each with all below it.

    Raises
    ------
    CandidateRefused
        When it cannot be imported, or may not be.
    """
    own = (e for e in entries if isinstance(e, OwnCandidate) and e.name == name)
    entry = next(own, None)
    if entry is None:
        return None
    make = _imported(entry.path, allowed)
    return lambda sample: _learned(entry, make, sample)


def _imported(path: str, allowed: Sequence[str]) -> Callable[..., Any]:
    """Return what a path names, if both the path and its origin are allowed.

    The origin counts too: an allowed module also holds what it imported itself.
    """
    module, _, name = path.partition(":")
    _check_allowed(path, module, allowed)
    with _in_words(f"the import of {path}"):
        found = getattr(import_module(module), name)
    if not callable(found):
        raise CandidateRefused(
            f"{path} is no function or class that gives an estimator, but "
            f"{type(found).__name__}"
        )
    _check_allowed(path, str(getattr(found, "__module__", None)), allowed)
    make: Callable[..., Any] = found
    return make


def _check_allowed(path: str, module: str, allowed: Sequence[str]) -> None:
    if not any(module == a or module.startswith(f"{a}.") for a in allowed):
        raise CandidateRefused(
            f"{path} was not run: the installation does not allow module {module!r}; "
            f"whoever runs the trainer may allow it with {SETTING}={module}"
        )


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Turn what foreign code raises into a refusal; lack of memory is no such thing."""
    try:
        yield
    except (CandidateRefused, MemoryError):
        raise
    except Exception as error:
        raise CandidateRefused(
            f"{what} raised {type(error).__name__}: {error}"
        ) from error


def _learned(entry: OwnCandidate, make: Callable[..., Any], sample: Sample) -> Core:
    with _in_words(f"{entry.path} with its parameters"):
        estimator = make(**entry.parameters)
        _settle(estimator, sample)
    _check_estimator(entry, estimator, sample)
    more = {} if sample.weights is None else {"sample_weight": sample.weights}
    with _in_words(f"fit of {entry.name}"):
        estimator.fit(sample.matrix.copy(), sample.target.copy(), **more)
    answer = _predictor(entry, estimator, len(sample.classes))
    with _in_words(f"the export of {entry.name}"):
        nodes, constants = core_nodes(estimator, sample)
    link: Link = "probability" if sample.classes else "identity"
    parameters = {"import": entry.path, **entry.parameters}
    return Core(nodes, constants, link, answer, parameters)


def _settle(estimator: Any, sample: Sample) -> None:
    """Seed it where it leaves the seed open, and give it this training's threads."""
    if not hasattr(estimator, "get_params"):
        if getattr(estimator, "random_state", 0) is None:
            estimator.random_state = sample.seed
        return
    changes = {}
    for key, value in estimator.get_params().items():
        last = key.rsplit("__", 1)[-1]
        if last == "random_state" and value is None:
            changes[key] = sample.seed
        elif last == "n_jobs":
            changes[key] = sample.threads
    if changes:
        estimator.set_params(**changes)


def _check_estimator(entry: OwnCandidate, estimator: Any, sample: Sample) -> None:
    wanted = ("fit", "predict_proba" if sample.classes else "predict")
    missing = [name for name in wanted if not callable(getattr(estimator, name, None))]
    if missing:
        raise CandidateRefused(
            f"{entry.path} gave {type(estimator).__name__}, which has no "
            f"{' and no '.join(missing)}; docs/training.md says what it needs"
        )
    if sample.weights is not None:
        takes = inspect.signature(estimator.fit).parameters
        if "sample_weight" not in takes:
            raise CandidateRefused(
                f"fit of {entry.name} takes no sample_weight, so no row can count less "
                "with its age; leave it to train.recency_half_life_days: [null]"
            )


def _predictor(
    entry: OwnCandidate, estimator: Any, classes: int
) -> Callable[[Matrix], Floats]:
    """Return its own answer, of the shape that a candidate has to give."""

    def predict(matrix: Matrix) -> Floats:
        with _in_words(f"an answer of {entry.name}"):
            ask = estimator.predict_proba if classes else estimator.predict
            found = np.asarray(ask(matrix.copy()), dtype=np.float64)
        shape = (len(matrix), classes) if classes else (len(matrix),)
        if not classes and found.shape == (len(matrix), 1):
            found = found[:, 0]
        if found.shape != shape:
            raise CandidateRefused(
                f"{entry.name} answers with {found.shape}, not {shape}; "
                "docs/training.md says what it has to give"
            )
        return found

    return predict
