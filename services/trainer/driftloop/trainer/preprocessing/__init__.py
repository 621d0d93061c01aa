"""Cleaning steps: what each learns, does to arrays, and is in the served graph.

One module a family, each step with ``apply`` (numpy) and ``wire`` (ONNX) side by side.
"""
