"""The commands as functions, one per file: search, train, test.  They communicate only through run folders."""
