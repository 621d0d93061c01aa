"""Runners of exported versions: what they told, and whether they answer with a bad one."""
