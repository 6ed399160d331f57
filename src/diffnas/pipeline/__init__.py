"""One verb of the user per file: search, train, test.  They meet only in the files of a run folder."""
