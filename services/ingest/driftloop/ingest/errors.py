"""What is wrong with a message as a whole."""


class FormatError(ValueError):
    """A whole message cannot be read; the text says what would be right."""
