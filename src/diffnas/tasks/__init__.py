"""Tasks: losses, rewards and metrics of a network's outputs."""
