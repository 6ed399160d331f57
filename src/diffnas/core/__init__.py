"""The vocabulary: cells, mixtures, genotypes, schedules, seeds.  Imports nothing else of diffnas but its errors."""
