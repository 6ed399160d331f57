"""Benchmarks, run as modules from the root of the repository: `python -m benchmarks.step --quick`."""
