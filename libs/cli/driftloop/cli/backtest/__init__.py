"""``driftloop backtest``: policies over recorded data."""
