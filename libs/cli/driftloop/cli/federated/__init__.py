"""``driftloop federated``: train one model on rows of several sites that stay there."""
