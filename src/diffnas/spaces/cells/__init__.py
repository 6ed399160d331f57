"""A base for convolutional spaces of one's own: cells in a chain, from a few ops and a layout."""
