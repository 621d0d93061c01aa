"""What may go wrong, in words."""


class Refused(Exception):  # noqa: N818 - says what happened
    """The package, a setting or a file is not right; nothing is served."""


class BadRequest(ValueError):  # noqa: N818 - says what happened
    """The caller sent something that is not right; the text says what would be."""


class ModelFailed(Exception):  # noqa: N818 - says what happened
    """The model has no answer to rows that are right."""
