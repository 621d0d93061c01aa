"""Models that have seen the rows of an erased subject, until each is settled."""
