"""``driftloop rebuild``."""
