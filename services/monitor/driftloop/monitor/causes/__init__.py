"""Why the error rose or inputs changed: signals, their weights, and the verdict."""
