"""The methods; each is one file that reads like its paper's algorithm.  `diffnas.registry` has their names."""
