"""Models that were made elsewhere: measured like candidates, then packaged."""
