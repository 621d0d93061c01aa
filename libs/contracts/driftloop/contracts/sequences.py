"""``train.sequences``: features of one row that are one quantity at equal steps."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence

NUMBERS = frozenset({"number", "integer"})
LEAST_STEPS = 2


def check_lengths(sequences: dict[str, list[str]]) -> dict[str, list[str]]:
    """Refuse sequences that are no sequences, or of different lengths.

    Raises
    ------
    ValueError
        Names the sequence and the remedy.

    Examples
    --------
    >>> check_lengths({"load": ["load_2h", "load_1h"]})
    {'load': ['load_2h', 'load_1h']}
    """
    for name, columns in sequences.items():
        if len(columns) < LEAST_STEPS:
            raise ValueError(
                f"{name!r} has {len(columns)} column; a sequence has at least "
                f"{LEAST_STEPS}, the oldest first: add the others or remove it"
            )
    counts = Counter(column for columns in sequences.values() for column in columns)
    if twice := sorted(column for column, count in counts.items() if count > 1):
        raise ValueError(
            f"{', '.join(twice)} comes more than once; a column is one step of one "
            "sequence: name it once"
        )
    lengths = {name: len(columns) for name, columns in sequences.items()}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise ValueError(
            f"sequences are of different lengths ({words}); they are read side by "
            "side: give all of them the same steps"
        )
    return sequences


def check_sequences(
    sequences: Mapping[str, Sequence[str]], feature_types: Mapping[str, str]
) -> None:
    """Refuse sequences of columns that are not there or no numbers.

    Parameters
    ----------
    feature_types : by column, all of them.

    Raises
    ------
    ValueError
        Names the sequence, the column and the remedy.
    """
    for name, columns in sequences.items():
        for column in columns:
            kind = feature_types.get(column)
            if kind is None:
                near = difflib.get_close_matches(column, sorted(feature_types), n=1)
                hint = f"did you mean {near[0]!r}?" if near else (
                    f"features are {', '.join(feature_types)}"
                )  # fmt: skip
                raise ValueError(
                    f"train.sequences.{name} names {column!r}, which is no feature; "
                    f"{hint}"
                )
            if kind not in NUMBERS:
                raise ValueError(
                    f"train.sequences.{name} names {column!r}, which is of type "
                    f"{kind}; a step is a number or an integer: remove it or correct "
                    "its type under data.features"
                )
