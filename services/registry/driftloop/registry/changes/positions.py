"""How far a reader of the log is, as text that it can send back."""

import re
from collections.abc import Mapping

Positions = dict[tuple[str, int], int]
"""First offset that was not read yet, by topic and partition; not named: 0."""
_PLACE = re.compile(r"([a-z][a-z-]{0,60})/(\d{1,9})/(\d{1,18})")


def as_text(positions: Mapping[tuple[str, int], int]) -> str:
    """Return positions as text; all are named, as topics have no order among them.

    >>> as_text({("model-trained", 2): 5, ("approval-given", 0): 17})
    'approval-given/0/17,model-trained/2/5'
    """
    return ",".join(
        f"{topic}/{partition}/{offset}"
        for (topic, partition), offset in sorted(positions.items())
        if offset
    )


def parse_positions(text: str) -> Positions:
    """Return what :func:`as_text` wrote.

    Raises
    ------
    ValueError
        When it wrote something else.

    >>> parse_positions("model-trained/2/5")
    {('model-trained', 2): 5}
    """
    found: Positions = {}
    for part in filter(None, text.split(",")):
        place = _PLACE.fullmatch(part)
        if place is None:
            raise ValueError(f"{part!r:.80} is no position in the log")
        topic, partition, offset = place.groups()
        found[topic, int(partition)] = int(offset)
    return found
