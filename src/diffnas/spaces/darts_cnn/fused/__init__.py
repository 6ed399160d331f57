"""The fast form of the supernet: everything that leaves a state is computed at once."""
