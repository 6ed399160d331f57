"""diffnas."""
