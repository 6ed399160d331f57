"""Tasks: what a network's outputs are worth."""
