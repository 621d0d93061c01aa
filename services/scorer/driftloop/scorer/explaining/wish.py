"""What a request says about an explanation: ``explain`` and ``explain_ms``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftloop.scorer.feeds import BadRequest

EXPLAIN = "explain"
EXPLAIN_MS = "explain_ms"
WORDS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds that an explanation may take: if a request says none, at most."""

    usual_ms: int
    most_ms: int


@dataclass(frozen=True, slots=True)
class Wish:
    """That an explanation is wanted.

    Attributes
    ----------
    milliseconds : for which the answer waits for it.
    """

    milliseconds: int


def wish_in(parameters: Mapping[str, Any], times: Times) -> Wish | None:
    """Return what is wished for in a request's parameters; None: no explanation.

    Naming a time is wish enough. Others' parameters are left alone.

    Raises
    ------
    BadRequest
        Names the parameter that is not right.

    >>> wish_in({"explain_ms": 20}, Times(50, 1000))
    Wish(milliseconds=20)
    """
    wanted = parameters.get(EXPLAIN)
    if wanted is not None and not isinstance(wanted, bool):
        raise BadRequest(f"{EXPLAIN}: expected true or false, not {wanted!r:.40}")
    given = parameters.get(EXPLAIN_MS)
    if given is not None and (
        type(given) is not int or not 1 <= given <= times.most_ms
    ):
        raise BadRequest(
            f"{EXPLAIN_MS}: expected a whole number of milliseconds from 1 to "
            f"{times.most_ms}, not {given!r:.40}"
        )
    is_wanted = given is not None if wanted is None else wanted
    return Wish(given or times.usual_ms) if is_wanted else None


def parameters_in_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that an address has, read from text.

    What is neither a truth value nor a whole number stays text, and is named as wrong.

    >>> parameters_in_query({"explain": "true", "explain_ms": "20", "other": "1"})
    {'explain': True, 'explain_ms': 20}
    """
    found: dict[str, Any] = {}
    if (wanted := query.get(EXPLAIN)) is not None:
        found[EXPLAIN] = WORDS.get(wanted.lower(), wanted)
    if (given := query.get(EXPLAIN_MS)) is not None:
        found[EXPLAIN_MS] = int(given) if given.isdecimal() else given
    return found
