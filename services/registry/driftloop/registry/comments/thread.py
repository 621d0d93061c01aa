"""What a comment says now, from what was written; nothing that was said is lost."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Written:
    """A comment was added, edited or taken back.

    Attributes
    ----------
    kind, which : what it is about.
    change : ``added``, ``edited`` or ``deleted``.
    """

    event_id: str
    comment_id: str
    kind: str
    which: str
    at: datetime
    change: str
    text: str
    by: str


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as it is now.

    Attributes
    ----------
    text : empty when it was taken back.
    by : who added it; only they may write it anew.
    history : all that was written, oldest first.
    """

    comment_id: str
    kind: str
    which: str
    text: str
    by: str
    history: tuple[Written, ...]

    @property
    def is_deleted(self) -> bool:
        return self.history[-1].change == "deleted"


def comments_of(written: Iterable[Written]) -> Iterator[Comment]:
    """Yield each comment as it is now, in the order in which they were added.

    Parameters
    ----------
    written : in the order of the log. A change of what was taken back, or was never
        added, does not count.

    >>> noon = datetime(2026, 1, 1)
    >>> added = Written("e1", "e1", "model", "3", noon, "added", "good", "ann")
    >>> edited = replace(added, event_id="e2", change="edited", text="very good")
    >>> [comment] = comments_of([added, edited])
    >>> comment.text, len(comment.history)
    ('very good', 2)
    """
    found: dict[str, Comment] = {}
    for each in written:
        before = found.get(each.comment_id)
        if before is None:
            if each.change == "added":
                found[each.comment_id] = Comment(
                    each.comment_id, each.kind, each.which, each.text, each.by, (each,)
                )
        elif not before.is_deleted and each.change != "added":
            found[each.comment_id] = replace(
                before, text=each.text, history=(*before.history, each)
            )
    yield from found.values()
