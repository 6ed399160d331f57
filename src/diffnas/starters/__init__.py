"""Files to start from: a method, a space or a data set of one's own that works at once."""
