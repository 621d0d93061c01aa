"""Comments: what people wrote on anything, and what became of it."""
