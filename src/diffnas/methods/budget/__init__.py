"""A budget for any method: what its networks may cost."""
