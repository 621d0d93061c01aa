"""Runners of exported versions: what they told, and what is wrong with it."""
