"""The search spaces; each is a folder with the same file names.  `diffnas.registry` has their names."""
