"""What can be wrong with what was asked."""


class BacktestError(Exception):
    """A backtest cannot be made; the text names the remedy."""
