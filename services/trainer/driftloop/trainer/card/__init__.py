"""The model card: what a model is for, from what, how good, and what to mind."""
