"""``driftloop export`` and ``driftloop edges``: a version that answers afar."""
