"""``driftloop erasures``: what an erasure affects, and how that is settled."""
