"""``driftloop labels``: rows that people should label, and what they say."""
