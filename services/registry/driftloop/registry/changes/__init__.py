"""The stream of changes: what happens, as it happens, to who may see it."""
