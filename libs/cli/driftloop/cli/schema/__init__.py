"""The schema of a pipeline for people: infer, show, accept, diff."""
