"""Who asks, what they may do, and the note that they did."""
