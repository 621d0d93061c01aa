"""Where everything came from, and what it went into."""
