"""A new database from the log: ``python -m driftloop.registry rebuild``."""
