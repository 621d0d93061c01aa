"""``make demo``: two real years in a few minutes, through the real chain."""
