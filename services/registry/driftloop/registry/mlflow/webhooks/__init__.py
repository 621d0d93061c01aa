"""Webhooks: told on, signed, delivered at least once."""
