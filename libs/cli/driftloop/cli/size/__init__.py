"""``driftloop size``: how many scorers a rate of requests needs, and how large."""
