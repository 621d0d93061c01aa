"""Dataset versions for people: list, show, diff, export, report."""
