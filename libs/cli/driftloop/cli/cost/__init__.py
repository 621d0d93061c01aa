"""``driftloop cost``: what models take of processors and of storage."""
