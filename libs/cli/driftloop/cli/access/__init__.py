"""``driftloop tokens``, ``driftloop me`` and ``driftloop verify``."""
