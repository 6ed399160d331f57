"""Reading what other programs wrote: weights, genotypes, pickled data sets."""
