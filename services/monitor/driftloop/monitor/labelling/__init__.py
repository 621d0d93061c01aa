"""Active learning: which rows without a label people are asked to label."""
