"""Registered models: the clients' own, and the pipelines beside them."""
