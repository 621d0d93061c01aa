"""The three errors a handler may raise on purpose; anything else is a bug."""


class Reject(Exception):  # noqa: N818 - reads as an order at the call: raise Reject(..)
    """A message that can never be handled: it goes to the dead letters.

    Parameters
    ----------
    reason : what is wrong and what would be right, for the person who reads it.
    field : the field at fault, where there is one.
    plain : the reason without anything that the message holds, for messages whose
        values nobody may read; None: there is nothing to say.
    """

    def __init__(
        self, reason: str, *, field: str | None = None, plain: str | None = None
    ) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason = reason
        self.field = field
        self.plain = plain


def without_values(error: Exception) -> Reject:
    """Return what may be told of an error whose message nobody may read.

    >>> str(without_values(Reject("'ada' is no time", field="at", plain="no time")))
    'at: no time'
    >>> str(without_values(ValueError("ada")))
    'ValueError; more is kept back, as the pipeline has privacy rules or attachments'
    """
    kept_back = f"{type(error).__name__}; more is kept back, as the pipeline has "
    plain = getattr(error, "plain", None) or f"{kept_back}privacy rules or attachments"
    return Reject(plain, field=getattr(error, "field", None), plain=plain)


class Retry(Exception):  # noqa: N818 - as above
    """A passing fault (a store away): the message is tried again, in its place."""


class Skip(Exception):  # noqa: N818 - as above
    """Nothing to do (stale or repeated); counted by its reason, which is a label.

    Parameters
    ----------
    reason : one of a few fixed words, as it becomes a metric label.
    """
